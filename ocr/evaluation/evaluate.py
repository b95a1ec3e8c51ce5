"""Reads every line of a split once, with a training's best weights or an export, and measures how well."""

import contextlib
import functools
import itertools
import pathlib
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import tensorflow as tf

from ocr import ctc
from ocr.data import dataset, pipeline
from ocr.evaluation import report
from ocr.evaluation.metrics import Reading, measures
from ocr.model.recogniser import Recogniser
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from tfrecords import files
from tfrecords.errors import IntegrityError


class Evaluator:
    """Reads the lines of a split with a network, as it is at the time.

    Args:
      recogniser: whose variables may change between calls.
    """

    def __init__(self, recogniser: Recogniser):
        @tf.function(reduce_retracing=True)
        def read(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            logits, frames = recogniser.logits(batch["pixels"], batch["width"])
            # A character that the alphabet lacks has class -1: such a line has no loss.
            known = tf.reduce_all(batch["labels"] >= 0, axis=1)
            nats = ctc.loss(logits, frames, tf.maximum(batch["labels"], 0), batch["label_lengths"])
            return *recogniser.texts(logits, frames), tf.where(known, nats, float("inf"))

        self._read = read

    def __call__(self, batches: Iterable[dict[str, tf.Tensor]]) -> tuple[list[Reading], float | None]:
        """Returns what was read of each line, and the mean CTC loss in nats over the lines that have one, or None.

        Raises:
          IntegrityError: the loss is no number, for the weights are none.
        """
        readings: list[Reading] = []
        nats: list[np.ndarray] = []
        for batch in batches:
            texts, confidences, loss = (value.numpy() for value in self._read(batch))
            readings += _readings(batch, [text.decode() for text in texts], confidences)
            nats.append(loss)
        losses = np.concatenate(nats) if nats else np.zeros(0)
        finite = losses[~np.isposinf(losses)]
        if np.isnan(finite).any():
            raise IntegrityError("the network's outputs are not finite: its weights are none that can be used")
        return readings, float(finite.mean()) if finite.size else None


def evaluate(model: pathlib.Path, data: str, batch_size: int = 32, report_to: str = "") -> dict:
    """Measures a training's best weights, or an export, on a split.

    Args:
      model: workdir of a training, or an export.
      data: records, `DIR` or `DIR@split`.
      batch_size: lines read at a time.
      report_to: new folder for a report, or nothing.

    Returns:
      As `reading.measures`; of a training `eval_loss` too.

    Raises:
      InputError: there is no model or no data, or the report is there already.
      IntegrityError: something is damaged.
    """
    lines = dataset.find(data, "eval")
    with contextlib.ExitStack() as held:
        held.enter_context(dataset.naming_damage(lines))
        folder = held.enter_context(files.atomic_directory(pathlib.Path(report_to))) if report_to else None
        if Workdir(model).begun:
            trained = Workdir(model).load()
            batches = pipeline.evaluation_batches(lines, trained.charset, batch_size)
            readings, loss = Evaluator(Recogniser(trained.model, trained.charset))(batches)
            measured = measures(readings) | {"eval_loss": loss}
        else:
            readings = _read_export(model, lines, batch_size)
            measured = measures(readings)
        if folder:
            report.write(folder, f"{model} on {data}", readings, measured, functools.partial(_images, lines, batch_size))
        return measured


def _read_export(export: pathlib.Path, lines: dataset.Split, batch_size: int) -> list[Reading]:
    read = saved_model.load(export)
    readings = []
    for batch in pipeline.image_files(lines, batch_size):
        texts, confidences, statuses = read(batch["encoded"].numpy().tolist())
        if statuses.any():
            name = batch["filename"].numpy()[statuses.argmax()].decode("utf-8", "replace")
            raise IntegrityError(f"{lines.folder}: the image of {name} cannot be decoded")
        readings += _readings(batch, texts, confidences)
    return readings


def _images(lines: dataset.Split, batch_size: int, wanted: Collection[int]) -> dict[int, bytes]:
    """Returns the image files of some lines, by their numbers."""
    found = {}
    for number, encoded in enumerate(
        itertools.chain.from_iterable(batch["encoded"].numpy() for batch in pipeline.image_files(lines, batch_size))
    ):
        if number in wanted:
            found[number] = encoded
    return found


def _readings(batch: dict[str, tf.Tensor], texts: Sequence[str], confidences: np.ndarray) -> list[Reading]:
    names, truths, widths, fonts = (batch[key].numpy() for key in ("filename", "text", "width", "font"))
    return [
        Reading(name.decode("utf-8", "replace"), truth.decode(), text, float(confidence), int(width), font.decode())
        for name, truth, text, confidence, width, font in zip(names, truths, texts, confidences, widths, fonts, strict=True)
    ]
