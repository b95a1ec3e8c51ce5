"""What was read of lines, and how well that was: every line counted once."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ocr.evaluation import calibration

_RESAMPLES = 1000  # for the intervals


class Reading(NamedTuple):
    """What was read of one line.

    Attributes:
      filename: of the line.
      truth: its text.
      text: what was read.
      confidence: from 0 to 1.
      width: scaled, in pixels.
      font: that it was drawn with, or nothing where that is not known.
    """

    filename: str
    truth: str
    text: str
    confidence: float
    width: int = 0
    font: str = ""


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
      95% bootstrap `..._interval`; `cer_nfkc`, with NFKC applied on both sides and white space removed; and
      `calibration_error`, of the confidences: see `calibration.error`.
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
        "calibration_error": round(calibration.error(calibration.bins([r.confidence for r in readings], wrong == 0)), 6),
    }


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def _ratio(edited: int, characters: int) -> float:
    return round(float(edited) / max(float(characters), 1.0), 6)


def _interval(values: list[float]) -> list[float]:
    return [round(float(bound), 6) for bound in np.quantile(values, [0.025, 0.975])]
