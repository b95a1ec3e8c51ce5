"""From logits to texts, in the graph: the best class of each frame, or prefix beam search."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ocr import ctc

_NEVER = -1e30  # stands for the logarithm of 0
_HASH_FACTOR = 6364136223846793005  # multiplier of Knuth's linear congruential generator


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
    path = tf.where(own, tf.argmax(logits, axis=2, output_type=tf.int32), blank)
    ids, lengths = _compacted(path, _begins(path) & (path != blank))
    return _decoded(logits, frames, ids, lengths, path)


def beam(logits: tf.Tensor, frames: tf.Tensor, width: int = 10, top: int = 20) -> Decoded:
    """Searches for the most probable text with a beam of prefixes.

    Alignments that end in a blank and those that do not are summed separately, over the best classes of each frame. See
    Hannun et al., 2014, "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs",
    algorithm 1.

    Args:
      logits: float[B, T, C], the blank last; computed in float32. B may be 0, T is at least 1 and C at least 2.
      frames: int[B], at most T.
      width: prefixes kept after each frame.
      top: classes considered in each frame, beside the blank.

    Returns:
      The texts. One of a line with a NaN in its frames means nothing, its confidence is NaN; the other lines are as without it.
    """
    logits, frames = tf.cast(logits, tf.float32), tf.cast(frames, tf.int32)
    batch, time, classes = tf.unstack(tf.shape(logits))
    values, symbols = tf.math.top_k(logits[:, :, :-1], tf.minimum(top, classes - 1))
    # A constant subtracted from all logits of a frame changes no ranking.
    highest = tf.maximum(values[:, :, :1], logits[:, :, -1:])
    values, blanks = tf.transpose(values - highest, [1, 0, 2]), tf.transpose(logits[:, :, -1:] - highest, [1, 0, 2])
    symbols = tf.transpose(symbols, [1, 0, 2])

    def step(t: tf.Tensor, state: _Beam, parents: tf.TensorArray, added: tf.TensorArray) -> tuple:
        within = (t < frames)[:, tf.newaxis]
        following, parent, symbol = _extended(state, values[t], blanks[t], symbols[t], width)
        keep = tf.range(width)[tf.newaxis] + tf.zeros([batch, 1], tf.int32)
        state = _Beam(*(tf.where(within, new, old) for new, old in zip(following, state, strict=True)))
        return t + 1, state, parents.write(t, tf.where(within, parent, keep)), added.write(t, tf.where(within, symbol, -1))

    parents, added = (tf.TensorArray(tf.int32, size=time, element_shape=[None, width]) for _ in range(2))
    loop_variables = (0, _empty_beam(batch, width), parents, added)
    _, last, parents, added = tf.while_loop(lambda t, *_: t < time, step, loop_variables)
    place = tf.argmax(_add(last.blank, last.symbol), axis=1, output_type=tf.int32)
    parents, added = parents.stack(), added.stack()

    def back(t: tf.Tensor, place: tf.Tensor, path: tf.TensorArray) -> tuple:
        path = path.write(t, tf.gather(added[t], place, batch_dims=1))
        return t - 1, tf.gather(parents[t], place, batch_dims=1), path

    path = tf.TensorArray(tf.int32, size=time, element_shape=[None])
    _, _, path = tf.while_loop(lambda t, *_: t >= 0, back, (time - 1, place, path))
    added_symbols = tf.transpose(path.stack())
    ids, lengths = _compacted(added_symbols, added_symbols >= 0)
    return _decoded(logits, frames, ids, lengths, ctc.align(logits, frames, ids, lengths))


class _Beam(NamedTuple):
    """Prefixes, [B, width] each.

    Attributes:
      blank: log-probability of the alignments that end in a blank.
      symbol: log-probability of those that end in the last symbol.
      last: the last symbol, or -1.
      prefix: hash of the prefix.
      parent: hash of the prefix without its last symbol.
    """

    blank: tf.Tensor
    symbol: tf.Tensor
    last: tf.Tensor
    prefix: tf.Tensor
    parent: tf.Tensor


def _empty_beam(batch: tf.Tensor, width: int) -> _Beam:
    """Returns a beam that holds the empty prefix and is free otherwise."""
    free = tf.fill([batch, width], _NEVER)
    first = tf.concat([tf.zeros([batch, 1]), free[:, 1:]], axis=1)
    # Free places have distinct hashes, so that none is mistaken for the prefix of another.
    places = tf.range(width, dtype=tf.int64)[tf.newaxis] + tf.zeros([batch, 1], tf.int64)
    return _Beam(first, free, tf.fill([batch, width], -1), -places, tf.fill([batch, width], tf.int64.min))


def _extended(
    state: _Beam, values: tf.Tensor, blank: tf.Tensor, symbols: tf.Tensor, width: int
) -> tuple[_Beam, tf.Tensor, tf.Tensor]:
    """Advances the beam by one frame.

    Args:
      state: the beam before the frame.
      values: float32[B, K], logits of the frame's best symbols.
      blank: float32[B, 1], logit of its blank.
      symbols: int32[B, K].
      width: of the beam.

    Returns:
      The beam after the frame; the place that each prefix comes from, int32[B, width]; and the symbol that was appended to it,
      or -1, int32[B, width].
    """
    either = _add(state.blank, state.symbol)
    repeated = symbols[:, tf.newaxis] == state.last[:, :, tf.newaxis]  # [B, width, K]
    # The last symbol of a prefix is appended again only after a blank; otherwise it continues the same symbol.
    longer = tf.where(repeated, state.blank[:, :, tf.newaxis], either[:, :, tf.newaxis]) + values[:, tf.newaxis]
    same = tf.reduce_max(tf.where(repeated, values[:, tf.newaxis], _NEVER), axis=2) + state.symbol
    # Where the longer prefix is in the beam already, its probability is added there, and it is not a candidate.
    child = (state.prefix[:, :, tf.newaxis] == state.parent[:, tf.newaxis])[:, :, tf.newaxis]  # [B, width, 1, width]
    child &= symbols[:, tf.newaxis, :, tf.newaxis] == state.last[:, tf.newaxis, tf.newaxis]  # [B, width, K, width]
    arriving = tf.reduce_max(tf.where(child, longer[..., tf.newaxis], _NEVER), axis=[1, 2])
    longer = tf.where(tf.reduce_any(child, axis=3), _NEVER, longer)
    staying_blank, staying_symbol = either + blank, _add(same, arriving)

    batch, count = tf.shape(symbols)[0], tf.shape(symbols)[1]
    candidates = tf.concat([_add(staying_blank, staying_symbol), tf.reshape(longer, [batch, -1])], axis=1)
    _, chosen = tf.math.top_k(candidates, width)
    stays = chosen < width
    place = tf.where(stays, chosen, (chosen - width) // count)
    which = tf.where(stays, 0, (chosen - width) % count)
    symbol = tf.gather(symbols, which, batch_dims=1)
    lengthened = tf.gather(candidates, chosen, batch_dims=1)
    prefix = tf.gather(state.prefix, place, batch_dims=1)

    def gather(value: tf.Tensor) -> tf.Tensor:
        return tf.gather(value, place, batch_dims=1)

    following = _Beam(
        blank=tf.where(stays, gather(staying_blank), _NEVER),
        symbol=tf.where(stays, gather(staying_symbol), lengthened),
        last=tf.where(stays, gather(state.last), symbol),
        prefix=tf.where(stays, prefix, prefix * _HASH_FACTOR + tf.cast(symbol, tf.int64) + 1),
        parent=tf.where(stays, gather(state.parent), prefix),
    )
    return following, place, tf.where(stays, -1, symbol)


def _add(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the logarithm of the sum of two probabilities, given as logarithms."""
    return tf.maximum(one, other) + tf.math.log1p(tf.exp(-tf.abs(one - other)))


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
