"""Checks that an export keeps every promise that servers and their clients rely on."""

import functools
import io
import operator
import pathlib
import string
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from ocr import charset as charsets
from ocr.images import preprocess
from ocr.images.header import PNG_MAGIC, SCALED_HEIGHT
from ocr.model import frozen
from ocr.model.questions import REFUSED
from ocr.serving import saved_model, warmup
from ocr.synthesis import drawing, fonts, styles
from tfrecords import errors, files
from tfrecords.errors import InputError, IntegrityError

_PREDICTIONS = {"text": (tf.string, 1), "confidence": (tf.float32, 1), "status": (tf.int32, 1)}  # type, rank
_CHARACTERS = {
    "chars": (tf.string, 2),
    "char_confidence": (tf.float32, 2),
    "char_start": (tf.int32, 2),
    "char_end": (tf.int32, 2),
}
_FILES = {"image_bytes": (tf.string, 1)}
_REFUSABLE = {"status": (tf.int32, 1), "error": (tf.string, 1)}
_SIGNATURES = {  # inputs, outputs
    "serving_default": (_FILES, _PREDICTIONS),
    "detailed": (_FILES, _PREDICTIONS | _CHARACTERS),
    "lines": ({"pixels": (tf.uint8, 3), "width": (tf.int32, 1)}, _PREDICTIONS),
    "score": (
        _FILES | {"text": (tf.string, 2), "count": (tf.int32, 1)},
        _REFUSABLE
        | {"log_probability": (tf.float32, 2), "best": (tf.int32, 1), "agreement": (tf.float32, 3), "missing": (tf.string, 1)},
    ),
    "constrained": (
        _FILES | {"allowed": (tf.string, 1), "pattern": (tf.string, 1)},
        _REFUSABLE | _PREDICTIONS | {"unconstrained_confidence": (tf.float32, 1)},
    ),
}
_ADDED = ("score", "constrained")  # which older exports lack
_FUSED = {"fused_score": (tf.float32, 1)}  # which the signature `detailed` has with a language model
_TURNED = {"turned": (tf.int32, 1)}  # which it has if lines are read turned, too
_REREAD = {"reread": (tf.int32, 1)}  # which it has if lines are read in other sizes, too
_NOT_CORE_KERNELS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaLaunch", "XlaLaunchV2"}
_TOLERANCE = 1e-3  # of confidences
_WIDTHS = (280, 60, 1, 613, 280, 1900)  # pixels, of the lines that are read


def inspect(folder: pathlib.Path, export: saved_model.Export) -> list[str]:
    """Checks an export.

    Args:
      folder: A version.
      export: The same, loaded.

    Returns:
      The names of the checks, which it has all passed.

    Raises:
      IntegrityError: It fails a check.
    """
    signatures = export.signatures
    checks: dict[str, Callable[[], None]] = {
        "signatures": lambda: _check_signatures(signatures),
        "alphabet and weights": lambda: _check_provenance(folder, signatures["serving_default"]),
        "core kernels only": lambda: _check_kernels(signatures),
        "warm-up requests": lambda: _check_warm_up(folder, signatures),
        "empty batches": lambda: _check_empty_batches(signatures),
        "bad images beside good ones": lambda: _check_bad_images(signatures["serving_default"]),
        "lines alone and in a batch": lambda: _check_batch_independence(signatures["serving_default"]),
        "characters and their positions": lambda: _check_characters(signatures),
        "preprocessed lines": lambda: _check_lines(signatures),
    }
    if _has(signatures, _TURNED):
        checks["turned lines"] = lambda: _check_turned(signatures)
    if _ADDED[0] in signatures:
        checks["given texts"] = lambda: _check_scores(folder, signatures)
        checks["constraints"] = lambda: _check_constraints(signatures)
    failures: tuple[type[Exception], ...] = (*errors.damage_errors(), InputError)
    for name, check in checks.items():
        try:
            check()
        except failures as error:
            raise IntegrityError(f"{folder}: {name}: {errors.first_line(error)}") from error
    return list(checks)


