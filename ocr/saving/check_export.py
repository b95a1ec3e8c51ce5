"""Whether an export does all that a server and its users rely on."""

import io
import pathlib
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from ocr import charset as charsets
from ocr.images import preprocess
from ocr.model import frozen
from ocr.serving import saved_model, warmup
from ocr.synthesis import drawing, fonts
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

_ANSWER = {"text": (tf.string, 1), "confidence": (tf.float32, 1), "status": (tf.int32, 1)}
_CHARACTERS = {
    "chars": (tf.string, 2),
    "char_confidence": (tf.float32, 2),
    "char_start": (tf.int32, 2),
    "char_end": (tf.int32, 2),
}
_FILES = {"image_bytes": (tf.string, 1)}
_SIGNATURES = {
    "serving_default": (_FILES, _ANSWER),
    "detailed": (_FILES, _ANSWER | _CHARACTERS),
    "lines": ({"pixels": (tf.uint8, 3), "width": (tf.int32, 1)}, _ANSWER),
}
_NOT_OF_THE_CORE = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaLaunch", "XlaLaunchV2"}
_CLOSE = 1e-3  # of confidences
_WIDTHS = (280, 60, 1, 613, 280, 1900)  # pixels, of lines that are read


def inspect(folder: pathlib.Path) -> list[str]:
    """Checks an export.

    Args:
      folder: of one version.

    Returns:
      What was checked, a few words each.

    Raises:
      InputError: it is none of ours.
      IntegrityError: it is damaged, or something is not as it should be.
    """
    export = saved_model.load(folder)
    signatures = export.signatures
    checks: dict[str, Callable[[], None]] = {
        "the signatures": lambda: _signatures(signatures),
        "alphabet and weights": lambda: _provenance(folder, signatures["serving_default"]),
        "core kernels alone": lambda: _kernels(signatures),
        "batches of none": lambda: _none(signatures),
        "bad images beside good ones": lambda: _bad_rows(signatures["serving_default"]),
        "lines in company": lambda: _company(signatures["serving_default"]),
        "characters one by one": lambda: _characters(signatures),
        "lines made ready": lambda: _ready(signatures),
        "requests to warm up with": lambda: _warm_up(folder, signatures),
    }
    for name, check in checks.items():
        try:
            check()
        except (AssertionError, OSError, ValueError, LookupError, TypeError, InputError, tf.errors.OpError) as error:
            raise IntegrityError(f"{folder}: {name}: {(str(error) or 'not as they should be').splitlines()[0]}") from error
    return list(checks)


def _signatures(signatures: Mapping[str, Any]) -> None:
    def told(tensors: Mapping[str, tf.TensorSpec]) -> dict[str, tuple[tf.DType, int]]:
        return {name: (tensor.dtype, len(tensor.shape)) for name, tensor in tensors.items()}

    found = {name: (told(s.structured_input_signature[1]), told(s.structured_outputs)) for name, s in signatures.items()}
    _same(found, _SIGNATURES)


def _provenance(folder: pathlib.Path, serve: Any) -> None:
    about = files.read_json(folder / "assets.extra" / "model.json")
    charset = charsets.load_charset(folder / "assets" / "charset.txt", about["alphabet"])
    _same(charset.num_classes, about["num_classes"])
    _same(frozen.digest(frozen.weights(serve)), about["weights"])


def _kernels(signatures: Mapping[str, Any]) -> None:
    for signature in signatures.values():
        graph = signature.graph.as_graph_def()
        used = {node.op for function in graph.library.function for node in function.node_def}
        _same(sorted(used & _NOT_OF_THE_CORE), [])


def _none(signatures: Mapping[str, Any]) -> None:
    for name, (inputs, outputs) in _SIGNATURES.items():
        given = {key: tf.zeros([0, preprocess.HEIGHT, 0][:rank], kind) for key, (kind, rank) in inputs.items()}
        _same({key: value.shape[0] for key, value in signatures[name](**given).items()}, dict.fromkeys(outputs, 0))


