"""Times and evaluates reading, with the shipped model and with the usual alternatives."""

import concurrent.futures
import importlib.util
import multiprocessing
import pathlib
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ocr.data import dataset, pipeline
from ocr.evaluation import metrics
from ocr.evaluation.metrics import LineResult
from ocr.serving import saved_model
from ocr.synthesis import drawing, fonts, styles

from . import peers
from .peers import ReadFunction
from .timing import Comparison, compare

_LINES = 32  # in a full batch


def bench_read() -> Comparison:
    """Times the shipped model, and the readers of others that are installed, on lines of 32x280 pixels.

    Batches have 1 or 32 lines, on one or two threads. If its extra is installed, the server is timed too, with many clients.
    """
    results: Comparison = {}
    for threads in (1, 2):
        # TensorFlow's number of threads must be set before it is used.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as process:
            results |= process.submit(_timed, threads).result()
    if importlib.util.find_spec("tensorflow_serving") and importlib.util.find_spec("aiohttp"):
        from . import serve

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
    others = peers.installed(threads)
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
      For each of them `cer_nfkc`, `line_accuracy_nfkc`, `cer`, `line_accuracy`, `lines` and `lines_per_second`: the first two
      after NFKC without white space, the next two as the texts are.

    Raises:
      InputError: there is no model or no data.
    """
    lines = dataset.find(data, "eval")
    ours = saved_model.load(pathlib.Path(model))
    readers: dict[str, ReadFunction] = {"ours": lambda files: ours(files)[0], **peers.installed(threads=1)}
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
        results[name] = {key: measured[key] for key in ("cer_nfkc", "line_accuracy_nfkc", "cer", "line_accuracy", "lines")}
        results[name]["lines_per_second"] = round(len(line_results) / seconds, 1)
    return results