def _check_signatures(signatures: Mapping[str, Any]) -> None:
    def types(tensors: Mapping[str, tf.TensorSpec]) -> dict[str, tuple[tf.DType, int]]:
        return {name: (tensor.dtype, len(tensor.shape)) for name, tensor in tensors.items()}

    actual = {name: (types(s.structured_input_signature[1]), types(s.structured_outputs)) for name, s in signatures.items()}
    _check_equal(actual, _expected(signatures))


def _expected(signatures: Mapping[str, Any]) -> dict[str, tuple[dict, dict]]:
    """Returns what the signatures should be; an export has all of those that were added, or none."""
    is_older = not any(name in signatures for name in _ADDED)
    expected = {name: tensors for name, tensors in _SIGNATURES.items() if not (is_older and name in _ADDED)}
    inputs, outputs = expected["detailed"]
    added = [more for more in (_FUSED, _TURNED, _REREAD) if _has(signatures, more)]
    return expected | {"detailed": (inputs, functools.reduce(operator.or_, added, outputs))}


def _has(signatures: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    """Returns whether the signature `detailed` has these outputs, too."""
    return "detailed" in signatures and outputs.keys() <= signatures["detailed"].structured_outputs.keys()


def _check_provenance(folder: pathlib.Path, serve: Any) -> None:
    about = files.read_json(folder / "assets.extra" / "model.json")
    charset = charsets.load_charset(folder / "assets" / "charset.txt", about["alphabet"])
    _check_equal(charset.num_classes, about["num_classes"])
    _check_equal(frozen.digest(frozen.weights(serve)), about["weights"])


def _check_kernels(signatures: Mapping[str, Any]) -> None:
    for signature in signatures.values():
        graph = signature.graph.as_graph_def()
        used = {node.op for function in graph.library.function for node in function.node_def}
        _check_equal(sorted(used & _NOT_CORE_KERNELS), [])


def _check_empty_batches(signatures: Mapping[str, Any]) -> None:
    for name, (inputs, outputs) in _expected(signatures).items():
        height = _line_height(signatures)
        arrays = {key: tf.zeros([0, height, 0][:rank], dtype) for key, (dtype, rank) in inputs.items()}
        _check_equal({key: value.shape[0] for key, value in signatures[name](**arrays).items()}, dict.fromkeys(outputs, 0))


def _check_bad_images(serve: Any) -> None:
    good = _draw_lines()
    alone = serve(image_bytes=tf.constant(good))
    _check_equal(alone["status"].numpy().tolist(), [preprocess.READ] * len(good))
    header = PNG_MAGIC + struct.pack(">I", 13) + b"IHDR"
    bomb = header + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0) + bytes(4)
    bad = [b"", b"no image", bytes(1000), good[0][:-40], header, bomb]
    statuses = [preprocess.UNDECODABLE] * 5 + [preprocess.TOO_LARGE]
    mixed = [file for pair in zip(good, bad, strict=True) for file in pair]
    outputs = serve(image_bytes=tf.constant(mixed))
    _check_equal(outputs["status"].numpy()[1::2].tolist(), statuses)
    _check_equal(outputs["text"].numpy()[1::2].tolist(), [b""] * len(bad))
    _check_equal(outputs["confidence"].numpy()[1::2].tolist(), [0.0] * len(bad))
    _check_same_predictions({name: value[::2] for name, value in outputs.items()}, alone)


def _check_batch_independence(serve: Any) -> None:
    lines = _draw_lines()
    batch = serve(image_bytes=tf.constant(lines))
    for row, line in enumerate(lines):
        alone = serve(image_bytes=tf.constant([line]))
        _check_same_predictions({name: value[row : row + 1] for name, value in batch.items()}, alone)


