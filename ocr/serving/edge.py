"""Reads image files with a model for ONNX Runtime or LiteRT, as `ocr_export` writes them. Importing it loads no TensorFlow."""

import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.images import preprocess_numpy
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError, first_line

CHARSET, ABOUT = "charset.txt", "model.json"  # beside the model
_Run = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]  # the function of `model.portable.reader`


class EdgeModel:
    """A loaded model.

    Args:
      run: from pixels and width to the outputs by name, as `model.portable.reader` describes.
      charset: its alphabet.
      line_height: of its input, in pixels.
      frame_width: in pixels, which the width of its input is a multiple of.
    """

    def __init__(self, run: _Run, charset: Charset, line_height: int, frame_width: int):
        self._run, self._charset = run, charset
        self._line_height, self._frame_width = line_height, frame_width

    def __call__(self, encoded: list[bytes]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns the texts of B encoded image files, their confidences float32[B] and statuses int32[B]."""
        lines = [preprocess_numpy.read(file, self._line_height) for file in encoded]
        read = [self.read(pixels) if status == preprocess_numpy.READ else ("", 0.0) for pixels, status in lines]
        confidences = np.array([confidence for _, confidence in read], np.float32)
        return [text for text, _ in read], confidences, np.array([status for _, status in lines], np.int32)

    def read(self, pixels: np.ndarray) -> tuple[str, float]:
        """Returns the text of a line, uint8[H, W], and its confidence."""
        outputs = self._run(*inputs(pixels, self._frame_width))
        return self._charset.decode(outputs["ids"][0]), float(outputs["confidence"][0])


def inputs(pixels: np.ndarray, frame_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a model's inputs for a line, uint8[H, W]: pixels uint8[1, H, W'] and width int32[1]."""
    width = pixels.shape[1]
    return np.pad(pixels, ((0, 0), (0, -width % frame_width)))[np.newaxis], np.array([width], np.int32)


def load(path: pathlib.Path, threads: int = 0) -> EdgeModel:
    """Loads a model, with the alphabet that lies beside it.

    Args:
      path: a file whose name ends in a key of `RUNTIMES`.
      threads: to compute with; 0: as many as its runtime likes.

    Raises:
      InputError: there is no such file, or its runtime is not installed.
      IntegrityError: it is damaged, or what lies beside it is, or belongs to another model.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; ocr_export --format=onnx or --format=litert writes one")
    try:
        about = files.read_json(path.with_name(ABOUT))
        charset = charsets.load_charset(path.with_name(CHARSET), about["alphabet"])
        if about["model"] != fingerprint(path):
            raise IntegrityError(f"{path}: damaged, or not the model that {path.with_name(ABOUT)} describes")
        model = EdgeModel(RUNTIMES[path.suffix](path, threads), charset, about["line_height"], about["frame_width"])
        model.read(np.zeros((about["line_height"], about["frame_width"]), np.uint8))
    except ImportError as error:
        raise InputError(f"{path}: needs {error.name}; pip install 'line-ocr[edge]' installs it") from error
    except (InputError, IntegrityError, OSError):
        raise
    except Exception as error:  # runtimes' exceptions have no common class
        raise IntegrityError(f"{path.with_name(ABOUT)}: not what ocr_export writes beside a model") from error
    return model


def fingerprint(path: pathlib.Path) -> str:
    """Returns the SHA-256 hash of a model's file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_onnx(path: pathlib.Path, threads: int) -> _Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise _damaged(path, error) from error
    names = [output.name for output in session.get_outputs()]

    def run(pixels: np.ndarray, width: np.ndarray) -> dict[str, Any]:
        return dict(zip(names, session.run(None, {"pixels": pixels, "width": width}), strict=True))

    return run


def _open_litert(path: pathlib.Path, threads: int) -> _Run:
    from ai_edge_litert.interpreter import Interpreter

    try:
        runner = Interpreter(str(path), num_threads=threads or None).get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return lambda pixels, width: runner(pixels=pixels, width=width)


def _damaged(path: pathlib.Path, error: Exception) -> IntegrityError:
    return IntegrityError(f"{path}: damaged, cannot be loaded ({first_line(error)})")


RUNTIMES: dict[str, Callable[[pathlib.Path, int], _Run]] = {".onnx": _open_onnx, ".tflite": _open_litert}
