"""Writes a trained recogniser as a SavedModel for TensorFlow Serving: image bytes in, text out."""

import datetime
import functools
import importlib.metadata
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ocr import config as configs
from ocr import options
from ocr.model import decode, frozen, networks, ngram, questions
from ocr.model.fusion import Fusion
from ocr.model.recogniser import Recogniser
from ocr.saving import check_export, fusion_weights, temperature
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model, warmup
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError


def export(
    workdir: str,
    export_dir: str,
    decoder: str = "greedy",
    version: int = 0,
    calibrate: str = "",
    lm: str = "",
    turned_lines: bool = False,
    reread: bool = False,
) -> dict:
    """Exports the best weights of a training.

    Args:
      workdir: Folder of the training.
      export_dir: Folder of versions, which a server watches.
      decoder: `greedy` or `beam`.
      version: Version number, at least 1, or 0 for one more than the newest version in the folder.
      calibrate: Records to calibrate confidences with, as `temperature.find_scale` takes them, or "".
      lm: File of a language model for the decoder `beam`, or "". It needs records to calibrate with.
      turned_lines: Whether doubtful lines are read upside down and on their side, too.
      reread: Whether doubtful lines are read in other sizes, too.

    Returns:
      `export`, the folder written; `version`; `bytes`, its size; `sharpness`, the factor of the logits, if calibrated; and
      `language`, the weights of a language model and what they change (see `fusion_weights.choose`).

    Raises:
      InputError: There is no training, the version exists, or there are no such records or no such language model.
      IntegrityError: The export does not read what the network in memory reads, or fails a check.
    """
    if lm and not (decoder == "beam" and calibrate):
        raise InputError(f"--lm={lm}: needs --decoder=beam, and --calibrate to choose its weight on lines")
    language = ngram.load(pathlib.Path(lm)) if lm else None
    model, charset, config, provenance, metrics = Workdir(pathlib.Path(workdir)).load()
    folder = pathlib.Path(export_dir)
    version = version or saved_model.next_version(folder)
    fields = {"version": version, "decoder": decoder}
    options.check_range(fields, version=(1, 2**63 - 1))
    options.check_choice(fields, decoder=tuple(decode.DECODERS))
    options.check_given(export_dir=export_dir)
    with files.atomic_directory(folder / str(version)) as staging:
        calibration: dict[str, Any] = {}
        fusion = None
        if calibrate:
            # A language model is asked only where greedy decoding is unsure, so it is that whose confidences have to be right.
            plain = Recogniser(model, charset, "greedy" if language else decoder)
            calibration["sharpness"] = temperature.find_scale(plain, calibrate, reread)
            for weight in model.get_layer("logits").trainable_variables:
                weight.assign(weight * calibration["sharpness"])
            if language:
                weights, measured = fusion_weights.choose(plain, language, calibrate)
                fusion = Fusion(language, charset, weights)
                calibration["language"] = {
                    **weights._asdict(),
                    "order": language.order,
                    "ngrams": len(language.keys),
                    **measured,
                }
        frozen.round_weights(model)  # what is compared with the export is what it was made of
        build = functools.partial(Recogniser, model, charset, decoder, fusion=fusion, turned_lines=turned_lines, reread=reread)
        _save(build(fixed=True), charset.file_text(), staging)
        extra = staging / "assets.extra"
        extra.mkdir()
        about = {
            "network": config.model,
            "decoder": decoder,
            "turned_lines": turned_lines,
            "reread": reread,
            "alphabet": charset.fingerprint,
            "num_classes": charset.num_classes,
            "weights": frozen.fingerprint(model),
            "metrics": metrics,
            **calibration,
            "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")},
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "training": {name: value for name, value in vars(config).items() if name not in configs.PATHS},
            "made_of": provenance,
        }
        files.write_json(extra / "model.json", about)
        warmup.write(extra / warmup.NAME, networks.network(model.name).frame.height)
        written = saved_model.load(staging)
        _compare(build(), written, staging)
        check_export.inspect(staging, written)
        size = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    return {"export": str(folder / str(version)), "version": version, "bytes": size, **calibration}


def signatures(recogniser: Recogniser) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns what an export can be asked, by name: functions of inputs by name that give outputs by name."""
    image_bytes = tf.TensorSpec([None], tf.string, "image_bytes")
    pixels = tf.TensorSpec([None, recogniser.frame.height, None], tf.uint8, "pixels")
    width = tf.TensorSpec([None], tf.int32, "width")
    texts, count = tf.TensorSpec([None, None], tf.string, "text"), tf.TensorSpec([None], tf.int32, "count")
    allowed, pattern = (tf.TensorSpec([None], tf.string, name) for name in ("allowed", "pattern"))
    score, constrained = (functools.partial(f, recogniser) for f in (questions.score_files, questions.read_constrained))
    detailed = tf.function(functools.partial(recogniser.read_files, detailed=True), [image_bytes], autograph=False)

    def default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = detailed(image_bytes)  # one graph for both
        return {name: outputs[name] for name in ("text", "confidence", "status")}

    return {
        "serving_default": tf.function(default, [image_bytes], autograph=False),
        "detailed": detailed,
        "lines": tf.function(recogniser.read_lines, [pixels, width], autograph=False),
        "score": tf.function(score, [image_bytes, texts, count], autograph=False),
        "constrained": tf.function(constrained, [image_bytes, allowed, pattern], autograph=False),
    }


def _save(recogniser: Recogniser, charset_txt: str, folder: pathlib.Path) -> None:
    """Writes the SavedModel, with the alphabet among its assets."""
    module = tf.Module()
    with tempfile.TemporaryDirectory() as temporary:
        asset = pathlib.Path(temporary) / "charset.txt"
        asset.write_text(charset_txt, "utf-8", newline="\n")
        module.charset = tf.saved_model.Asset(str(asset))
        tf.saved_model.save(module, str(folder), signatures=signatures(recogniser))


def _compare(recogniser: Recogniser, written: saved_model.Export, folder: pathlib.Path) -> None:
    """Makes sure that an export reads images of noise as the network in memory does.

    Raises:
      IntegrityError: It does not.
    """
    rng = np.random.default_rng(0)
    sizes = [(32, 280), (48, 100), (17, 300), (32, 1)]
    noise = [tf.io.encode_png(rng.integers(0, 256, (*size, 1), np.uint8)).numpy() for size in sizes]
    texts, confidences, _ = written(noise)
    expected = recogniser.read_files(tf.constant(noise))
    expected_texts = [text.decode() for text in expected["text"].numpy()]
    expected_confidences = expected["confidence"].numpy()
    if texts != expected_texts or not np.allclose(confidences, expected_confidences, atol=1e-3):
        raise IntegrityError(
            f"{folder}: reads {texts} with confidences {confidences.tolist()}, the network in memory {expected_texts} with "
            f"{expected_confidences.tolist()}"
        )
