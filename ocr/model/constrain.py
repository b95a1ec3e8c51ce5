"""Reads with constraints, only certain characters or only texts that fit a pattern, in the graph.

Notation in docstrings and comments: B lines, T frames, C classes with the blank last; R templates of P places that U symbols
may fill (see `template`). A path through a template is in one of the symbols of a place, or in the blank behind some places.
"""

from typing import NamedTuple

import tensorflow as tf

from ocr import ctc
from ocr.charset import Charset
from ocr.lattice import LOG_ZERO, log_sum_exp
from ocr.model.template import Chains

MAX_ALLOWED = 20_000  # characters
_LAST, _BLANK, _SYMBOL, _BLANK_HERE, _SYMBOL_HERE = range(5)  # whence a path comes into a symbol, in the order of `_arrivals`


class Paths(NamedTuple):
    """The best path through each template.

    Attributes:
      path: int32[R, T], the symbol of each frame; U for the blank, and beyond a line's frames.
      log_path: float32[R], the log-probability of the path; below half of LOG_ZERO if no text fits.
      log_sum: float32[R], the log of the sum over all texts that fit.
    """

    path: tf.Tensor
    log_path: tf.Tensor
    log_sum: tf.Tensor


class Reading(NamedTuple):
    """What fits best.

    Attributes:
      ids: int32[B, N], classes, padded with 0.
      lengths: int32[B].
      confidence: float32[B], the probability of each text, given that a text fits; 0 if none can.
    """

    ids: tf.Tensor
    lengths: tf.Tensor
    confidence: tf.Tensor