def _bad_rows(serve: Any) -> None:
    good = [_line(width, seed) for seed, width in enumerate(_WIDTHS)]
    alone = serve(image_bytes=tf.constant(good))
    _same(alone["status"].numpy().tolist(), [preprocess.READ] * len(good))
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    bomb = header + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0) + bytes(4)
    bad = [b"", b"no image", bytes(1000), good[0][:-40], header, bomb]
    statuses = [preprocess.UNDECODABLE] * 5 + [preprocess.TOO_LARGE]
    mixed = [file for pair in zip(good, bad, strict=True) for file in pair]
    found = serve(image_bytes=tf.constant(mixed))
    _same(found["status"].numpy()[1::2].tolist(), statuses)
    _same(found["text"].numpy()[1::2].tolist(), [b""] * len(bad))
    _same(found["confidence"].numpy()[1::2].tolist(), [0.0] * len(bad))
    _same_reading({name: value[::2] for name, value in found.items()}, alone)


def _company(serve: Any) -> None:
    lines = [_line(width, seed) for seed, width in enumerate(_WIDTHS)]
    together = serve(image_bytes=tf.constant(lines))
    for place, line in enumerate(lines):
        alone = serve(image_bytes=tf.constant([line]))
        _same_reading({name: value[place : place + 1] for name, value in together.items()}, alone)


def _characters(signatures: Mapping[str, Any]) -> None:
    lines = [_line(width, seed) for seed, width in enumerate(_WIDTHS)] + [b"no image"]
    given = [*_WIDTHS, 0]
    found = signatures["detailed"](image_bytes=tf.constant(lines))
    _same_reading(found, signatures["serving_default"](image_bytes=tf.constant(lines)))
    rows = (found[name].numpy() for name in ("text", "chars", "char_confidence", "char_start", "char_end"))
    for width, text, characters, confidences, starts, ends in zip(given, *rows, strict=True):
        length = len(text.decode())
        _same(
            (b"".join(characters), [*map(len, map(bytes.decode, characters))]),
            (text, [1] * length + [0] * (len(characters) - length)),
        )
        _same([value.any() for value in (confidences[length:], starts[length:], ends[length:])], [False] * 3)
        places = [0, *(place for pair in zip(starts[:length], ends[:length], strict=True) for place in pair), width]
        _same(places, sorted(places))


def _ready(signatures: Mapping[str, Any]) -> None:
    lines = tf.constant([_line(width, seed) for seed, width in enumerate(_WIDTHS)])
    pixels, width, _, _ = preprocess.read_rows(lines)
    found = signatures["lines"](pixels=pixels, width=width)
    _same_reading(found, signatures["serving_default"](image_bytes=lines))


def _warm_up(folder: pathlib.Path, signatures: Mapping[str, Any]) -> None:
    asked = []
    for name, inputs in warmup.read(folder / "assets.extra" / warmup.NAME):
        statuses = signatures[name](**inputs)["status"].numpy()
        _same(statuses.tolist(), [preprocess.READ] * len(statuses))
        asked.append(name)
    _same(sorted(set(asked)), sorted(_SIGNATURES))


def _line(width: int, seed: int) -> bytes:
    """Returns an image file of a line with a few digits, and grey ones where the width has room for none."""
    rng = np.random.default_rng(seed)
    if width < preprocess.HEIGHT:
        file = io.BytesIO()
        Image.new("L", (width, preprocess.HEIGHT), 128).save(file, "png")
        return file.getvalue()
    text = "".join(map(str, rng.integers(0, 10, width // preprocess.HEIGHT)))
    return drawing.draw(text, fonts.open_fonts(())[0], preprocess.HEIGHT, width, drawing.STYLES["screen"], rng).encoded()


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{found!r} in place of {expected!r}")


def _same_reading(found: Mapping[str, tf.Tensor], expected: Mapping[str, tf.Tensor]) -> None:
    for name in ("text", "status"):
        _same(found[name].numpy().tolist(), expected[name].numpy().tolist())
    apart = np.abs(found["confidence"].numpy() - expected["confidence"].numpy()).max()
    if not apart <= _CLOSE:
        raise ValueError(f"confidences lie {apart:.4f} apart")
