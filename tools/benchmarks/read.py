"""Times and evaluates reading, with the shipped model and with the usual alternatives."""

import concurrent.futures
import contextlib
import importlib.util
import io
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from ocr.data import dataset, pipeline
from ocr.evaluation import metrics
from ocr.evaluation.metrics import LineResult
from ocr.serving import saved_model
from ocr.synthesis import drawing, fonts, styles
from tools.benchmarks.timing import Comparison, compare

_LINES = 32  # in a full batch

ReadFunction = Callable[[list[bytes]], Sequence[str]]


def bench_read() -> Comparison:
    """Times the shipped model, and RapidOCR's recogniser if it is installed, on lines of 32x280 pixels.

    Batches have 1 or 32 lines, on one or two threads. If its extra is installed, the server is timed too, with many clients.
    """
    results: Comparison = {}
    for threads in (1, 2):
        # TensorFlow's number of threads must be set before it is used.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as process:
            results |= process.submit(_timed, threads).result()
    if importlib.util.find_spec("tensorflow_serving") and importlib.util.find_spec("aiohttp"):
        from tools.benchmarks import serve

        results |= serve.bench_serve(_lines())
    return results


def _lines() -> list[bytes]:
    """Renders lines of 32x280 pixels."""
    font, rng = fonts.Font(""), np.random.default_rng(0)
    return [drawing.draw("0123456789", font, 32, 280, styles.STYLES["clean"], rng).encoded() for _ in range(_LINES)]


def _timed(threads: int) -> Comparison:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    files = _lines()
    read = saved_model.load(saved_model.PRETRAINED)
    on_threads = f"{threads} thread{'s' * (threads > 1)}"
    others = {"RapidOCR": _rapid(threads)} if importlib.util.find_spec("rapidocr_onnxruntime") else {}
    results = {}
    for batch in (1, _LINES):

        def read_all(read: Callable[[list[bytes]], object], batch: int = batch) -> Callable[[], object]:
            return lambda: [read(files[start : start + batch]) for start in range(0, _LINES, batch)]

        alternatives = {f"read, {name}, batch {batch}, {on_threads}": read_all(other) for name, other in others.items()}
        no_work = {f"read, batch {batch}, {on_threads}": read_all(len)}
        for name, row in compare(read_all(read), alternatives or no_work, "reading").items():
            our_time = {"ours_ms": round(row["ours_ms"] / _LINES, 3)}
            their_time = {"theirs_ms": round(row["theirs_ms"] / _LINES, 3)}
            results[name] = our_time | (their_time | {k: row[k] for k in ("ratio", "lowest", "highest")} if others else {})
    return results


def accuracy(data: str, model: str) -> Comparison:
    """Evaluates the model and each alternative that is installed, on one thread where that can be set.

    Args:
      data: records, `DIR` or `DIR@split`.
      model: an export.

    Returns:
      For each of them `cer_nfkc`, `line_accuracy`, `lines` and `lines_per_second`.

    Raises:
      InputError: there is no model or no data.
    """
    lines = dataset.find(data, "eval")
    ours = saved_model.load(pathlib.Path(model))
    readers: dict[str, ReadFunction] = {"ours": lambda files: ours(files)[0]}
    if importlib.util.find_spec("rapidocr_onnxruntime"):
        readers["RapidOCR"] = _rapid(1)
    if shutil.which("tesseract"):
        readers["Tesseract"] = _tesseract
    results = {}
    for name, read in readers.items():
        line_results: list[LineResult] = []
        seconds = 0.0
        for batch in pipeline.image_files(lines, _LINES):
            begun = time.perf_counter()
            texts = read(batch["encoded"].numpy().tolist())
            seconds += time.perf_counter() - begun
            truths = (truth.decode() for truth in batch["text"].numpy())
            line_results += [LineResult("", truth, text, 0.0) for truth, text in zip(truths, texts, strict=True)]
        measured = metrics.measures(line_results)
        results[name] = {key: measured[key] for key in ("cer_nfkc", "line_accuracy", "lines")}
        results[name]["lines_per_second"] = round(len(line_results) / seconds, 1)
    return results


def _rapid(threads: int) -> ReadFunction:
    """Returns RapidOCR's recogniser, the mobile model of PP-OCRv4."""
    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1)

    def read(files: list[bytes]) -> list[str]:
        images = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))[:, :, ::-1] for file in files]
        return [text for text, _ in engine.text_rec(images)[0]]

    return read


def _tesseract(files: list[bytes]) -> list[str]:
    """Reads each file as one line with Tesseract's model for simplified Chinese."""
    with _as_files(files) as names:
        done = subprocess.run(
            ["tesseract", str(names), "stdout", "-l", "chi_sim", "--psm", "7"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )
    return [page.strip() for page in done.stdout.split("\f")[: len(files)]]


@contextlib.contextmanager
def _as_files(files: Sequence[bytes]) -> Iterator[pathlib.Path]:
    """Writes temporary image files; yields a file with their names."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"{number}.png" for number in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            Image.open(io.BytesIO(content)).convert("RGB").save(path)
        names = pathlib.Path(folder) / "names.txt"
        names.write_text("".join(f"{path}\n" for path in paths))
        yield names