def allowed_classes(allowed: tf.Tensor, charset: Charset) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns which classes are allowed.

    Args:
      allowed: string[B], the characters that are allowed, in UTF-8; empty for all.
      charset: the alphabet.

    Returns:
      bool[B, C - 1], all of a row that allows all or is refused; and string[B], which rule a row breaks, empty if none.
    """
    length = tf.strings.length(allowed, "UTF8_CHAR")
    points = tf.strings.unicode_decode(tf.where(length > MAX_ALLOWED, "", allowed), "UTF-8")
    classes = charset.classes_graph(points.flat_values)
    unknown = tf.ragged.boolean_mask(points, points.with_flat_values(classes < 0))
    first = tf.strings.unicode_encode(unknown[:, :1], "UTF-8")
    refusal = tf.where(first != "", tf.strings.join(["allowed: the model's alphabet lacks ", first]), "")
    too_long = tf.strings.join(["allowed: ", tf.as_string(length), f" characters; at most {MAX_ALLOWED} may be listed"])
    refusal = tf.where(length > MAX_ALLOWED, too_long, refusal)
    place = points.value_rowids() * charset.num_classes + tf.cast(tf.where(classes < 0, charset.blank, classes), tf.int64)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(classes), place, tf.size(allowed) * charset.num_classes)
    counts = tf.reshape(counts, [-1, charset.num_classes])  # what is not in the alphabet in the blank's column
    # A character may be in an alphabet twice: its other class is allowed too.
    mask = tf.gather(counts > 0, charset.encode(charset.characters), axis=1)
    return mask | ((allowed == "") | (refusal != ""))[:, tf.newaxis], refusal


def read(logits: tf.Tensor, frames: tf.Tensor, mask: tf.Tensor, chains: Chains) -> Reading:
    """Reads lines that fit patterns.

    Args:
      logits: float32[B, T, C].
      frames: int32[B], at most T.
      mask: bool[B, C - 1], the classes that are allowed.
      chains: the patterns' templates, at least one.

    Returns:
      For each line the text of the most probable path through any template of its pattern; nothing for one without a pattern.
      Its confidence is P(text) / sum over all texts that fit of P, which is exact.
    """
    lines = tf.shape(logits)[0]
    blank = tf.gather(logits[:, :, -1], chains.row)[:, :, tf.newaxis]
    classes, place = tf.unique(tf.reshape(chains.symbols, [-1]))
    exists = classes >= 0
    classes = tf.where(exists, classes, 0)
    exists = (tf.gather(mask, classes, axis=1) & exists)[:, tf.newaxis]
    used = tf.where(exists, tf.gather(logits, classes, axis=2), -float("inf"))  # of all templates, [B, T, …]
    symbols = tf.gather(tf.gather(used, chains.row), tf.reshape(place, tf.shape(chains.symbols)), axis=2, batch_dims=1)
    values = tf.concat([symbols, blank], axis=2)  # [R, T, U + 1]
    own = tf.gather(frames, chains.row)
    best = best_path(values, own, chains.member, chains.repeat, chains.lengths)

    # Probabilities so far are among a template's own symbols; this makes those of a line's templates comparable.
    highest = tf.gather(tf.maximum(tf.reduce_max(used, axis=2), logits[:, :, -1]), chains.row)
    offset = tf.where(tf.sequence_mask(own, tf.shape(logits)[1]), tf.reduce_logsumexp(values, axis=2) - highest, 0.0)
    offset = tf.reduce_sum(offset, axis=1)
    is_its = chains.row == tf.range(lines)[:, tf.newaxis]  # [B, R]
    log_path = tf.where(is_its, best.log_path + offset, 2 * LOG_ZERO)
    log_sum = tf.reduce_logsumexp(tf.where(is_its, best.log_sum + offset, 2 * LOG_ZERO), axis=1)
    chosen = tf.argmax(log_path, axis=1, output_type=tf.int32)  # a template for each line
    fits = tf.reduce_max(log_path, axis=1) > 0.5 * LOG_ZERO

    path = tf.where(fits[:, tf.newaxis], tf.gather(best.path, chosen), tf.shape(chains.symbols)[1])
    begins = path != tf.pad(path[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    kept = begins & (path < tf.shape(chains.symbols)[1])
    lengths = tf.reduce_sum(tf.cast(kept, tf.int32), axis=1)
    text = tf.RaggedTensor.from_row_lengths(tf.boolean_mask(path, kept), lengths, validate=False).to_tensor()  # of symbols
    log_p = ctc.log_probability(tf.gather(values, chosen), frames, text, lengths) + tf.gather(offset, chosen)
    confidence = tf.where(fits, tf.exp(tf.minimum(log_p - log_sum, 0.0)), 0.0)
    ids = tf.gather(tf.gather(chains.symbols, chosen), text, batch_dims=1)
    return Reading(tf.where(tf.sequence_mask(lengths, tf.shape(ids)[1]), ids, 0), lengths, confidence)


def choose(which: tf.Tensor, one: Reading, other: Reading) -> Reading:
    """Returns the texts of one reading where bool[B] is true, those of the other elsewhere."""
    longest = tf.maximum(tf.shape(one.ids)[1], tf.shape(other.ids)[1])
    padded = (tf.pad(reading.ids, [[0, 0], [0, longest - tf.shape(reading.ids)[1]]]) for reading in (one, other))
    return Reading(
        tf.where(which[:, tf.newaxis], *padded),
        tf.where(which, one.lengths, other.lengths),
        tf.where(which, one.confidence, other.confidence),
    )


def best_path(logits: tf.Tensor, frames: tf.Tensor, member: tf.Tensor, repeat: tf.Tensor, lengths: tf.Tensor) -> Paths:
    """Finds the most probable path through each template (Viterbi), and sums over all texts that fit.

    Both are exact: a path knows the last symbol, since equal neighbours need a blank between them.

    Args:
      logits: float32[R, T, U + 1], the blank last; minus infinity rules a symbol out. T is at least 1.
      frames: int32[R], from 1 to T.
      member: bool[R, P, U], which symbols fit in a place.
      repeat: bool[R, P], whether one or more symbols fill a place.
      lengths: int32[R], the places of each template, from 1 to P.

    Returns:
      The paths; their probabilities are those among the symbols and the blank.
    """
    count, time, symbols = tf.shape(logits)[0], tf.shape(logits)[1], tf.shape(logits)[2] - 1
    places = tf.shape(member)[1]
    log_p = tf.transpose(tf.maximum(tf.nn.log_softmax(logits), LOG_ZERO), [1, 0, 2])  # [T, R, U + 1]
    excluded = tf.where(member, 0.0, LOG_ZERO)
    once = tf.where(repeat, 0.0, LOG_ZERO)[:, :, tf.newaxis]

    def step(t: tf.Tensor, sums: _States, bests: _States, *moves: tf.TensorArray) -> tuple:
        active = (t < frames)[:, tf.newaxis]
        emitted = log_p[t, :, tf.newaxis, :-1] + excluded

        def advanced(before: _States, in_symbol: tf.Tensor, in_blank: tf.Tensor) -> _States:
            after = _States(in_symbol + emitted, in_blank + log_p[t, :, -1:])
            return _States(
                tf.where(active[:, :, tf.newaxis], after.symbol, before.symbol), tf.where(active, after.blank, before.blank)
            )

        others, all_symbols = _sums_of_others(sums.symbol)
        arriving = _arrivals(sums, others, once)
        next_sums = advanced(sums, log_sum_exp(*arriving), log_sum_exp(sums.blank, _shifted(all_symbols)))

        others, top = _best_of_others(bests.symbol)
        arriving = tf.stack(_arrivals(bests, others, once))
        from_symbol = _shifted(tf.reduce_max(bests.symbol, axis=2))
        next_bests = advanced(bests, tf.reduce_max(arriving, axis=0), tf.maximum(bests.blank, from_symbol))
        move = tf.where(active[:, :, tf.newaxis], tf.argmax(arriving, axis=0, output_type=tf.int32), _LAST)
        written = (tf.cast(move, tf.int8), active & (from_symbol > bests.blank), top)
        return t + 1, next_sums, next_bests, *(array.write(t, value) for array, value in zip(moves, written, strict=True))

    nowhere = tf.fill([count, places, symbols], LOG_ZERO)
    start = _States(nowhere, tf.pad(tf.zeros([count, 1]), [[0, 0], [0, places]], constant_values=LOG_ZERO))
    kinds = ((tf.int8, [None, None, None]), (tf.bool, [None, None]), (tf.int32, [None, None, 2]))
    moves = tuple(tf.TensorArray(kind, time, element_shape=shape) for kind, shape in kinds)
    _, sums, bests, *moves = tf.while_loop(lambda t, *_: t < time, step, (0, start, start, *moves))

    in_blank, in_symbol = _at_end(bests, lengths)
    best_symbol = tf.argmax(in_symbol, axis=1, output_type=tf.int32)
    ends_in_symbol = tf.reduce_max(in_symbol, axis=1) > in_blank
    path = _traced(lengths, tf.where(ends_in_symbol, best_symbol, symbols), symbols, *moves)
    own = tf.sequence_mask(frames, time)
    log_sum = tf.reduce_logsumexp(tf.concat([tf.stack(_at_end(sums, lengths)[:1], 1), _at_end(sums, lengths)[1]], 1), axis=1)
    log_path = tf.maximum(in_blank, tf.reduce_max(in_symbol, axis=1))
    return Paths(tf.where(own, path, symbols), log_path, log_sum)


class _States(NamedTuple):
    """Logarithms of paths: in each symbol of a place, [R, P, U], and in the blank behind the first 0 to P, [R, P + 1]."""

    symbol: tf.Tensor
    blank: tf.Tensor


def _at_end(states: _States, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the paths that end in the blank behind the last place, [R], and those in a symbol of it, [R, U]."""
    in_blank = tf.gather(states.blank, lengths, batch_dims=1)
    return in_blank, tf.gather(states.symbol, lengths - 1, batch_dims=1)