def _check_characters(signatures: Mapping[str, Any]) -> None:
    lines = [*_draw_lines(), b"no image"]
    widths = [*_WIDTHS, 0]
    outputs = signatures["detailed"](image_bytes=tf.constant(lines))
    _check_same_predictions(outputs, signatures["serving_default"](image_bytes=tf.constant(lines)))
    rows = [outputs[name].numpy() for name in ("text", "chars", "char_confidence", "char_start", "char_end")]
    turned = outputs["turned"].numpy() if "turned" in outputs else np.zeros(len(lines), int)
    for width, degrees, text, characters, confidences, starts, ends in zip(widths, turned, *rows, strict=True):
        length = len(text.decode())
        _check_equal(
            (b"".join(characters), [*map(len, map(bytes.decode, characters))]),
            (text, [1] * length + [0] * (len(characters) - length)),
        )
        _check_equal([value.any() for value in (confidences[length:], starts[length:], ends[length:])], [False] * 3)
        if degrees % 180 == 0:
            own = list(zip(starts[:length], ends[:length], strict=True))[:: -1 if degrees else 1]
            places = [0, *(place for pair in own for place in pair), width]
            _check_equal(places, sorted(places))


def _check_lines(signatures: Mapping[str, Any]) -> None:
    lines = tf.constant(_draw_lines())
    pixels, width, _, _ = preprocess.read_rows(lines, _line_height(signatures))
    outputs = signatures["lines"](pixels=pixels, width=width)
    _check_same_predictions(outputs, _read_as_shown(signatures, lines))


def _check_turned(signatures: Mapping[str, Any]) -> None:
    """Makes sure that lines upside down are read as they are shown or as they are once they are turned, and that it is said."""
    files = tf.constant([_upside_down(file) for file in _draw_lines()])
    outputs = signatures["detailed"](image_bytes=files)
    pixels, width, _, _ = preprocess.read_rows(files, _line_height(signatures))
    turned = tf.reverse(tf.reverse_sequence(pixels, width, seq_axis=2, batch_axis=0), [1])
    is_turned = outputs["turned"] == 180
    rows = tf.where(is_turned[:, tf.newaxis, tf.newaxis], turned, pixels)
    is_input = outputs["turned"] % 180 == 0  # the others are not among the inputs of `lines`
    is_input &= outputs.get("reread", tf.zeros_like(width)) == 0
    actual = {name: value[is_input] for name, value in outputs.items()}
    expected = signatures["lines"](pixels=rows[is_input], width=width[is_input])
    _check_same_predictions(actual, expected)


def _upside_down(file: bytes) -> bytes:
    turned = io.BytesIO()
    Image.open(io.BytesIO(file)).transpose(Image.Transpose.ROTATE_180).save(turned, "png")
    return turned.getvalue()


