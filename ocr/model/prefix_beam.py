"""Prefix beam search: the most probable text of a line, over the best classes of each frame, in the graph.

Alignments that end in a blank and those that do not are summed separately. See Hannun et al., 2014, "First-Pass Large
Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", algorithm 1; with a language model this is its
shallow fusion.
"""

from typing import NamedTuple, Protocol

import tensorflow as tf

_NEVER = -1e30  # stands for the logarithm of 0
_HASH_FACTOR = 6364136223846793005  # multiplier of Knuth's linear congruential generator


class Language(Protocol):
    """What is known of texts beside the image. A context is all that matters of a prefix; 0 is that of the empty one."""

    def scores(self, context: tf.Tensor, symbols: tf.Tensor) -> tf.Tensor:
        """Returns what each symbol int32[B, K] adds to the score of prefixes with contexts int64[B, W], float32[B, W, K]."""

    def append(self, context: tf.Tensor, symbol: tf.Tensor) -> tf.Tensor:
        """Returns the contexts of prefixes with one symbol more; all of one shape."""


def search(
    values: tf.Tensor,
    symbols: tf.Tensor,
    blanks: tf.Tensor,
    frames: tf.Tensor,
    width: int,
    language: Language | None = None,
) -> tf.Tensor:
    """Searches for the text with the highest score: its log-probability, and what the language model adds.

    Args:
      values: float32[B, T, K], logits of the best symbols of each frame. A constant may be added to all logits of a frame.
      symbols: int32[B, T, K], their classes.
      blanks: float32[B, T, 1], logits of the blank.
      frames: int32[B], at most T, which is at least 1.
      width: prefixes kept after each frame.
      language: a language model.

    Returns:
      int32[B, T], the symbol that each frame adds to the text, or -1.
    """
    batch, time = tf.unstack(tf.shape(values)[:2])
    values, symbols, blanks = (tf.transpose(value, [1, 0, 2]) for value in (values, symbols, blanks))

    def step(t: tf.Tensor, state: _Beam, parents: tf.TensorArray, added: tf.TensorArray) -> tuple:
        within = (t < frames)[:, tf.newaxis]
        following, parent, symbol = _extended(state, values[t], blanks[t], symbols[t], width, language)
        keep = tf.range(width)[tf.newaxis] + tf.zeros([batch, 1], tf.int32)
        state = _Beam(*(tf.where(within, new, old) for new, old in zip(following, state, strict=True)))
        return t + 1, state, parents.write(t, tf.where(within, parent, keep)), added.write(t, tf.where(within, symbol, -1))

    parents, added = (tf.TensorArray(tf.int32, size=time, element_shape=[None, width]) for _ in range(2))
    loop_variables = (0, _empty_beam(batch, width), parents, added)
    _, last, parents, added = tf.while_loop(lambda t, *_: t < time, step, loop_variables)
    place = tf.argmax(_add(last.blank, last.symbol) + last.language, axis=1, output_type=tf.int32)
    parents, added = parents.stack(), added.stack()

    def back(t: tf.Tensor, place: tf.Tensor, path: tf.TensorArray) -> tuple:
        path = path.write(t, tf.gather(added[t], place, batch_dims=1))
        return t - 1, tf.gather(parents[t], place, batch_dims=1), path

    path = tf.TensorArray(tf.int32, size=time, element_shape=[None])
    _, _, path = tf.while_loop(lambda t, *_: t >= 0, back, (time - 1, place, path))
    return tf.transpose(path.stack())


class _Beam(NamedTuple):
    """Prefixes, [B, width] each.

    Attributes:
      blank: log-probability of the alignments that end in a blank.
      symbol: log-probability of those that end in the last symbol.
      last: the last symbol, or -1.
      prefix: hash of the prefix.
      parent: hash of the prefix without its last symbol.
      language: what the language model adds to the score; 0 without one.
      context: of the language model; 0 without one.
    """

    blank: tf.Tensor
    symbol: tf.Tensor
    last: tf.Tensor
    prefix: tf.Tensor
    parent: tf.Tensor
    language: tf.Tensor
    context: tf.Tensor


