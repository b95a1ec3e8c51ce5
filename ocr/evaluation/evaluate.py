"""Reads every line of a split once, with a training's best weights or an export, and measures the result."""

import contextlib
import functools
import itertools
import pathlib
from collections.abc import Collection, Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from ocr import ctc
from ocr.charset import Charset
from ocr.data import dataset, pipeline, verify
from ocr.evaluation import report
from ocr.evaluation.metrics import LineResult, measures
from ocr.images import preprocess
from ocr.images.header import SCALED_HEIGHT
from ocr.model.recogniser import Recogniser
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from tfrecords import files
from tfrecords.errors import IntegrityError

_INPUTS = ("pixels", "width", "labels", "label_lengths")


class Evaluator:
    """Reads the lines of a split with the current weights of a network.

    Args:
      recogniser: its variables may change between calls.
    """

    def __init__(self, recogniser: Recogniser):
        signature = [
            tf.TensorSpec([None, recogniser.frame.height, None], tf.uint8),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ]

        @tf.function(input_signature=signature, autograph=False)  # one graph for batches of any shape
        def read(
            pixels: tf.Tensor, width: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            logits, frames = recogniser.logits(pixels, width)
            # A character that is not in the alphabet has class -1: such a line has no loss.
            known = tf.reduce_all(labels >= 0, axis=1)
            nats = ctc.loss(logits, frames, tf.maximum(labels, 0), label_lengths)
            return *recogniser.texts(logits, frames), tf.where(known, nats, float("inf"))

        self._read, self._line_height = read, recogniser.frame.height

    def __call__(self, batches: Iterable[dict[str, tf.Tensor]]) -> tuple[list[LineResult], float | None]:
        """Reads lines.

        Args:
          batches: as `pipeline.evaluation_batches` gives them.

        Returns:
          The result of each line, and the mean CTC loss in nats over the lines that have one, or None if none has.

        Raises:
          IntegrityError: the loss is NaN, so the weights are unusable.
        """
        results: list[LineResult] = []
        nats = [np.zeros(0, np.float32)]
        for batch in batches:
            texts, confidences, loss = (value.numpy() for value in self._read(*(batch[name] for name in _INPUTS)))
            scaled = {**batch, "width": batch["width"] * SCALED_HEIGHT // self._line_height}
            lines = _line_results(scaled, [text.decode() for text in texts], confidences)
            results += [line._replace(log_probability=-float(nll)) for line, nll in zip(lines, loss, strict=True)]
            nats.append(loss)
        losses = np.concatenate(nats)
        losses = losses[~np.isposinf(losses)]
        if np.isnan(losses).any():
            raise IntegrityError("the network's outputs are not finite: its weights cannot be used")
        return results, float(losses.mean()) if losses.size else None


def evaluate(model: pathlib.Path, data: str, batch_size: int = 32, report_to: str = "") -> dict:
    """Measures a training's best weights, or an export, on a split.

    Args:
      model: workdir of a training, or an export.
      data: records, `DIR` or `DIR@split`.
      batch_size: lines read at a time.
      report_to: folder to create for a report; empty for no report.

    Returns:
      The metrics of `metrics.measures`, and for a workdir `eval_loss`.

    Raises:
      InputError: there is no model or no data, or the report's folder already exists.
      IntegrityError: the data, the checkpoint or the export is damaged.
    """
    split = dataset.find(data, "eval")
    with contextlib.ExitStack() as stack:
        stack.enter_context(verify.report_damage(split))
        folder = stack.enter_context(files.atomic_directory(pathlib.Path(report_to))) if report_to else None
        if Workdir(model).has_training:
            trained = Workdir(model).load()
            results, measured = evaluate_network(trained.model, trained.charset, split, batch_size)
        else:
            results = _read_export(model, split, batch_size)
            measured = measures(results)
        if folder:
            report.write(folder, f"{model} on {data}", results, measured, functools.partial(lines_as_png, split, batch_size))
        return measured


def evaluate_network(
    model: keras.Model, charset: Charset, split: dataset.Split, batch_size: int = 32
) -> tuple[list[LineResult], dict]:
    """Returns the result of each line of a split, and the metrics of `metrics.measures` with `eval_loss`.

    Raises:
      IntegrityError: the data is damaged, or the network's outputs are not finite.
    """
    recogniser = Recogniser(model, charset)
    results, loss = Evaluator(recogniser)(pipeline.evaluation_batches(split, charset, batch_size, recogniser.frame.height))
    return results, measures(results) | {"eval_loss": loss}


def _read_export(export: pathlib.Path, split: dataset.Split, batch_size: int) -> list[LineResult]:
    read = saved_model.load(export)
    return [line for batch in pipeline.image_files(split, batch_size) for line in read_files(read, split, batch)]


def read_files(read: saved_model.Export, split: dataset.Split, batch: dict[str, tf.Tensor]) -> list[LineResult]:
    """Reads a batch of `pipeline.image_files` with an export.

    Raises:
      IntegrityError: an image is damaged.
    """
    texts, confidences, statuses = read(batch["encoded"].numpy().tolist())
    damaged = np.isin(statuses, (preprocess.UNDECODABLE, preprocess.TOO_LARGE))
    if damaged.any():
        name = batch["filename"].numpy()[damaged.argmax()].decode("utf-8", "replace")
        raise IntegrityError(f"{split.folder}: the image of {name} cannot be decoded")
    return _line_results(batch, texts, confidences)


def lines_as_png(split: dataset.Split, batch_size: int, numbers: Collection[int]) -> dict[int, bytes]:
    """Returns lines of a split as the network gets them but 32 pixels high, as PNG files by their numbers from 0."""
    batches = (batch["encoded"].numpy() for batch in pipeline.image_files(split, batch_size))
    encoded = {number: file for number, file in enumerate(itertools.chain.from_iterable(batches)) if number in numbers}
    return {number: _line_as_png(file).numpy() for number, file in encoded.items()}


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _line_as_png(encoded: tf.Tensor) -> tf.Tensor:
    pixels, *_ = preprocess.read_rows(encoded[tf.newaxis], SCALED_HEIGHT)
    return tf.io.encode_png(pixels[0][:, :, tf.newaxis])


def _line_results(batch: dict[str, tf.Tensor], texts: Sequence[str], confidences: np.ndarray) -> list[LineResult]:
    names, truths, widths, fonts = (batch[key].numpy() for key in ("filename", "text", "width", "font"))
    return [
        LineResult(name.decode("utf-8", "replace"), truth.decode(), text, float(confidence), int(width), font.decode())
        for name, truth, text, confidence, width, font in zip(names, truths, texts, confidences, widths, fonts, strict=True)
    ]
