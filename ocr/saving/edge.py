"""Writes an export's network for ONNX Runtime or LiteRT, and checks that it reads what the export reads."""

import contextlib
import importlib.util
import itertools
import logging
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from rapidfuzz.distance import Levenshtein

from ocr.charset import Charset
from ocr.data import dataset, pipeline, verify
from ocr.images import preprocess
from ocr.images.network_input import FrameSize
from ocr.model import networks, portable
from ocr.options import join_paths
from ocr.saving import check_export, warm_start, web_page
from ocr.serving import edge, saved_model
from tfrecords import errors, files
from tfrecords.errors import InputError, IntegrityError

WEIGHTS = ("float32", "float16", "int8")
_OPSET = 18
_MAX_LINES, _DRAWN_LINES, _BATCH_SIZE = 2_000, 200, 32
_CALIBRATION_LINES = 100
_MIN_SAME = 0.999  # share of lines whose text is the export's
_MAX_CER = 0.001  # by which int8 may be worse
_DESCRIBED = ("network", "versions", "written")  # what a model's description has of the export's
_HALVED = 1_024  # values of a weight, from which on half precision saves space


class _Line(NamedTuple):
    """A line, uint8[H, W], its text if that is known, and what the export reads."""

    pixels: np.ndarray
    truth: str
    text: str
    confidence: float


def convert(
    source: pathlib.Path, folder: pathlib.Path, format: str, weights: str, data: str = "", onnxruntime_web: str = ""
) -> dict[str, Any]:
    """Writes a folder with a model, its alphabet and what else is needed to run it.

    Args:
      source: an export, or `saved_model.PRETRAINED`.
      folder: to create.
      format: a key of `FORMATS`.
      weights: one of `WEIGHTS`, how the file stores them. With int8, products are computed with integers too.
      data: records, `DIR` or `DIR@split`, several separated by commas, of which up to 2,000 lines are read for comparison;
        needed for int8. Without any, lines of digits are drawn.
      onnxruntime_web: folder of that npm package, for the format `web`.

    Returns:
      `model`, the file written; `bytes`, its size; `lines`, how many were read; `same_text`, the share with the text that the
      export reads; `confidence_difference`, the largest; and for int8 `cer` and `saved_model_cer`.

    Raises:
      InputError: there is no such export or data, the folder is there already, the export's decoder is not `greedy`, or a
        package is missing.
      IntegrityError: the export is damaged, or the model does not read what it reads.
    """
    check_installed(format)
    files.check_free(folder)
    if format == "web":
        web_page.check_package(onnxruntime_web)
    if weights == "int8" and not data:
        raise InputError("--weights=int8: give records with --data, to calibrate it on and to measure what it costs")
    converter = Converter(source, data)
    with files.atomic_directory(folder) as staging:
        path = converter.write(staging, format, weights)
        measured = _compare(path, converter.lines, weights)
        if format == "web":
            web_page.write(staging, onnxruntime_web)
        return {"model": str(folder / path.name), "bytes": path.stat().st_size, **measured}


class Converter:
    """Writes an export for other runtimes.

    Args:
      source: an export, or `saved_model.PRETRAINED`.
      data: as for `convert`.

    Attributes:
      version: the export.
      frame: of its network.
      lines: what it reads, up to 2,000 lines.

    Raises:
      InputError, IntegrityError: as `convert`.
    """

    def __init__(self, source: pathlib.Path, data: str):
        self.version = saved_model.newest_version(source)
        self._model, self._charset = warm_start.load_export(self.version)
        self._about = files.read_json(self.version / "assets.extra" / "model.json", "decoder", *_DESCRIBED)
        if (decoder := self._about["decoder"]) != "greedy":
            raise InputError(f"{self.version}: decodes by {decoder}; only exports with --decoder=greedy can be converted")
        self.frame = networks.network(self._model.name).frame
        self.lines = list(itertools.islice(_read_by_export(self.version, self._charset, self.frame, data), _MAX_LINES))

    def write(self, folder: pathlib.Path, format: str, weights: str) -> pathlib.Path:
        """Writes a model, its alphabet and its description into a folder, unchecked; returns the model's path.

        Raises:
          InputError: the network cannot be converted.
        """
        suffix, write = FORMATS[format]
        path = folder / f"model{suffix}"
        try:
            with _no_warnings():
                write(portable.reader(self._model), path, weights, _spread(self.lines), self.frame)
        except Exception as error:  # the converters' exceptions have no common class
            cause = errors.first_line(error)
            raise InputError(
                f"{self.version}: its network {self._model.name} cannot be converted to {format} ({cause})"
            ) from error
        (folder / edge.CHARSET).write_text(self._charset.file_text(), "utf-8", newline="\n")
        described = {
            "model": edge.fingerprint(path),
            "alphabet": self._charset.fingerprint,
            "line_height": self.frame.height,
            "frame_width": self.frame.width,
            "version": self.version.name,
            "weights": weights,
        }
        files.write_json(folder / edge.ABOUT, described | {name: self._about[name] for name in _DESCRIBED})
        return path


def check_installed(format: str) -> None:
    """Checks that the packages that write a format are installed.

    Raises:
      InputError: one is not.
    """
    needed = ("ai_edge_litert",) if format == "litert" else ("tf2onnx", "onnx", "onnxruntime")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise InputError(f"--format={format}: needs {', '.join(missing)}; pip install 'line-ocr[convert]' installs all")


