"""Compares an export with what `ocr_export --format` makes of it for other runtimes."""

import concurrent.futures
import itertools
import multiprocessing
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ocr.evaluation import metrics
from ocr.evaluation.metrics import LineResult
from ocr.images import preprocess
from ocr.progress import Progress
from ocr.saving import edge as saving
from ocr.serving import edge, saved_model

from .. import ocr_predict
from . import drawn
from .timing import Comparison

KINDS = tuple(itertools.product(("onnx", "litert"), saving.WEIGHTS))
_EXPORT = "SavedModel"


def measure(count: int, model: str, data: str, kinds: Sequence[tuple[str, str]] = KINDS, starts: int = 5) -> Comparison:
    """Converts an export, and reads image files one by one with it and with each of its conversions in turn.

    All of them compute with one thread, in one process.

    Args:
      count: the most lines to read.
      model: an export.
      data: records to read and to calibrate int8 on, as `ocr_export --data` takes them; lines from everywhere in them are read.
      kinds: the format and the weights of each conversion.
      starts: how often `ocr_predict` is started.

    Returns:
      By kind the number of `lines`; `bytes` on disk; `ms`, the median of the CPU time for a line in milliseconds; `cer`; and of
      conversions how many lines have the export's text: `same_text`, given the pixels that the export sees, and
      `same_text_files`, given the image files, since JPEG files are decoded slightly differently. Of those with float32 and of
      the export, as `ocr_predict, KIND`, also what it takes to read a single image in a process of its own: `wall_s` and
      `cpu_s`, medians in seconds.

    Raises:
      InputError: there is no such model, no data, or a package is missing; or the export cannot be converted.
      IntegrityError: something is damaged.
    """
    for format in dict(kinds):
        saving.check_installed(format)
    # TensorFlow's number of threads must be set before it is used.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as process:
        return process.submit(_measure, count, model, data, kinds, starts).result()


def _measure(count: int, model: str, data: str, kinds: Sequence[tuple[str, str]], starts: int) -> Comparison:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    lines = list(zip(*drawn.load(data, count), strict=True))
    with tempfile.TemporaryDirectory() as temporary:
        converter = saving.Converter(pathlib.Path(model), data)
        paths = {_EXPORT: converter.version}
        for format, weights in kinds:
            folder = pathlib.Path(temporary) / f"{format}-{weights}"
            folder.mkdir()
            paths[f"{format}, {weights}"] = converter.write(folder, format, weights)
        results = _read_in_turn(paths, lines, converter.frame.height)
        float32 = {name: path for name, path in paths.items() if name == _EXPORT or name.endswith("float32")}
        image = pathlib.Path(temporary) / "line"
        image.write_bytes(lines[0][0])
        return results | _start_in_turn(float32, image, starts)


def _read_in_turn(paths: dict[str, pathlib.Path], lines: Sequence[tuple[bytes, str]], line_height: int) -> Comparison:
    conversions = {name: edge.load(path, threads=1) for name, path in paths.items() if name != _EXPORT}
    export = saved_model.load(paths[_EXPORT])
    readers: dict[str, Callable[[list[bytes]], Any]] = {_EXPORT: export, **conversions}
    texts: dict[str, list[str]] = {name: [] for name in readers}
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    same = dict.fromkeys(conversions, 0)
    for read in readers.values():
        read([lines[0][0]])  # the first one takes longer
    with Progress("reading", len(lines), "lines") as bar:
        for done, (file, _) in enumerate(lines, 1):
            for name, read in readers.items():
                begun = time.process_time()
                (text,), *_ = read([file])
                seconds[name].append(time.process_time() - begun)
                texts[name].append(text)
            pixels, width, status, _ = (value.numpy() for value in preprocess.read_rows(tf.constant([file]), line_height))
            as_shown = export.signatures["lines"](pixels=pixels, width=width)["text"][0].numpy().decode()
            for name, conversion in conversions.items():
                text = conversion.read(pixels[0, :, : width[0]])[0] if status[0] == preprocess.READ else ""
                same[name] += text == as_shown
            bar.update(done)
    results: Comparison = {}
    for name, path in paths.items():
        read_lines = [LineResult("", truth, text, 0.0) for (_, truth), text in zip(lines, texts[name], strict=True)]
        results[name] = {
            "lines": len(lines),
            "bytes": sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file()),
            "ms": round(1e3 * statistics.median(seconds[name]), 2),
            "cer": round(metrics.measures(read_lines)["cer"], 6),
        }
        if name != _EXPORT:
            same_files = sum(text == other for text, other in zip(texts[name], texts[_EXPORT], strict=True))
            results[name] |= {"same_text": same[name], "same_text_files": same_files}
    return results


def _start_in_turn(paths: dict[str, pathlib.Path], image: pathlib.Path, starts: int) -> Comparison:
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    with Progress("starting ocr_predict", starts, "times each") as bar:
        for done in range(1, starts + 1):
            for name, path in paths.items():
                measured[name].append(_start(path, image))
            bar.update(done)
    return {
        f"ocr_predict, {name}": {
            "lines": 1,
            "wall_s": round(statistics.median(wall for wall, _ in pairs), 2),
            "cpu_s": round(statistics.median(cpu for _, cpu in pairs), 2),
        }
        for name, pairs in measured.items()
    }


def _start(path: pathlib.Path, image: pathlib.Path) -> tuple[float, float]:
    """Returns the seconds and the CPU seconds of reading an image in a process of its own."""

    def cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before, begun = cpu_s(), time.perf_counter()
    line = [sys.executable, "-m", ocr_predict.__name__, f"--saved_model={path}", str(image)]
    done = subprocess.run(line, capture_output=True)
    if done.returncode != 1:  # of an image without a line, whose start takes as long
        done.check_returncode()
    return time.perf_counter() - begun, cpu_s() - before