def _read_as_shown(signatures: Mapping[str, Any], files: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the predictions of image files as they are shown, also of those that the export reads in another way."""
    outputs = signatures["detailed"](image_bytes=files)
    pixels, width, _, _ = preprocess.read_rows(files, _line_height(signatures))
    is_changed = outputs.get("turned", tf.zeros_like(width)) != 0
    is_changed |= outputs.get("reread", tf.zeros_like(width)) != 0
    as_lines = signatures["lines"](pixels=pixels, width=width)
    return {name: tf.where(is_changed, as_lines[name], outputs[name]) for name in _PREDICTIONS}


def _check_scores(folder: pathlib.Path, signatures: Mapping[str, Any]) -> None:
    """Makes sure that the text read is as probable as it is confident, and that a refused row leaves the others as they are."""
    lines = [*_draw_lines()[:2], b"no image", *_draw_lines()[:1]]
    read = _read_as_shown(signatures, tf.constant(lines))
    text = tf.stack([read["text"], tf.fill([4], "")], axis=1)
    outputs = signatures["score"](image_bytes=tf.constant(lines), text=text, count=tf.constant([1, 2, 2, 3]))
    _check_equal(outputs["status"].numpy().tolist(), [*read["status"].numpy()[:3], REFUSED])
    _check_equal([bool(error) for error in outputs["error"].numpy()], [False, False, False, True])
    _check_equal(outputs["best"].numpy()[2:].tolist(), [-1, -1])
    _check_equal(outputs["missing"].numpy().tolist(), [b""] * 4)
    characters = (folder / "assets" / "charset.txt").read_text("utf-8").split("\n")
    if len(set(characters)) == len(characters):  # else a text may be read with other classes than those it is scored with
        scores = {"confidence": tf.exp(outputs["log_probability"][:, 0])}
        expected = {"confidence": tf.where(outputs["status"] == preprocess.READ, read["confidence"], 0.0)}
        _check_same_confidences(scores, expected)


def _check_constraints(signatures: Mapping[str, Any]) -> None:
    """Makes sure that no constraints change nothing, that others are kept, and that a refused row leaves the others."""
    lines = [*_draw_lines()[:2], b"no image", *_draw_lines()[:2]]
    read = _read_as_shown(signatures, tf.constant(lines))
    patterns = tf.constant(["", "", "digits", "digits", "+"])
    outputs = signatures["constrained"](image_bytes=tf.constant(lines), allowed=tf.fill([5], ""), pattern=patterns)
    free = {name: value[:3] for name, value in outputs.items()}
    _check_same_predictions(free, {name: value[:3] for name, value in read.items()})
    _check_same_confidences({"confidence": free["unconstrained_confidence"]}, free)
    _check_equal(outputs["status"].numpy()[3:].tolist(), [preprocess.READ, REFUSED])
    _check_equal([bool(error) for error in outputs["error"].numpy()], [False] * 4 + [True])
    digits = outputs["text"].numpy()[3].decode()
    _check_equal(set(digits) <= set(string.digits), True)


def _check_warm_up(folder: pathlib.Path, signatures: Mapping[str, Any]) -> None:
    requested = []
    for name, inputs in warmup.read(folder / "assets.extra" / warmup.NAME):
        statuses = signatures[name](**inputs)["status"].numpy()
        _check_equal(statuses.tolist(), [preprocess.READ] * len(statuses))
        requested.append(name)
    _check_equal(sorted(set(requested)), sorted(_expected(signatures)))


def _line_height(signatures: Mapping[str, Any]) -> int:
    return signatures["lines"].structured_input_signature[1]["pixels"].shape[1]


def _draw_lines() -> list[bytes]:
    """Returns image files of lines of a few digits each; the one too narrow for a digit has a stroke."""
    return [draw_line(width, seed) for seed, width in enumerate(_WIDTHS)]


def draw_line(width: int, seed: int) -> bytes:
    """Returns an image file of a line of digits, this many pixels wide; one too narrow for a digit has a stroke."""
    rng = np.random.default_rng(seed)
    if width < SCALED_HEIGHT:
        file = io.BytesIO()
        line = Image.new("L", (width, SCALED_HEIGHT), 255)
        line.paste(0, (0, 8, width, 24))
        line.save(file, "png")
        return file.getvalue()
    text = "".join(map(str, rng.integers(0, 10, width // SCALED_HEIGHT)))
    return drawing.draw(text, fonts.open_fonts(())[0], SCALED_HEIGHT, width, styles.STYLES["screen"], rng).encoded()


def _check_equal(actual: object, expected: object) -> None:
    if actual != expected:
        raise ValueError(f"{actual!r} instead of {expected!r}")


def _check_same_predictions(actual: Mapping[str, tf.Tensor], expected: Mapping[str, tf.Tensor]) -> None:
    for name in ("text", "status"):
        _check_equal(actual[name].numpy().tolist(), expected[name].numpy().tolist())
    _check_same_confidences(actual, expected)


def _check_same_confidences(actual: Mapping[str, tf.Tensor], expected: Mapping[str, tf.Tensor]) -> None:
    difference = np.abs(actual["confidence"].numpy() - expected["confidence"].numpy()).max()
    if not difference <= _TOLERANCE:  # NaN fails too
        raise ValueError(f"confidences differ by {difference:.4f}")
