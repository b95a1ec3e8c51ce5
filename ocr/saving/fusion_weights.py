"""Chooses how a language model takes part in decoding, on lines that the training has not seen."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from rapidfuzz.distance import Levenshtein

from ocr.data import dataset, pipeline, verify
from ocr.model import fusion
from ocr.model.ngram import NGram
from ocr.model.recogniser import Recogniser
from ocr.options import join_paths
from tfrecords.errors import InputError

_SURE = 0.99  # lines that are read with at least this confidence are not decoded again
_MAX_LINES, _BATCH_SIZE = 1_000, 32
_WEIGHTS = (0.3, 0.5, 0.7, 1.0)
_BONUSES = (0.0, 0.5, 1.0, 1.5, 2.0)  # times the weight, in mean negative log-probabilities of a character
_THRESHOLDS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, _SURE)
_ENOUGH = 0.95  # share of the errors avoided at the best threshold, which a lower one has to avoid as well


class _Line(NamedTuple):
    """A line and what greedy decoding reads. Of unsure lines there are the arguments of `prefix_beam.search` too."""

    truth: str
    text: str
    confidence: float
    frames: tuple[np.ndarray, ...]


class _Found(NamedTuple):
    """The errors of lines with some weight and bonus."""

    weight: float
    bonus: float
    errors: np.ndarray


def choose(recogniser: Recogniser, ngram: NGram, data: str) -> tuple[fusion.Weights, dict[str, Any]]:
    """Chooses weight, bonus and threshold of a language model by the character errors of lines.

    Weight and bonus are those with the fewest errors in up to 1,000 lines whose confidence is below 0.99. The threshold is
    the lowest that avoids 95% of the errors that the best one avoids, since decoding again takes time; it is 0 if the
    language model avoids none.

    Args:
      recogniser: decodes greedily.
      ngram: the language model.
      data: records that neither the network nor the language model has seen, as `temperature.find_scale` takes them.

    Returns:
      The weights; and what they change: `lines`, how many were read, `lines_decoded_again`, `cer` and `greedy_cer`.

    Raises:
      InputError: there are no such records, they have no text, or their raw lines have another height.
      IntegrityError: a record is damaged.
    """
    lines = list(_read(recogniser, data))
    characters = sum(len(line.truth) for line in lines)
    if not characters:
        raise InputError(f"--calibrate={data}: has no text")
    greedy = np.array([Levenshtein.distance(line.text, line.truth) for line in lines])
    confidence = np.array([line.confidence for line in lines])
    unsure = np.flatnonzero(confidence < _SURE)
    chosen = unsure[:: max(-(-len(unsure) // _MAX_LINES), 1)]
    # Where only some lines are decoded again, each of them stands for several.
    factor = len(unsure) / max(len(chosen), 1)
    best = _Found(0.0, 0.0, greedy[chosen])
    if len(chosen):
        best = min(itertools.chain([best], _try(recogniser, ngram, [lines[i] for i in chosen])), key=lambda f: f.errors.sum())
    avoided = greedy[chosen] - best.errors
    by_threshold = [avoided[confidence[chosen] < threshold].sum() for threshold in _THRESHOLDS]
    enough = [total >= _ENOUGH * max(by_threshold) for total in by_threshold]
    threshold = _THRESHOLDS[enough.index(True)]
    errors = greedy.sum() - factor * by_threshold[enough.index(True)]
    measured = {
        "lines": len(lines),
        "lines_decoded_again": int((confidence < threshold).sum()),
        "greedy_cer": round(float(greedy.sum() / characters), 6),
        "cer": round(float(errors / characters), 6),
    }
    return fusion.Weights(best.weight, round(best.bonus, 3), threshold), measured


def _read(recogniser: Recogniser, data: str) -> Iterator[_Line]:
    """Reads all lines greedily."""
    height = recogniser.frame.height
    signature = [tf.TensorSpec([None, height, None], tf.uint8), tf.TensorSpec([None], tf.int32)]

    @tf.function(input_signature=signature, autograph=False)
    def read(pixels: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, ...]:
        logits, frames = recogniser.logits(pixels, width)
        return *recogniser.texts(logits, frames), *fusion.frames_with_text(logits, frames)

    for split in [dataset.find(name, "eval") for name in join_paths(data.split(","))]:
        with verify.report_damage(split):
            for batch in pipeline.evaluation_batches(split, recogniser.charset, _BATCH_SIZE, height):
                texts, confidences, *columns, counts = (value.numpy() for value in read(batch["pixels"], batch["width"]))
                for row, truth in enumerate(batch["text"].numpy()):
                    # Copies, so that they do not keep the frames of the whole batch.
                    own = (column[row, : counts[row]].copy() for column in columns)
                    frames = tuple(own) if confidences[row] < _SURE else ()
                    yield _Line(truth.decode(), texts[row].decode(), float(confidences[row]), frames)


def _try(recogniser: Recogniser, ngram: NGram, lines: list[_Line]) -> Iterator[_Found]:
    """Decodes lines with all weights and bonuses."""
    counts = np.array([len(line.frames[0]) for line in lines], np.int32)
    padded = [np.zeros((len(lines), counts.max(), *column.shape[1:]), column.dtype) for column in lines[0].frames]
    for row, line in enumerate(lines):
        for batch, column in zip(padded, line.frames, strict=True):
            batch[row, : counts[row]] = column
    values, symbols, blanks = map(tf.constant, padded)

    @tf.function(autograph=False)
    def texts(weight: tf.Tensor, bonus: tf.Tensor) -> tf.Tensor:
        language = fusion.Language(ngram, recogniser.charset, weight, bonus)
        added = fusion.search(values, symbols, blanks, tf.constant(counts), language)
        characters = recogniser.characters(tf.maximum(added, 0), tf.fill(tf.shape(added)[:1], tf.shape(added)[1]))
        return tf.strings.reduce_join(tf.where(added >= 0, characters, ""), axis=1)

    nll = _mean_nll(ngram, recogniser, lines)
    for weight, bonus in itertools.product(_WEIGHTS, _BONUSES):
        bonus *= weight * nll
        read = texts(tf.constant(weight), tf.constant(bonus, tf.float32)).numpy()
        yield _Found(weight, bonus, np.array([Levenshtein.distance(text.decode(), line.truth)
                                              for text, line in zip(read, lines, strict=True)]))  # fmt: skip


def _mean_nll(ngram: NGram, recogniser: Recogniser, lines: list[_Line]) -> float:
    """Returns the mean negative log-probability of a character of the texts."""
    language = fusion.Language(ngram, recogniser.charset, 1.0, 0.0)
    known = set(recogniser.charset.characters)
    ids = [recogniser.charset.encode("".join(c for c in line.truth if c in known)) for line in lines]
    ragged = tf.ragged.constant(ids, tf.int32, ragged_rank=1)
    total = tf.reduce_sum(language.score(ragged.to_tensor(), tf.cast(ragged.row_lengths(), tf.int32)))
    return -float(total) / max(sum(map(len, ids)), 1)
