"""Decoding with a language model: shallow fusion, in the graph, of the lines that greedy decoding is unsure of."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ocr.charset import Charset
from ocr.model import decode, prefix_beam
from ocr.model.decode import Decoded
from ocr.model.ngram import NGram

_WIDTH, _TOP = 10, 10  # of the beam; classes of each frame
_BLANK = float(np.log(0.99))  # log-probability from which on a frame is a blank


class Weights(NamedTuple):
    """How a language model takes part: a text of N characters has the score log P(text | image) + weight log P(text) + bonus N.

    Attributes:
      weight: of the language model.
      bonus: for each character, since the probability of any text falls with its length.
      threshold: lines that greedy decoding reads with a lower confidence are decoded again.
    """

    weight: float
    bonus: float
    threshold: float


class Fusion:
    """A decoder that asks a language model where the image leaves doubts.

    Args:
      ngram: the language model.
      charset: alphabet of the classes.
      weights: how they go together.
    """

    def __init__(self, ngram: NGram, charset: Charset, weights: Weights):
        self._language = Language(ngram, charset, weights.weight, weights.bonus)
        self._threshold = weights.threshold

    def decode(self, logits: tf.Tensor, frames: tf.Tensor) -> Decoded:
        """Decodes as `decode.greedy` does, but searches for the text with the highest score where that is unsure.

        Args:
          logits: float[B, T, C], the blank last; computed in float32. B may be 0, T is at least 1 and C at least 2.
          frames: int[B], at most T.

        Returns:
          The texts. Confidences are the probabilities of the texts given the image alone.
        """
        logits, frames = tf.cast(logits, tf.float32), tf.cast(frames, tf.int32)
        greedy = decode.greedy(logits, frames)
        unsure = tf.cast(tf.where(greedy.confidence < self._threshold), tf.int32)

        def fused() -> Decoded:
            rows = tf.reshape(unsure, [-1])
            own_logits, own_frames = tf.gather(logits, rows), tf.gather(frames, rows)
            added = search(*frames_with_text(own_logits, own_frames), self._language)
            return _replaced(greedy, unsure, decode.of_symbols(own_logits, own_frames, added))

        return tf.cond(tf.size(unsure) > 0, fused, lambda: greedy)

    def score(self, decoded: Decoded) -> tf.Tensor:
        """Returns the scores of texts, float32[B]. A probability that underflows counts as the smallest number."""
        visual = tf.math.log(tf.maximum(decoded.confidence, np.finfo(np.float32).tiny))
        return visual + self._language.score(decoded.ids, decoded.lengths)


class Language:
    """What an n-gram model adds to the score of a text, in the graph. See `prefix_beam.Language`.

    A prefix's context is the key of its last characters. A character that is not in the corpus has an equal part of the
    probability of all such.

    Args:
      ngram: the model. All graphs that this is used in share one copy of its tables.
      charset: alphabet of the classes.
      weight: of the logarithms of probabilities; a number or a scalar.
      bonus: for each character; a number or a scalar.
    """

    def __init__(self, ngram: NGram, charset: Charset, weight: float | tf.Tensor, bonus: float | tf.Tensor):
        self._ngram, self._weight, self._bonus = ngram, weight, bonus
        self._characters = ngram.encode(charset.characters)
        self._share = float(np.log(max(len(set(charset.characters) - {*ngram.characters}), 1)))
        keys = tf.TensorSpec([None] * 3, tf.int64)
        self._log_probability = tf.function(self._look_up, [keys, keys], autograph=False)

    def scores(self, context: tf.Tensor, symbols: tf.Tensor) -> tf.Tensor:
        """Returns what each symbol int32[B, K] adds to the score of prefixes with contexts int64[B, W], float32[B, W, K]."""
        characters = tf.gather(self._characters, symbols)[:, tf.newaxis]
        return self._weight * self._log_probability(context[:, :, tf.newaxis], characters) + self._bonus

    def append(self, context: tf.Tensor, symbol: tf.Tensor) -> tf.Tensor:
        """Returns the contexts of prefixes with one symbol more; all of one shape."""
        base, order = self._ngram.base, self._ngram.order
        return (context * base + tf.gather(self._characters, symbol)) % base ** (order - 1)

    def score(self, ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Returns what is added to the scores of texts with classes int32[B, N] and lengths int32[B], float32[B]."""
        characters = tf.gather(self._characters, ids)
        contexts = tf.zeros_like(characters)
        for distance in range(1, self._ngram.order):
            before = tf.pad(characters, [[0, 0], [distance, 0]])[:, : tf.shape(ids)[1]]
            contexts += before * self._ngram.base ** (distance - 1)
        added = (
            self._weight * self._log_probability(contexts[..., tf.newaxis], characters[..., tf.newaxis])[..., 0] + self._bonus
        )
        return tf.reduce_sum(tf.where(tf.sequence_mask(lengths, tf.shape(ids)[1]), added, 0.0), axis=1)

    def _look_up(self, contexts: tf.Tensor, characters: tf.Tensor) -> tf.Tensor:
        """Does what `NGram.log_probability` does, and shares the probability of what is not in the corpus.

        Contexts int64 and characters int64 have three dimensions, and are broadcast.
        """
        keys = tf.constant(self._ngram.keys)
        log_probabilities, backoffs = (
            tf.constant(column.astype(np.float16)) for column in (self._ngram.log_probabilities, self._ngram.backoffs)
        )

        def find(wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            flat = tf.reshape(wanted, [-1])
            places = tf.minimum(tf.searchsorted(keys, flat), tf.size(keys) - 1)
            listed = tf.gather(keys, places) == flat
            return tf.reshape(places, tf.shape(wanted)), tf.reshape(listed, tf.shape(wanted))

        base, order = self._ngram.base, self._ngram.order
        sizes = tf.constant([base**length for length in range(order)], tf.int64)
        contexts = contexts[..., tf.newaxis] % sizes  # of no character, one, and so on
        # A context that begins with what is not in the corpus, or with the line, is a shorter one.
        places, listed = find(contexts)
        has_backoff = listed & (contexts * base >= sizes)
        backoff = tf.where(has_backoff, tf.cast(tf.gather(backoffs, places), tf.float32), 0.0)
        places, listed = find(contexts * base + characters[..., tf.newaxis])
        values = tf.cast(tf.gather(log_probabilities, places), tf.float32)
        log_probability = values[..., 0]  # of single characters, all of which are listed
        for length in range(1, order):
            log_probability = tf.where(listed[..., length], values[..., length], log_probability + backoff[..., length])
        return log_probability - tf.where(characters == 0, self._share, 0.0)


def search(values: tf.Tensor, symbols: tf.Tensor, blanks: tf.Tensor, frames: tf.Tensor, language: Language) -> tf.Tensor:
    """Searches for the texts with the highest scores in what `frames_with_text` returned; see `prefix_beam.search`."""
    return prefix_beam.search(values, symbols, blanks, frames, _WIDTH, language)


def frames_with_text(logits: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Leaves out all but the first of adjacent frames that are blanks.

    Args:
      logits: float32[B, T, C].
      frames: int32[B].

    Returns:
      The arguments of `prefix_beam.search`, up to the frames that are left.
    """
    logits = tf.where(tf.sequence_mask(frames, tf.shape(logits)[1])[:, :, tf.newaxis], logits, 0.0)
    total = tf.reduce_logsumexp(logits, axis=2)
    is_blank = logits[:, :, -1] - total > _BLANK
    keep = ~is_blank | ~tf.pad(is_blank[:, :-1], [[0, 0], [1, 0]])
    keep &= tf.sequence_mask(frames, tf.shape(logits)[1])
    kept = tf.boolean_mask(logits, keep)
    counts = tf.reduce_sum(tf.cast(keep, tf.int32), axis=1)
    values, symbols, blanks = (
        tf.RaggedTensor.from_row_lengths(value[0], counts, validate=False).to_tensor()
        for value in decode.candidates(kept[tf.newaxis], _TOP)
    )
    return values, symbols, blanks, counts


def _replaced(decoded: Decoded, rows: tf.Tensor, others: Decoded) -> Decoded:
    """Returns texts with others in the place of the rows int32[R, 1]."""
    longest = tf.maximum(tf.shape(decoded.ids)[1], tf.shape(others.ids)[1])
    count = tf.size(decoded.lengths)
    place = tf.tensor_scatter_nd_update(tf.range(count), rows, count + tf.range(tf.shape(rows)[0]))

    def replaced(value: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        if value.shape.rank == 2:
            value, other = (tf.pad(v, [[0, 0], [0, longest - tf.shape(v)[1]]]) for v in (value, other))
        return tf.gather(tf.concat([value, other], axis=0), place)

    return Decoded(*(replaced(value, other) for value, other in zip(decoded, others, strict=True)))
