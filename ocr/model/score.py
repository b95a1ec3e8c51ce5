"""The probability of texts that are given, and where the image disagrees with them; in the graph.

Notation in docstrings and comments: B lines, T frames, C classes with the blank last, Q texts of any of the lines, N characters
of the longest of them, S = 2N + 1 states of a text's lattice (see `lattice`), J alternatives.
"""

from typing import NamedTuple

import tensorflow as tf

from ocr import ctc, lattice
from ocr.lattice import LOG_ZERO, UNROLLED
from ocr.model import decode

MAX_TEXTS = 1000  # of an image
MAX_LENGTH = 1000  # characters of a text
MAX_CHARACTERS = 20_000  # of an image's texts, each counted as long as the longest
_AT_ONCE = 700_000  # alternatives of all characters in all frames at a time, unless one text has more


def refusals(text: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Tells which rows of texts are not scored, and why.

    Args:
      text: string[B, K], K texts of each line.
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
    """How well texts fit images.

    Attributes:
      log_probability: float32[Q], the natural logarithm of each text's probability.
      agreement: float32[Q, N], from 0 to 1, how well each character agrees with the image: see `score`.
    """

    log_probability: tf.Tensor
    agreement: tf.Tensor


class Others(NamedTuple):
    """The most probable characters of each frame, one of which may not be used.

    Attributes:
      values: float32[B, T, J + 1], their log-probabilities; LOG_ZERO for the one not used, and beyond a line's frames.
      symbols: int32[B, T, J + 1], their classes.
      place: int32[B, T, J + 1], where each was in the frame before; in the place that is not used, if nowhere.
    """

    values: tf.Tensor
    symbols: tf.Tensor
    place: tf.Tensor


def score(
    logits: tf.Tensor, frames: tf.Tensor, line: tf.Tensor, labels: tf.Tensor, lengths: tf.Tensor, alternatives: int = 8
) -> Scores:
    """Computes how probable texts are given an image, and how well each of their characters agrees with it.

    The agreement of the nth character of a text y asks whether another character in its place would be more probable:

      agreement_n = P(y) / sum over all characters c of P(y with c in place of y_n)

    where P sums over all alignments, as `ctc.probability` does. So it is the probability of y_n, given the image and all other
    characters of the text. With more than `alternatives` characters in the alphabet, only those alignments of other texts
    count in which c is among the `alternatives` most probable characters of each frame that it takes up. The sums are exact:
    each alternative leads from the forward variables of what is before it to the backward variables of what is behind it
    (Graves et al., see `ctc`, equations 6 to 11).

    Args:
      logits: float32[B, T, C]; T is at least 1 and C at least 2.
      frames: int32[B], from 1 to T; frames beyond are ignored.
      line: int32[Q], the line that each text is asked of.
      labels: int32[Q, N], the texts' classes; -1 for a character that is not in the alphabet. Q and N may be 0.
      lengths: int32[Q], the texts' lengths.
      alternatives: J, how many characters of a frame may take the place of one of a text.

    Returns:
      The scores: minus infinity for a text that has no alignment, or a character that is not in the alphabet; an agreement of
      0 beyond a text's length, and for a text without probability.
    """
    logits = tf.cast(logits, tf.float32)
    normaliser, others = _most_probable(logits, frames, alternatives)
    time, longest = tf.shape(logits)[1], tf.shape(labels)[1]
    size = tf.maximum(_AT_ONCE // tf.maximum(time * tf.shape(others.symbols)[2] * longest, 1), 1)

    def part(begin: tf.Tensor, *done: tf.TensorArray) -> tuple:
        own = (value[begin : begin + size] for value in (line, labels, lengths))
        scores = _score(logits, frames, normaliser, others, *own)
        return begin + size, *(array.write(array.size(), value) for array, value in zip(done, scores, strict=True))

    shapes = ([None], [None, None])
    done = [tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=shape) for shape in shapes]
    # At least once, since nothing cannot be concatenated.
    _, *arrays = tf.while_loop(lambda begin, *_: (begin < tf.size(lengths)) | (begin == 0), part, (0, *done))
    return Scores(*(array.concat() for array in arrays))


def _most_probable(logits: tf.Tensor, frames: tf.Tensor, count: int) -> tuple[tf.Tensor, Others]:
    """Finds the most probable characters of each frame.

    Returns:
      float32[B, T], the logarithm of the sum of the exponentials of a frame's logits; and the characters.
    """
    blank = tf.shape(logits)[2] - 1
    values, symbols = decode.highest_logits(logits, tf.minimum(count, blank) + 1)
    # The decoder needs the softmax, too.
    best = tf.gather(tf.nn.softmax(logits), symbols[:, :, 0], batch_dims=2)
    normaliser = values[:, :, 0] - tf.math.log(best)
    # The blank is no alternative. Where it is not among the best, there is one character too many.
    number = tf.range(tf.shape(symbols)[2])
    unused = tf.reduce_any(symbols == blank, axis=2, keepdims=True)
    unused = tf.where(unused, symbols == blank, number == tf.size(number) - 1)
    within = tf.sequence_mask(frames, tf.shape(logits)[1])[:, :, tf.newaxis]
    log_p = tf.where(within & ~unused, values - normaliser[:, :, tf.newaxis], LOG_ZERO)
    same = symbols[:, 1:, :, tf.newaxis] == symbols[:, :-1, tf.newaxis]  # [B, T - 1, J + 1, J + 1]
    nowhere = tf.argmax(unused, axis=2, output_type=tf.int32)[:, :-1, tf.newaxis]
    place = tf.where(tf.reduce_any(same, axis=3), tf.argmax(same, axis=3, output_type=tf.int32), nowhere)
    return normaliser, Others(log_p, symbols, tf.pad(place, [[0, 0], [1, 0], [0, 0]]))


def _score(
    logits: tf.Tensor,
    frames: tf.Tensor,
    normaliser: tf.Tensor,
    others: Others,
    line: tf.Tensor,
    labels: tf.Tensor,
    lengths: tf.Tensor,
) -> Scores:
    """Scores texts, so few that all of their alternatives fit into memory.

    Args:
      logits: float32[B, T, C].
      frames: int32[B].
      normaliser: float32[B, T], the log of the sum of their exponentials.
      others: what may take the place of a character.
      line: int32[Q], as in `score`.
      labels: int32[Q, N], likewise.
      lengths: int32[Q], likewise.
    """
    count, longest = tf.unstack(tf.shape(labels))
    _, time, classes = tf.unstack(tf.shape(logits))
    blank, frames = classes - 1, tf.gather(frames, line)
    own = tf.sequence_mask(lengths, longest)
    valid = tf.reduce_all(~own | (labels >= 0), axis=1) & ctc.feasible(frames, labels, lengths)
    labels = tf.where(own & valid[:, tf.newaxis], labels, blank)
    lengths = tf.where(valid, lengths, 0)

    columns = tf.concat([labels, tf.fill([count, 1], blank)], axis=1)
    rows = (line[:, tf.newaxis] * time + tf.range(time)) * classes  # where each frame begins
    needed = tf.gather(tf.reshape(logits, [-1]), rows[:, :, tf.newaxis] + columns[:, tf.newaxis])  # [Q, T, N + 1]
    needed -= tf.gather(normaliser, line)[:, :, tf.newaxis]
    of_texts = lattice.build(needed, frames, labels, lengths)
    highest = tf.where(tf.sequence_mask(frames, time), of_texts.highest, 0.0)
    sums = lattice.sums(of_texts)
    possible = valid & (sums.total > 0.5 * LOG_ZERO)
    of_lines = Others(*(tf.transpose(tf.gather(value, line), [1, 0, 2]) for value in others))
    before = tf.concat([of_texts.start[tf.newaxis], sums.before[: time - 1]], axis=0)
    # Relative to all frames, in which another character has probabilities of its own.
    relative = tf.cumsum(tf.pad(tf.cast(tf.transpose(highest), tf.float64), [[1, 0], [0, 0]]))  # [T + 1, Q]
    before_scale = relative[:-1] + tf.pad(tf.cast(sums.before_scale[: time - 1], tf.float64), [[1, 0], [0, 0]])
    behind, behind_scale = sums.behind[1 : time + 1], tf.cast(sums.behind_scale[1 : time + 1], tf.float64) - relative[1:]
    # Of what is before a character, the states of its blank and of itself go together; of what is behind, itself and its blank.
    blank_before, label_before = _by_text(before[:, :-1], before_scale)
    label_behind, blank_behind = _by_text(behind[:, 1:], behind_scale)
    nothing = tf.fill([time, count, 1], tf.constant(LOG_ZERO, tf.float64))
    around = (
        blank_before,
        tf.concat([nothing, label_before], axis=2)[:, :, :-1],
        blank_behind,
        tf.concat([label_behind, nothing], axis=2)[:, :, 1:],
    )
    alternatives = _alternatives(around, of_lines, labels)
    agreement = tf.where(own & possible[:, tf.newaxis], tf.sigmoid(sums.total[:, tf.newaxis] - alternatives), 0.0)
    log_probability = tf.minimum(sums.total + tf.reduce_sum(highest, axis=1), 0.0)
    return Scores(tf.where(possible, log_probability, -float("inf")), agreement)


def _by_text(sums: tf.Tensor, scale: tf.Tensor) -> list[tf.Tensor]:
    """Separates sums [T, 2N, Q], with the scale [T, Q] that was subtracted, into every other state, float64[T, Q, N] each."""
    time, states, count = tf.unstack(tf.shape(sums))
    pairs = tf.transpose(tf.reshape(sums, [time, states // 2, 2, count]), [2, 0, 3, 1])
    return tf.unstack(tf.cast(pairs, tf.float64) + scale[:, :, tf.newaxis], 2)


def _alternatives(around: tuple[tf.Tensor, ...], others: Others, labels: tf.Tensor) -> tf.Tensor:
    """Sums over all texts that have another character in one place.

    Probabilities themselves are added and multiplied, in float64 and relative to the highest of 8 frames, so that none
    underflows: that takes a third of the operations that their logarithms take.

    Args:
      around: four of float64[T, Q, N]: the log of the sum over all paths that are in the blank in front of each character
        before a frame, and in the character in front; and over those that continue in the blank behind it after a frame, and
        in the character behind. The latter are relative to the highest of these frames.
      others: the characters that may be there, [T, Q, J + 1].
      labels: int32[Q, N], padded with the blank.

    Returns:
      float32[Q, N], the log of the sum over all characters in place of each but that itself, relative to the same.
    """
    count, longest = tf.unstack(tf.shape(labels))
    number = tf.shape(others.symbols)[2]
    # Frames come first, then texts, then alternatives, and characters last.
    by_frame = (*around, others.symbols, tf.exp(tf.cast(others.values, tf.float64)), others.place)
    chunks = tuple(_in_chunks(value, padding) for value, padding in zip(by_frame, [LOG_ZERO] * 4 + [0] * 3, strict=True))

    def probabilities(blanks: tf.Tensor, characters: tf.Tensor, scale: tf.Tensor, differs: tf.Tensor) -> tf.Tensor:
        """Returns the sum over paths to or from an alternative: not from an equal neighbour without a blank between."""
        blanks, characters = (tf.exp(value - scale)[:, :, tf.newaxis] for value in (blanks, characters))
        return blanks + characters * differs

    def advance(state: tuple[tf.Tensor, tf.Tensor, tf.Tensor], chunk: tuple[tf.Tensor, ...]) -> tuple:
        run, last_scale, _ = state  # [Q, J + 1, N], relative to the exponential of [Q, N]
        blank_before, before, blank_behind, behind, symbols, p, places = chunk
        scale = tf.reduce_max(tf.maximum(blank_before, before), axis=0)
        scale = tf.maximum(scale, last_scale + tf.math.log(tf.reduce_max(run, axis=1)))
        run = tf.math.multiply_no_nan(tf.exp(last_scale - scale)[:, tf.newaxis], run)
        scale_behind = tf.reduce_max(tf.maximum(blank_behind, behind), axis=0)
        # 1 where an alternative differs from a character, else 0.
        differs = tf.cast(symbols[:, :, :, tf.newaxis] != labels[:, tf.newaxis], tf.float64)  # [8, Q, J + 1, N]
        beside = tf.pad(differs, [[0, 0], [0, 0], [0, 0], [1, 1]], constant_values=1)
        entered = probabilities(blank_before, before, scale, beside[:, :, :, :-2])
        left = probabilities(blank_behind, behind, scale_behind, beside[:, :, :, 2:])
        emitted = differs * p[:, :, :, tf.newaxis]
        runs = []
        for place, into, emission in zip(*(tf.unstack(value, UNROLLED) for value in (places, entered, emitted)), strict=True):
            run = (tf.gather(run, place, batch_dims=1) + into) * emission
            runs.append(run)
        total = tf.reduce_sum(tf.stack(runs) * left, axis=[0, 2])
        return run, scale, tf.math.log(total) + scale + scale_behind

    nothing = tf.zeros([count, longest], tf.float64)
    start = (tf.zeros([count, number, longest], tf.float64), nothing, nothing)
    _, _, totals = tf.scan(advance, chunks, start)
    return tf.cast(tf.reduce_logsumexp(totals, axis=0), tf.float32)


def _in_chunks(by_frame: tf.Tensor, padding: float) -> tf.Tensor:
    """Returns [T, …] as [T / 8, 8, …]."""
    paddings = [[0, -tf.shape(by_frame)[0] % UNROLLED], *[[0, 0]] * (by_frame.shape.rank - 1)]
    padded = tf.pad(by_frame, paddings, constant_values=tf.cast(padding, by_frame.dtype))
    return tf.reshape(padded, tf.concat([[-1, UNROLLED], tf.shape(by_frame)[1:]], axis=0))