def _shifted(by_place: tf.Tensor) -> tf.Tensor:
    """Returns paths in places [R, P, …] as those in the place before: one place more, the first never reached."""
    return tf.pad(by_place, [[0, 0], [1, 0], *[[0, 0]] * (by_place.shape.rank - 2)], constant_values=LOG_ZERO)


def _arrivals(states: _States, others: tf.Tensor, once: tf.Tensor) -> list[tf.Tensor]:
    """Returns the paths into each symbol of each place: float32[R, P, U] for each of the five origins.

    Args:
      states: before the frame.
      others: float32[R, P, U], the paths in the other symbols of a place, which may precede a symbol without a blank between.
      once: float32[R, P, 1], LOG_ZERO for a place that only one symbol fills, else 0.
    """
    zeros = tf.zeros_like(states.symbol)
    return [
        states.symbol,
        states.blank[:, :-1, tf.newaxis] + zeros,
        _shifted(others)[:, :-1],
        states.blank[:, 1:, tf.newaxis] + once + zeros,
        others + once,
    ]


def _sums_of_others(symbol: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the log of the sums over the other symbols of a place, [R, P, U], and over all, [R, P].

    The highest is left out before the sum, not subtracted from it, where nothing but rounding errors might remain.
    """
    highest = tf.reduce_max(symbol, axis=2, keepdims=True)
    first = tf.range(tf.shape(symbol)[2]) == tf.argmax(symbol, axis=2, output_type=tf.int32)[:, :, tf.newaxis]
    without_highest = tf.reduce_logsumexp(tf.where(first, LOG_ZERO, symbol), axis=2, keepdims=True)
    share = tf.where(first, 0.0, tf.exp(symbol - highest))
    total = 1.0 + tf.reduce_sum(share, axis=2, keepdims=True)
    others = tf.where(first, without_highest, highest + tf.math.log(total - share))
    return others, (highest + tf.math.log(total))[:, :, 0]


def _best_of_others(symbol: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the highest of the other symbols of a place, [R, P, U], and the two highest of all, int32[R, P, 2]."""
    padded = tf.pad(symbol, [[0, 0], [0, 0], [0, 1]], constant_values=2 * LOG_ZERO)  # there may be one symbol only
    values, top = tf.math.top_k(padded, 2)
    is_first = tf.range(tf.shape(symbol)[2]) == top[:, :, :1]
    return tf.where(is_first, values[:, :, 1:], values[:, :, :1]), top


def _traced(
    place: tf.Tensor,
    symbol: tf.Tensor,
    blank: tf.Tensor,
    moves: tf.TensorArray,
    blank_moves: tf.TensorArray,
    tops: tf.TensorArray,
) -> tf.Tensor:
    """Follows the best paths back from where they end.

    Args:
      place: int32[R], how many places are behind the last frame.
      symbol: int32[R], the symbol of the last frame, or `blank`.
      blank: U.
      moves: int8[R, P, U] for each frame, whence the best path into a symbol comes.
      blank_moves: bool[R, P + 1], whether that into a blank comes from a symbol.
      tops: int32[R, P, 2], the two best symbols of each place before the frame.

    Returns:
      int32[R, T], the symbols.
    """

    def back(t: tf.Tensor, place: tf.Tensor, symbol: tf.Tensor, path: tf.TensorArray) -> tuple:
        path = path.write(t, symbol)
        two_best = tops.read(t)

        def other(place: tf.Tensor) -> tf.Tensor:
            top = tf.gather(two_best, tf.maximum(place, 0), batch_dims=1)
            # Where no text fits there may be no other, and the path means nothing.
            return tf.minimum(tf.where(top[:, 0] == symbol, top[:, 1], top[:, 0]), blank - 1)

        in_blank = symbol == blank
        here = tf.maximum(place - 1, 0)
        move = tf.gather(moves.read(t), here, batch_dims=1)
        move = tf.cast(tf.gather(move, tf.minimum(symbol, blank - 1), batch_dims=1), tf.int32)
        before = tf.where((move == _BLANK) | (move == _BLANK_HERE), blank, symbol)
        before = tf.where(move == _SYMBOL, other(place - 2), tf.where(move == _SYMBOL_HERE, other(place - 1), before))
        leaves_symbol = tf.gather(blank_moves.read(t), place, batch_dims=1)
        before = tf.where(in_blank, tf.where(leaves_symbol, other(place - 1), blank), before)
        leaves_place = ~in_blank & ((move == _BLANK) | (move == _SYMBOL))
        return t - 1, tf.maximum(place - tf.cast(leaves_place, tf.int32), 0), before, path

    path = tf.TensorArray(tf.int32, moves.size(), element_shape=[None])
    *_, path = tf.while_loop(lambda t, *_: t >= 0, back, (moves.size() - 1, place, symbol, path))
    return tf.transpose(path.stack())