def _read_by_export(version: pathlib.Path, charset: Charset, frame: FrameSize, data: str) -> Iterator[_Line]:
    """Reads lines of the data, or some that are drawn, with the export."""
    export = saved_model.load(version)
    for batch in _batches(charset, frame, data):
        outputs = export.signatures["lines"](pixels=batch["pixels"], width=batch["width"])
        rows = zip(*(batch[name].numpy() for name in ("pixels", "width", "text")), strict=True)
        read = zip(outputs["text"].numpy(), outputs["confidence"].numpy(), outputs["status"].numpy(), strict=True)
        for (pixels, width, truth), (text, confidence, status) in zip(rows, read, strict=True):
            if status == preprocess.READ:  # others never get to the network
                yield _Line(pixels[:, :width], truth.decode(), text.decode(), float(confidence))


def _batches(charset: Charset, frame: FrameSize, data: str) -> Iterator[dict[str, tf.Tensor]]:
    if data:
        for split in [dataset.find(name, "eval") for name in join_paths(data.split(","))]:
            with verify.report_damage(split):
                yield from pipeline.evaluation_batches(split, charset, _BATCH_SIZE, frame.height)
        return
    widths = np.random.default_rng(0).integers(1, 600, _DRAWN_LINES)
    drawn = [check_export.draw_line(int(width), seed) for seed, width in enumerate(widths)]
    for start in range(0, len(drawn), _BATCH_SIZE):
        pixels, width, _, _ = preprocess.read_rows(tf.constant(drawn[start : start + _BATCH_SIZE]), frame.height)
        yield {"pixels": pixels, "width": width, "text": tf.fill(tf.shape(width), "")}


def _spread(lines: Sequence[_Line]) -> list[np.ndarray]:
    """Returns the pixels of lines from everywhere in the data."""
    return [line.pixels for line in lines[:: max(len(lines) // _CALIBRATION_LINES, 1)]]


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Holds back what converters log about their own work."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _write_onnx(read: Any, path: pathlib.Path, weights: str, lines: list[np.ndarray], frame: FrameSize) -> None:
    import onnx
    import tf2onnx

    proto, _ = tf2onnx.convert.from_function(read, input_signature=read.input_signature, opset=_OPSET)
    if weights == "int8":
        proto = _quantized(proto, lines, frame)
    elif weights == "float16":
        _store_halves(proto.graph)
    onnx.save(proto, path)


def _store_halves(graph: Any) -> None:
    """Stores large weights in half precision; they are cast to single precision when the model is loaded."""
    from onnx import TensorProto, helper, numpy_helper

    for number, weight in enumerate(graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size >= _HALVED:
            graph.node.insert(0, helper.make_node("Cast", [f"{weight.name}_half"], [weight.name], to=TensorProto.FLOAT))
            graph.initializer[number].CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{weight.name}_half"))


def _quantized(proto: Any, lines: list[np.ndarray], frame: FrameSize) -> Any:
    """Quantizes products: convolutions with scales from the lines, products of matrices with each line's own.

    Weights have seven bits: with eight, sums overflow on processors without instructions for neural networks.
    """
    import onnx
    from onnxruntime import quantization

    class Lines(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._lines = iter(lines)

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self._lines, None)
            return None if pixels is None else dict(zip(("pixels", "width"), edge.inputs(pixels, frame.width), strict=True))

    with tempfile.TemporaryDirectory() as temporary:
        whole, half, done = (pathlib.Path(temporary) / name for name in ("float.onnx", "half.onnx", "int8.onnx"))
        onnx.save(proto, whole)
        common = {"per_channel": True, "reduce_range": True, "weight_type": quantization.QuantType.QInt8}
        quantization.quantize_dynamic(whole, half, op_types_to_quantize=["MatMul"], **common)
        quantization.quantize_static(half, done, Lines(), op_types_to_quantize=["Conv"], **common)
        return onnx.load(done)


def _write_litert(read: Any, path: pathlib.Path, weights: str, _lines: list[np.ndarray], _frame: FrameSize) -> None:
    """Writes a LiteRT model of built-in operations.

    With int8, weights are quantized, and features by each line's own range while it is read. A quantization of all operations
    would round the logits and the decoder's probabilities too, which then reads nothing.
    """
    module = tf.Module()
    module.read = read
    converter = tf.lite.TFLiteConverter.from_concrete_functions([read.get_concrete_function()], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())


def _compare(path: pathlib.Path, lines: Sequence[_Line], weights: str) -> dict[str, Any]:
    """Reads the lines with a model that has been written.

    Raises:
      IntegrityError: it does not read what the export reads, or there are no lines.
    """
    if not lines:
        raise IntegrityError(f"{path.name}: not checked, since the data have no line that can be read")
    model = edge.load(path)
    read = [model.read(line.pixels) for line in lines]
    same = sum(text == line.text for (text, _), line in zip(read, lines, strict=True)) / len(lines)
    difference = max(abs(confidence - line.confidence) for (_, confidence), line in zip(read, lines, strict=True))
    measured = {"lines": len(lines), "same_text": same, "confidence_difference": round(difference, 6)}
    if weights != "int8":
        if same < _MIN_SAME:
            raise IntegrityError(f"{path.name}: {same:.2%} of {len(lines)} lines have the text that the export reads")
        return measured
    characters = sum(len(line.truth) for line in lines)
    wrong = [sum(Levenshtein.distance(text, line.truth) for text, line in zip(texts, lines, strict=True))
              for texts in ([text for text, _ in read], [line.text for line in lines])]  # fmt: skip
    cer, reference = (count / max(characters, 1) for count in wrong)
    if cer > reference + _MAX_CER:
        raise IntegrityError(f"{path.name}: CER {cer:.2%}, of the export {reference:.2%}; use --weights=float16")
    return measured | {"cer": round(cer, 6), "saved_model_cer": round(reference, 6)}


FORMATS: dict[str, tuple[str, Callable[..., None]]] = {
    "onnx": (".onnx", _write_onnx),
    "litert": (".tflite", _write_litert),
    "web": (".onnx", _write_onnx),
}