def _empty_beam(batch: tf.Tensor, width: int) -> _Beam:
    """Returns a beam that holds the empty prefix and is free otherwise."""
    free = tf.fill([batch, width], _NEVER)
    first = tf.concat([tf.zeros([batch, 1]), free[:, 1:]], axis=1)
    # Free places have distinct hashes, so that none is mistaken for the prefix of another.
    places = tf.range(width, dtype=tf.int64)[tf.newaxis] + tf.zeros([batch, 1], tf.int64)
    nothing = tf.fill([batch, width], tf.int64.min)
    return _Beam(first, free, tf.fill([batch, width], -1), -places, nothing, tf.zeros_like(free), tf.zeros_like(places))


def _extended(
    state: _Beam, values: tf.Tensor, blank: tf.Tensor, symbols: tf.Tensor, width: int, language: Language | None
) -> tuple[_Beam, tf.Tensor, tf.Tensor]:
    """Advances the beam by one frame.

    Args:
      state: the beam before the frame.
      values: float32[B, K], logits of the frame's best symbols.
      blank: float32[B, 1], logit of its blank.
      symbols: int32[B, K].
      width: of the beam.
      language: a language model.

    Returns:
      The beam after the frame; the place that each prefix comes from, int32[B, width]; and the symbol that was appended to it,
      or -1, int32[B, width].
    """
    either = _add(state.blank, state.symbol)
    repeated = symbols[:, tf.newaxis] == state.last[:, :, tf.newaxis]  # [B, width, K]
    # The last symbol of a prefix is appended again only after a blank; otherwise it continues the same symbol.
    longer = tf.where(repeated, state.blank[:, :, tf.newaxis], either[:, :, tf.newaxis]) + values[:, tf.newaxis]
    last_value = tf.reduce_max(tf.where(repeated, values[:, tf.newaxis], _NEVER), axis=2)
    # Where the longer prefix is in the beam already, its probability is added there, and it is not a candidate.
    child = state.prefix[:, :, tf.newaxis] == state.parent[:, tf.newaxis]  # [B, width, width]
    again = state.last[:, :, tf.newaxis] == state.last[:, tf.newaxis]
    before_child = tf.where(again, state.blank[:, :, tf.newaxis], either[:, :, tf.newaxis])
    arriving = tf.reduce_max(tf.where(child, before_child, _NEVER), axis=1) + last_value
    in_beam = tf.matmul(tf.cast(child, tf.float32), tf.cast(repeated, tf.float32)) > 0.0  # [B, width, K]
    longer = tf.where(in_beam, _NEVER, longer)
    staying_blank, staying_symbol = either + blank, _add(last_value + state.symbol, arriving)

    batch, count = tf.shape(symbols)[0], tf.shape(symbols)[1]
    longer_language = state.language[:, :, tf.newaxis]
    if language:
        longer_language += language.scores(state.context, symbols)
    scores = tf.reshape(longer + longer_language, [batch, -1])
    _, chosen = tf.math.top_k(tf.concat([_add(staying_blank, staying_symbol) + state.language, scores], axis=1), width)
    stays = chosen < width
    place = tf.where(stays, chosen, (chosen - width) // count)
    which = tf.where(stays, 0, (chosen - width) % count)
    symbol = tf.gather(symbols, which, batch_dims=1)

    def gather(value: tf.Tensor) -> tf.Tensor:
        return tf.gather(value, place, batch_dims=1)

    def lengthened(value: tf.Tensor) -> tf.Tensor:
        return tf.gather(gather(value), which, batch_dims=2)

    prefix, context = gather(state.prefix), gather(state.context)
    following = _Beam(
        blank=tf.where(stays, gather(staying_blank), _NEVER),
        symbol=tf.where(stays, gather(staying_symbol), lengthened(longer)),
        last=tf.where(stays, gather(state.last), symbol),
        prefix=tf.where(stays, prefix, prefix * _HASH_FACTOR + tf.cast(symbol, tf.int64) + 1),
        parent=tf.where(stays, gather(state.parent), prefix),
        language=gather(state.language),
        context=context,
    )
    if language:
        following = following._replace(
            language=tf.where(stays, following.language, lengthened(longer_language)),
            context=tf.where(stays, context, language.append(context, symbol)),
        )
    return following, place, tf.where(stays, -1, symbol)


def _add(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the logarithm of the sum of two probabilities, given as logarithms."""
    return tf.maximum(one, other) + tf.math.log1p(tf.exp(-tf.abs(one - other)))
