"""The probability of texts that are given, and where the image disagrees with them; in the graph.

Notation in docstrings and comments: T frames, C classes with the blank last, K texts, N characters of the longest of them,
S = 2N + 1 states of a text's lattice (see `lattice`), J alternatives.
"""

from typing import NamedTuple

import tensorflow as tf

from ocr import ctc, lattice
from ocr.lattice import LOG_ZERO, UNROLLED

MAX_TEXTS = 1000  # of an image
MAX_LENGTH = 1000  # characters of a text
MAX_CHARACTERS = 20_000  # of an image's texts, each counted as long as the longest
_AT_ONCE = 2_000_000  # alternatives of all characters in all frames at a time, unless one text has more


def refusals(text: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Tells which rows of texts are not scored, and why.

    Args:
      text: string[B, K].
      count: int32[B], how many of a row's texts are given.

    Returns:
      string[B], which rule a row breaks; empty if none.
    """
    texts = tf.shape(text)[1]
    given = tf.sequence_mask(count, texts)
    longest = tf.reduce_max(tf.where(given, tf.strings.length(text, "UTF8_CHAR"), 0), axis=1)
    longest = tf.maximum(longest, 0)  # if there are no texts
    number, length = tf.as_string(texts), tf.as_string(longest)
    rules = (
        (
            longest * texts > MAX_CHARACTERS,
            [
                "text: ",
                number,
                " texts of up to ",
                length,
                " characters each: the product must be at most ",
                str(MAX_CHARACTERS),
            ],
        ),
        (longest > MAX_LENGTH, ["text: one has ", length, f" characters; at most {MAX_LENGTH} are allowed"]),
        (
            tf.fill(tf.shape(count), texts > MAX_TEXTS),
            ["text: ", number, f" texts for an image; at most {MAX_TEXTS} are allowed"],
        ),
        ((count < 0) | (count > texts), ["count: ", tf.as_string(count), " must be 0 to ", number, ", the number of texts"]),
    )
    message = tf.fill(tf.shape(count), "")
    for broken, parts in rules:
        message = tf.where(broken, tf.strings.join(parts), message)
    return message


class Scores(NamedTuple):
    """How well texts fit an image.

    Attributes:
      log_probability: float32[K], the natural logarithm of each text's probability.
      agreement: float32[K, N], from 0 to 1, how well each character agrees with the image: see `score`.
    """

    log_probability: tf.Tensor
    agreement: tf.Tensor


class Others(NamedTuple):
    """The most probable characters of each frame, one of which may not be used.

    Attributes:
      values: float32[T, J + 1], their log-probabilities, LOG_ZERO for the one not used.
      symbols: int32[T, J + 1], their classes.
      unused: int32[T], the place of the one not used.
    """

    values: tf.Tensor
    symbols: tf.Tensor
    unused: tf.Tensor


def score(logits: tf.Tensor, labels: tf.Tensor, lengths: tf.Tensor, alternatives: int = 8) -> Scores:
    """Computes how probable texts are given an image, and how well each of their characters agrees with it.

    The agreement of the nth character of a text y asks whether another character in its place would be more probable:

      agreement_n = P(y) / sum over all characters c of P(y with c in place of y_n)

    where P sums over all alignments, as `ctc.probability` does. So it is the probability of y_n, given the image and all other
    characters of the text. With more than `alternatives` characters in the alphabet, only those alignments of other texts
    count in which c is among the `alternatives` most probable characters of each frame that it takes up. The sums are exact:
    each alternative leads from the forward variables of what is before it to the backward variables of what is behind it
    (Graves et al., see `ctc`, equations 6 to 11).

    Args:
      logits: float32[T, C] of one line, without frames that are not its own; T is at least 1 and C at least 2.
      labels: int32[K, N], the texts' classes; -1 for a character that is not in the alphabet. K and N may be 0.
      lengths: int32[K], the texts' lengths.
      alternatives: J, how many characters of a frame may take the place of one of a text.

    Returns:
      The scores: minus infinity for a text that has no alignment, or a character that is not in the alphabet; an agreement of
      0 beyond a text's length, and for a text without probability.
    """
    logits, blank = tf.cast(logits, tf.float32), tf.shape(logits)[1] - 1
    highest = tf.reduce_max(logits, axis=1, keepdims=True)
    total = highest + tf.math.log(tf.reduce_sum(tf.exp(logits - highest), axis=1, keepdims=True))
    # The blank is no alternative. Where it is not among the best, there is one character too many.
    values, symbols = tf.math.top_k(logits, tf.minimum(alternatives, blank) + 1)
    unused = tf.reduce_any(symbols == blank, axis=1, keepdims=True)
    unused = tf.where(unused, symbols == blank, tf.range(tf.shape(symbols)[1]) == tf.shape(symbols)[1] - 1)
    others = Others(tf.where(unused, LOG_ZERO, values - total), symbols, tf.argmax(unused, axis=1, output_type=tf.int32))
    size = tf.maximum(_AT_ONCE // tf.maximum(tf.size(symbols) * tf.shape(labels)[1], 1), 1)

    def part(begin: tf.Tensor, *done: tf.TensorArray) -> tuple:
        scores = _score(logits, total, others, labels[begin : begin + size], lengths[begin : begin + size])
        return begin + size, *(array.write(array.size(), value) for array, value in zip(done, scores, strict=True))

    shapes = ([None], [None, None])
    done = [tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=shape) for shape in shapes]
    # At least once, since nothing cannot be concatenated.
    _, *arrays = tf.while_loop(lambda begin, *_: (begin < tf.size(lengths)) | (begin == 0), part, (0, *done))
    return Scores(*(array.concat() for array in arrays))


def _score(logits: tf.Tensor, normaliser: tf.Tensor, others: Others, labels: tf.Tensor, lengths: tf.Tensor) -> Scores:
    """Scores Q of the texts, so few that all of their alternatives fit into memory.

    Args:
      logits: float32[T, C].
      normaliser: float32[T, 1], the log of the sum of their exponentials.
      others: what may take the place of a character.
      labels: int32[Q, N], as in `score`.
      lengths: int32[Q], likewise.
    """
    count, longest = tf.unstack(tf.shape(labels))
    time, blank = tf.shape(logits)[0], tf.shape(logits)[1] - 1
    own = tf.sequence_mask(lengths, longest)
    valid = tf.reduce_all(~own | (labels >= 0), axis=1) & ctc.feasible(tf.fill([count], time), labels, lengths)
    labels = tf.where(own & valid[:, tf.newaxis], labels, blank)
    lengths = tf.where(valid, lengths, 0)

    columns = tf.concat([labels, tf.fill([count, 1], blank)], axis=1)
    needed = tf.transpose(tf.gather(logits, columns, axis=1), [1, 0, 2]) - normaliser  # [Q, T, N + 1]
    of_texts = lattice.build(needed, tf.fill([count], time), labels, lengths)
    sums = lattice.sums(of_texts)
    before = (sums.before + sums.before_scale[:, tf.newaxis])[:time]
    before = tf.concat([of_texts.start[tf.newaxis], before], axis=0)  # [T + 1, S, Q], of the first t frames
    behind = (sums.behind + sums.behind_scale[:, tf.newaxis])[: time + 1]  # of those from t on
    possible = valid & (sums.total > 0.5 * LOG_ZERO)
    alternatives = _alternatives(before, behind, others, of_texts.highest, labels)
    agreement = tf.where(own & possible[:, tf.newaxis], tf.sigmoid(sums.total[:, tf.newaxis] - alternatives), 0.0)
    log_probability = tf.minimum(sums.total + tf.reduce_sum(of_texts.highest, axis=1), 0.0)
    return Scores(tf.where(possible, log_probability, -float("inf")), agreement)


def _alternatives(before: tf.Tensor, behind: tf.Tensor, others: Others, highest: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Sums over all texts that have another character in one place.

    Probabilities themselves are added and multiplied, in float64 and relative to the highest of 8 frames, so that none
    underflows: that takes a third of the operations that their logarithms take.

    Args:
      before: float32[T + 1, S, Q], the log of the sum over all paths that are in a state after the first t frames.
      behind: float32[T + 1, S, Q], that over all paths from a state in frame t to the end.
      others: the characters that may be there.
      highest: float32[Q, T], what the two are relative to in each frame.
      labels: int32[Q, N], padded with the blank.

    Returns:
      float32[Q, N], the log of the sum over all characters in place of each but that itself, relative to all of `highest`.
    """
    count, longest = tf.unstack(tf.shape(labels))
    time, number = tf.unstack(tf.shape(others.symbols))
    # Frames come first, and texts and characters last.
    relative = tf.cumsum(tf.pad(tf.cast(tf.transpose(highest), tf.float64), [[1, 0], [0, 0]]))[
        :, :, tf.newaxis
    ]  # [T + 1, Q, 1]
    before = tf.cast(tf.transpose(before, [0, 2, 1]), tf.float64) + relative
    behind = tf.cast(tf.transpose(behind, [0, 2, 1]), tf.float64) - relative
    none = tf.fill([time, count, 1], tf.constant(LOG_ZERO, tf.float64))
    # Where the character of each place was in the frame before; in the place that is not used, if nowhere.
    same = others.symbols[1:, :, tf.newaxis] == others.symbols[:-1, tf.newaxis]  # [T - 1, J + 1, J + 1]
    place = tf.where(tf.reduce_any(same, axis=2), tf.argmax(same, axis=2, output_type=tf.int32), others.unused[:-1, tf.newaxis])
    by_frame = (
        before[:-1, :, :-1:2],  # the blank in front of each character, [T, Q, N]
        tf.concat([none, before[:-1, :, 1:-2:2]], axis=2)[:, :, :longest],  # the character in front
        behind[1:, :, 2::2],  # the blank behind
        tf.concat([behind[1:, :, 3::2], none], axis=2)[:, :, :longest],  # the character behind
        others.symbols,
        tf.exp(tf.cast(others.values, tf.float64)),
        tf.pad(place, [[1, 0], [0, 0]]),
    )
    chunks = tuple(_in_chunks(value, padding) for value, padding in zip(by_frame, [LOG_ZERO] * 4 + [0] * 3, strict=True))
    no_label = tf.fill([count, 1], -1)
    in_front = tf.concat([no_label, labels[:, :-1]], axis=1)[:, :longest]
    next_one = tf.concat([labels[:, 1:], no_label], axis=1)[:, :longest]

    def probabilities(blanks: tf.Tensor, characters: tf.Tensor, scale: tf.Tensor, differs: tf.Tensor) -> tf.Tensor:
        """Returns the sum over paths to or from an alternative: not from an equal neighbour without a blank between."""
        blanks, characters = (tf.exp(value - scale)[:, tf.newaxis] for value in (blanks, characters))
        return blanks + tf.where(differs, characters, 0.0)

    def advance(state: tuple[tf.Tensor, tf.Tensor, tf.Tensor], chunk: tuple[tf.Tensor, ...]) -> tuple:
        run, last_scale, _ = state  # [J + 1, Q, N], relative to the exponential of [Q, N]
        blank_before, before, blank_behind, behind, symbols, p, places = chunk
        symbols = symbols[:, :, tf.newaxis, tf.newaxis]
        scale = tf.reduce_max(tf.maximum(blank_before, before), axis=0)
        scale = tf.maximum(scale, last_scale + tf.math.log(tf.reduce_max(run, axis=0)))
        run = tf.math.multiply_no_nan(tf.exp(last_scale - scale), run)
        scale_behind = tf.reduce_max(tf.maximum(blank_behind, behind), axis=0)
        entered = probabilities(blank_before, before, scale, symbols != in_front)  # [8, J + 1, Q, N]
        left = probabilities(blank_behind, behind, scale_behind, symbols != next_one)
        emitted = tf.where(symbols == labels, tf.zeros([], tf.float64), p[:, :, tf.newaxis, tf.newaxis])
        runs = []
        for frame in range(UNROLLED):
            run = (tf.gather(run, places[frame]) + entered[frame]) * emitted[frame]
            runs.append(run)
        total = tf.math.log(tf.reduce_sum(tf.stack(runs) * left, axis=[0, 1]))
        return run, scale, total + scale + scale_behind

    nothing = tf.zeros([count, longest], tf.float64)
    start = (tf.zeros([number, count, longest], tf.float64), nothing, nothing)
    _, _, totals = tf.scan(advance, chunks, start)
    return tf.cast(tf.reduce_logsumexp(totals, axis=0), tf.float32)


def _in_chunks(by_frame: tf.Tensor, padding: float) -> tf.Tensor:
    """Returns [T, …] as [T / 8, 8, …]."""
    paddings = [[0, -tf.shape(by_frame)[0] % UNROLLED], *[[0, 0]] * (by_frame.shape.rank - 1)]
    padded = tf.pad(by_frame, paddings, constant_values=tf.cast(padding, by_frame.dtype))
    return tf.reshape(padded, tf.concat([[-1, UNROLLED], tf.shape(by_frame)[1:]], axis=0))
