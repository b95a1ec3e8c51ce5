"""Writes a trained recogniser as a SavedModel: image bytes in, text out, for TensorFlow Serving."""

import datetime
import functools
import importlib.metadata
import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from ocr import config as configs
from ocr import options
from ocr.images import preprocess
from ocr.model import decode, frozen
from ocr.model.recogniser import Recogniser
from ocr.saving import check_export, temperature
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model, warmup
from tfrecords import files
from tfrecords.errors import IntegrityError


def export(workdir: str, export_dir: str, decoder: str = "greedy", version: int = 0, calibrate: str = "") -> dict:
    """Exports the best weights of a training.

    Args:
      workdir: of the training.
      export_dir: the folder of versions, which a server watches.
      decoder: `greedy` or `beam`.
      version: a number above 0, or 0 for one more than the newest there.
      calibrate: records to calibrate confidences with, as `sharpness.sharpness` takes them, or nothing.

    Returns:
      `export`, the folder written, `version` and `bytes`; `sharpness` where it was calibrated.

    Raises:
      InputError: there is no training, that version is there already, or there are no such records.
      IntegrityError: what was written reads something else than the network in memory.
    """
    model, charset, config, provenance, metrics = Workdir(pathlib.Path(workdir)).load()
    folder = pathlib.Path(export_dir)
    version = version or _newest(folder) + 1
    fields = {"version": version, "decoder": decoder}
    options.check_range(fields, version=(1, 2**63 - 1))
    options.check_choice(fields, decoder=tuple(decode.DECODERS))
    options.check_given(export_dir=export_dir)
    with files.atomic_directory(folder / str(version)) as staging:
        sharper = {}
        if calibrate:
            sharper["sharpness"] = temperature.sharpness(Recogniser(model, charset, decoder), calibrate)
            for weight in model.get_layer("logits").trainable_variables:
                weight.assign(weight * sharper["sharpness"])
        _save(Recogniser(model, charset, decoder, fixed=True), charset.file_text(), staging)
        _compare(Recogniser(model, charset, decoder), staging)
        extra = staging / "assets.extra"
        extra.mkdir()
        about = {
            "network": config.model,
            "decoder": decoder,
            "alphabet": charset.fingerprint,
            "num_classes": charset.num_classes,
            "weights": frozen.fingerprint(model),
            "metrics": metrics,
            **sharper,
            "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")},
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "training": {name: value for name, value in vars(config).items() if name not in configs.PATHS},
            "made_of": provenance,
        }
        files.write_json(extra / "model.json", about)
        warmup.write(extra / warmup.NAME)
        check_export.inspect(staging)
        size = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    return {"export": str(folder / str(version)), "version": version, "bytes": size, **sharper}


def _newest(folder: pathlib.Path) -> int:
    return max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=0)


def _save(recogniser: Recogniser, charset_txt: str, folder: pathlib.Path) -> None:
    """Writes the SavedModel, the alphabet among its assets."""
    module = tf.Module()
    image_bytes = tf.TensorSpec([None], tf.string, "image_bytes")
    pixels, width = tf.TensorSpec([None, preprocess.HEIGHT, None], tf.uint8, "pixels"), tf.TensorSpec([None], tf.int32, "width")
    signatures = {
        "serving_default": tf.function(recogniser.read_files, [image_bytes]),
        "detailed": tf.function(functools.partial(recogniser.read_files, detailed=True), [image_bytes]),
        "lines": tf.function(recogniser.read_lines, [pixels, width]),
    }
    with tempfile.TemporaryDirectory() as beside:
        asset = pathlib.Path(beside) / "charset.txt"
        asset.write_text(charset_txt, "utf-8", newline="\n")
        module.charset = tf.saved_model.Asset(str(asset))
        tf.saved_model.save(module, str(folder), signatures=signatures)


def _compare(recogniser: Recogniser, folder: pathlib.Path) -> None:
    """Reads noise with what was written, and with what it was written from.

    Raises:
      IntegrityError: they read differently.
    """
    rng = np.random.default_rng(0)
    sizes = [(32, 280), (48, 100), (17, 300), (32, 1)]
    noise = [tf.io.encode_png(rng.integers(0, 256, (*size, 1), np.uint8)).numpy() for size in sizes]
    texts, confidences, _ = saved_model.load(folder)(noise)
    expected = recogniser.read_files(tf.constant(noise))
    same = [text.decode() for text in expected["text"].numpy()] == texts
    if not same or not np.allclose(confidences, expected["confidence"], atol=1e-3):
        raise IntegrityError(f"{folder}: reads {texts}, the network in memory {expected['text'].numpy().tolist()}")
