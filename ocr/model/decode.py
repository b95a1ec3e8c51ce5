"""From logits to texts, in the graph: the best class of each frame, or prefix beam search."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ocr import ctc
from ocr.model import prefix_beam

_TOGETHER = 16  # classes whose highest logit is looked at before each of them


class Decoded(NamedTuple):
    """Texts as classes.

    Attributes:
      ids: int32[B, N], padded with 0.
      lengths: int32[B].
      confidence: float32[B], the probability of each text, summed over all its alignments.
      char_confidence: float32[B, N], the highest probability of each character over its frames, padded with 0.
      first: int32[B, N], the first frame of each character in the best alignment, padded with 0.
      last: int32[B, N], its last frame in that alignment, padded with 0.
    """

    ids: tf.Tensor
    lengths: tf.Tensor
    confidence: tf.Tensor
    char_confidence: tf.Tensor
    first: tf.Tensor
    last: tf.Tensor


def greedy(logits: tf.Tensor, frames: tf.Tensor) -> Decoded:
    """Takes the best class of each frame, merges runs of equal classes, and drops blanks.

    Args:
      logits: float[B, T, C], the blank last; computed in float32. B may be 0, T is at least 1 and C at least 2.
      frames: int[B], at most T.

    Returns:
      The texts. One of a line with a NaN in its frames means nothing, its confidence is NaN; the other lines are as without it.
    """
    logits, frames = tf.cast(logits, tf.float32), tf.cast(frames, tf.int32)
    blank = tf.shape(logits)[2] - 1
    own = tf.sequence_mask(frames, tf.shape(logits)[1])
    path = tf.where(own, tf.cast(tf.argmax(logits, axis=2), tf.int32), blank)  # int64 is faster
    ids, lengths = _compacted(path, _begins(path) & (path != blank))
    return _decoded(logits, frames, ids, lengths, path)


def beam(logits: tf.Tensor, frames: tf.Tensor, width: int = 10, top: int = 20) -> Decoded:
    """Searches for the most probable text with a beam of prefixes: see `prefix_beam`.

    Args:
      logits: float[B, T, C], the blank last; computed in float32. B may be 0, T is at least 1 and C at least 2.
      frames: int[B], at most T.
      width: prefixes kept after each frame.
      top: classes considered in each frame, beside the blank.

    Returns:
      The texts. One of a line with a NaN in its frames means nothing, its confidence is NaN; the other lines are as without it.
    """
    logits, frames = tf.cast(logits, tf.float32), tf.cast(frames, tf.int32)
    added = prefix_beam.search(*candidates(logits, top), frames, width)
    return of_symbols(logits, frames, added)


def candidates(logits: tf.Tensor, top: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the values, symbols and blanks of `prefix_beam.search`: of each frame in [B, T, C] the `top` best symbols."""
    blank = tf.shape(logits)[2] - 1
    kept = tf.range(tf.minimum(top, blank))
    values, symbols = highest_logits(logits, tf.size(kept) + 1)
    # The blank is left out, or the last one if it is not among them.
    place = tf.where(
        tf.reduce_any(symbols == blank, axis=2), tf.argmax(symbols == blank, axis=2, output_type=tf.int32), tf.size(kept)
    )
    kept += tf.cast(kept >= place[:, :, tf.newaxis], tf.int32)
    # A constant subtracted from all logits of a frame changes no ranking.
    highest = values[:, :, :1]
    return tf.gather(values, kept, batch_dims=2) - highest, tf.gather(symbols, kept, batch_dims=2), logits[:, :, -1:] - highest


def highest_logits(logits: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what `tf.math.top_k` of [B, T, C] returns, in about half of the time for thousands of classes.

    The highest of them are among those that are together with the highest of some others.
    """
    batch, time, classes = tf.unstack(tf.shape(logits))
    parts = -(-classes // _TOGETHER)
    padding = [[0, 0], [0, 0], [0, parts * _TOGETHER - classes]]
    by_part = tf.reshape(tf.pad(logits, padding, constant_values=-float("inf")), [batch, time, parts, _TOGETHER])
    _, chosen = tf.math.top_k(tf.reduce_max(by_part, axis=3), tf.minimum(count, parts))
    chosen = tf.sort(chosen, axis=2)  # of equal ones, the first
    symbols = chosen[:, :, :, tf.newaxis] * _TOGETHER + tf.range(_TOGETHER)
    few = tf.reshape(tf.gather(by_part, chosen, batch_dims=2), [batch, time, -1])
    values, place = tf.math.top_k(few, count)
    return values, tf.gather(tf.reshape(symbols, [batch, time, -1]), place, batch_dims=2)


def of_symbols(logits: tf.Tensor, frames: tf.Tensor, added: tf.Tensor) -> Decoded:
    """Returns the texts of a search.

    Args:
      logits: float32[B, T, C].
      frames: int32[B].
      added: int32[B, S], classes, with -1 between them.
    """
    ids, lengths = _compacted(added, added >= 0)
    return _decoded(logits, frames, ids, lengths, ctc.align(logits, frames, ids, lengths))


def _decoded(logits: tf.Tensor, frames: tf.Tensor, ids: tf.Tensor, lengths: tf.Tensor, path: tf.Tensor) -> Decoded:
    """Computes confidences and positions of texts, given an alignment: the class of each frame, int32[B, T]."""
    batch, longest = tf.shape(ids)[0], tf.shape(ids)[1]
    symbol = path != tf.shape(logits)[2] - 1
    place = tf.cumsum(tf.cast(_begins(path) & symbol, tf.int32), axis=1) - 1
    found = place[:, -1] + 1  # the length of the text, unless a line with a NaN has no alignment
    segments = tf.where(symbol, tf.range(batch)[:, tf.newaxis] * longest + place, -1)  # negative segments are dropped

    def per_character(reduce: Callable, values: tf.Tensor) -> tf.Tensor:
        reduced = tf.reshape(reduce(values, segments, batch * longest), [batch, longest])
        return tf.where(tf.sequence_mask(found, longest), reduced, tf.zeros([], values.dtype))

    frame = tf.range(tf.shape(path)[1])[tf.newaxis] + tf.zeros([batch, 1], tf.int32)
    probability = tf.gather(tf.nn.softmax(logits), path, batch_dims=2)
    return Decoded(
        ids=ids,
        lengths=lengths,
        confidence=ctc.probability(logits, frames, ids, lengths),
        char_confidence=per_character(tf.math.unsorted_segment_max, probability),
        first=per_character(tf.math.unsorted_segment_min, frame),
        last=per_character(tf.math.unsorted_segment_max, frame),
    )


def _begins(path: tf.Tensor) -> tf.Tensor:
    """Returns the frames in which a run of equal classes begins, bool[B, T]."""
    return path != tf.concat([tf.fill([tf.shape(path)[0], 1], -1), path[:, :-1]], axis=1)


def _compacted(values: tf.Tensor, keep: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the values int32[B, T] to keep, moved to the left and padded with 0, and how many there are in each row."""
    lengths = tf.reduce_sum(tf.cast(keep, tf.int32), axis=1)
    return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(values, keep), lengths).to_tensor(), lengths


DECODERS: dict[str, Callable[[tf.Tensor, tf.Tensor], Decoded]] = {"greedy": greedy, "beam": beam}
