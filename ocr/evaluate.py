"""How well lines are read: every line counted once."""

import pathlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ocr import ctc, inputs, predict, sets
from ocr.recogniser import Recogniser
from ocr.workdir import Workdir
from tfrecords.errors import IntegrityError

_RESAMPLES = 1000  # for the intervals


class Reading(NamedTuple):
    """What was read of one line."""

    filename: str
    truth: str
    text: str
    confidence: float


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
            text, confidence, loss = (value.numpy() for value in self._read(batch))
            rows = zip(batch["filename"].numpy(), batch["text"].numpy(), text, confidence, strict=True)
            readings += [Reading(n.decode("utf-8", "replace"), t.decode(), r.decode(), float(c)) for n, t, r, c in rows]
            nats.append(loss)
        losses = np.concatenate(nats) if nats else np.zeros(0)
        finite = losses[~np.isposinf(losses)]
        if np.isnan(finite).any():
            raise IntegrityError("the network's outputs are not finite: its weights are none that can be used")
        return readings, float(finite.mean()) if finite.size else None


def edits(truths: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Counts the insertions, deletions and substitutions of characters that make each text its truth: int64[lines]."""

    def sparse(lines: Sequence[str]) -> tf.SparseTensor:
        points = [[ord(c) for c in line] for line in lines]
        return tf.ragged.constant(points, tf.int32, ragged_rank=1, row_splits_dtype=tf.int64).to_sparse()

    def shaped(lines: tf.SparseTensor, columns: tf.Tensor) -> tf.SparseTensor:
        return tf.SparseTensor(lines.indices, lines.values, [len(truths), columns])

    if not truths:
        return np.zeros(0, np.int64)
    truth, text = sparse(truths), sparse(texts)
    columns = tf.maximum(truth.dense_shape[1], text.dense_shape[1])
    distances = tf.edit_distance(shaped(text, columns), shaped(truth, columns), normalize=False)
    return distances.numpy().astype(np.int64)


def measures(readings: Sequence[Reading]) -> dict:
    """Sums up readings.

    Returns:
      `lines`; `cer`, edits summed over characters summed; `line_accuracy`, the share of lines without an edit; of both the
      95% bootstrap `..._interval`; `cer_nfkc`, with NFKC applied on both sides and white space removed.
    """
    truths, texts = [r.truth for r in readings], [r.text for r in readings]
    wrong, lengths = edits(truths, texts), np.array([len(truth) for truth in truths], np.int64)
    plain_truths, plain_texts = [_plain(t) for t in truths], [_plain(t) for t in texts]
    plain_length = sum(map(len, plain_truths))
    cers, accuracies = [], []
    rng = np.random.default_rng(0)
    for _ in range(_RESAMPLES):
        drawn = rng.integers(len(readings), size=len(readings))
        cers.append(_ratio(wrong[drawn].sum(), lengths[drawn].sum()))
        accuracies.append(float((wrong[drawn] == 0).mean()))
    return {
        "lines": len(readings),
        "cer": _ratio(wrong.sum(), lengths.sum()),
        "cer_interval": _interval(cers),
        "line_accuracy": float((wrong == 0).mean()),
        "line_accuracy_interval": _interval(accuracies),
        "cer_nfkc": _ratio(edits(plain_truths, plain_texts).sum(), plain_length),
    }


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def _ratio(edited: int, characters: int) -> float:
    return round(float(edited) / max(float(characters), 1.0), 6)


def _interval(values: list[float]) -> list[float]:
    return [round(float(bound), 6) for bound in np.quantile(values, [0.025, 0.975])]


def evaluate(model: pathlib.Path, data: str, batch_size: int = 32) -> dict:
    """Measures a training's best weights, or an export, on a split.

    Args:
      model: workdir of a training, or an export.
      data: records, `DIR` or `DIR@split`.
      batch_size: lines read at a time.

    Returns:
      As `measures`; of a training `eval_loss` too.

    Raises:
      InputError: there is no model or no data.
      IntegrityError: something is damaged.
    """
    lines = sets.find(data, "eval")
    with sets.naming_damage(lines):
        if not Workdir(model).begun:
            return measures(_read_export(model, lines, batch_size))
        trained = Workdir(model).load()
        batches = inputs.evaluation_batches(lines, trained.charset, batch_size)
        readings, loss = Evaluator(Recogniser(trained.model, trained.charset))(batches)
        return measures(readings) | {"eval_loss": loss}


def _read_export(export: pathlib.Path, lines: sets.Lines, batch_size: int) -> list[Reading]:
    read = predict.load(export)
    readings = []
    for encoded, names, truths in inputs.image_files(lines, batch_size):
        texts, confidences, statuses = read(encoded.numpy().tolist())
        if statuses.any():
            name = names.numpy()[statuses.argmax()].decode("utf-8", "replace")
            raise IntegrityError(f"{lines.folder}: the image of {name} cannot be decoded")
        rows = zip(names.numpy(), truths.numpy(), texts, confidences, strict=True)
        readings += [Reading(n.decode("utf-8", "replace"), t.decode(), text, float(c)) for n, t, text, c in rows]
    return readings
