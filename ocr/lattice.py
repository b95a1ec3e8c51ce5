"""The lattice of CTC: the states that the alignments of a label pass through, and sums over its paths.

Notation in docstrings and comments:

* B: batch size.
* T: number of frames, the time steps of the network's output; T' after padding, above T and a multiple of 8.
* N: largest label length in the batch; shorter labels are padded.
* S = 2N + 1: states: blank, first label, blank, second label, ..., blank.

Frames come first and lines last: a step from one frame to the next then works on whole rows of lines. Equation numbers are
those of Graves et al., see `ctc`.
"""

from typing import NamedTuple

import tensorflow as tf

LOG_ZERO = -1e30  # in place of log(0); finite, since the difference of two infinities would be NaN
UNROLLED = 8  # frames in one iteration of a loop that does little work for each


class Lattice(NamedTuple):
    """What each state of each line emits, and which states follow each other.

    A line begins in its first blank. After its own frames it stays in its last blank, which emits log(1) there, so that all
    paths end in that state after T' frames.

    Attributes:
      emitted: float32[T', S, B], the log of what a state emits; log(0) for a state that a line lacks.
      highest: float32[B, T], what was subtracted from all states of a frame.
      start: float32[S, B], log(1) for the first blank, else log(0).
      ends: float32[S, B], log(1) for a line's last blank, else log(0).
      skips: float32[S, B], log(1) for a state that may be entered from two states before: a label that differs from the one
        before it. Else log(0).
    """

    emitted: tf.Tensor
    highest: tf.Tensor
    start: tf.Tensor
    ends: tf.Tensor
    skips: tf.Tensor


class Sums(NamedTuple):
    """Sums over the paths through lattices.

    Attributes:
      total: float32[B], the log of the sum over all paths.
      before: float32[T', S, B], the log of the sum over the paths up to a state after each frame, the state's emission included
        (equations 6 and 7), less `before_scale`.
      before_scale: float32[T', B].
      behind: float32[T', S, B], the same over the paths from a state in each frame to the end (equations 10 and 11).
      behind_scale: float32[T', B].
    """

    total: tf.Tensor
    before: tf.Tensor
    before_scale: tf.Tensor
    behind: tf.Tensor
    behind_scale: tf.Tensor


def build(needed: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> Lattice:
    """Builds the lattices of labels.

    What a state emits is taken relative to the highest of the line's classes in the frame, so that sums over the lattice are
    close to 0, where float32 is precise, for a line that is read well.

    Args:
      needed: float32[B, T, N + 1], the logits, or log-probabilities, of each label and, last, of the blank.
      frames: int32[B], the number of frames of each line, at most T.
      labels: int32[B, N]; only which neighbours are equal counts.
      label_lengths: int32[B], at most N.
    """
    batch, time, length = tf.shape(needed)[0], tf.shape(needed)[1], tf.shape(labels)[1]
    highest = tf.maximum(tf.reduce_max(needed, axis=2), LOG_ZERO)
    by_frame = tf.transpose(tf.maximum(needed - highest[:, :, tf.newaxis], LOG_ZERO), [1, 2, 0])  # [T, N + 1, B]
    state = tf.range(2 * length + 1)[:, tf.newaxis]
    ends = tf.where(state == 2 * label_lengths, 0.0, LOG_ZERO)
    within = tf.range(time)[:, tf.newaxis, tf.newaxis] < frames  # [T, 1, B]
    emitted = tf.where(state <= 2 * label_lengths, interleave(by_frame), LOG_ZERO)
    emitted = tf.where(within, emitted, ends)
    padding = tf.broadcast_to(ends, [UNROLLED - time % UNROLLED, 2 * length + 1, batch])
    return Lattice(tf.concat([emitted, padding], axis=0), highest, start(labels), ends, skips(labels))


def interleave(by_class: tf.Tensor) -> tf.Tensor:
    """Returns values of classes [T, N + 1, B], those of the blank last, as values of states [T, S, B]."""
    labels, blank = by_class[:, :-1], by_class[:, -1:]
    pairs = tf.stack([tf.broadcast_to(blank, tf.shape(labels)), labels], axis=2)  # [T, N, 2, B]
    time, length, _, batch = tf.unstack(tf.shape(pairs))
    return tf.concat([tf.reshape(pairs, [time, 2 * length, batch]), blank], axis=1)


def start(labels: tf.Tensor) -> tf.Tensor:
    """Returns the log of the distribution over states before the first frame, float32[S, B]: a line is in its first blank."""
    batch, length = tf.unstack(tf.shape(labels))
    return tf.concat([tf.zeros([1, batch]), tf.fill([2 * length, batch], LOG_ZERO)], axis=0)


def skips(labels: tf.Tensor) -> tf.Tensor:
    """Returns which skips the labels int32[B, N] permit, float32[S, B]: see `Lattice`."""
    batch, length = tf.unstack(tf.shape(labels))
    differs = tf.transpose(tf.where(labels[:, 1:] == labels[:, :-1], LOG_ZERO, 0.0))
    never = tf.fill([1, batch], LOG_ZERO)  # tf.pad with a constant pads with 0 inside tf.vectorized_map
    into_labels = tf.concat([never, differs], axis=0)[:length]
    into_both = tf.stack([tf.fill([length, batch], LOG_ZERO), into_labels], axis=1)
    return tf.concat([tf.reshape(into_both, [2 * length, batch]), never], axis=0)


def sums(lattice: Lattice) -> Sums:
    """Sums over the paths through lattices, in both directions at once.

    Backwards, the lattice is the same with its states and frames in reverse; a line waits in its last blank until its own
    frames begin.
    """
    batch = tf.shape(lattice.ends)[1]
    # A skip from s - 2 to s is one from S - 1 - s to S + 1 - s.
    reversed_skips = tf.concat([tf.fill([2, batch], LOG_ZERO), tf.reverse(lattice.skips[2:], [0])], axis=0)
    both, scales = _forward(
        tf.concat([lattice.emitted, tf.reverse(lattice.emitted, [0, 1])], axis=2),
        tf.concat([lattice.start, tf.reverse(lattice.ends, [0])], axis=1),
        tf.concat([lattice.skips, reversed_skips[: tf.shape(lattice.skips)[0]]], axis=1),
    )
    before, before_scale = both[:, :, :batch], scales[:, :batch]
    # The others are far below: in the last state a line's paths have met.
    total = tf.reduce_max(before[-1] + lattice.ends, axis=0) + before_scale[-1]
    return Sums(total, before, before_scale, tf.reverse(both[:, :, batch:], [0, 1]), tf.reverse(scales[:, batch:], [0]))


def total(lattice: Lattice) -> tf.Tensor:
    """Returns `sums(lattice).total` alone, for half of the work."""
    before, scale = _forward(lattice.emitted, lattice.start, lattice.skips)
    return tf.reduce_max(before[-1] + lattice.ends, axis=0) + scale[-1]


def transitions(before: tf.Tensor, skips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the transitions into each state, from itself, from the one before and from two before: float32[S, B] each.

    Args:
      before: float32[S, B], logarithms.
      skips: float32[S, B], of a `Lattice`.
    """
    never = skips[:1]  # the first state is entered from none before it
    earlier = tf.concat([never, never, before], axis=0)
    return before, earlier[1:-1], earlier[:-2] + skips


def log_sum_exp(*terms: tf.Tensor) -> tf.Tensor:
    """Returns the log of the sum of the terms' exponentials, elementwise."""
    highest = terms[0]
    for term in terms[1:]:
        highest = tf.maximum(highest, term)
    highest = tf.stop_gradient(highest)
    return highest + tf.math.log(tf.add_n([tf.exp(term - highest) for term in terms]))


def _forward(emitted: tf.Tensor, before: tf.Tensor, skips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the forward variables (equations 6 and 7).

    They are kept close to 0, where float32 is precise: every few frames the highest of a line's states is subtracted from all.

    Args:
      emitted: float32[T', S, B].
      before: float32[S, B], the log of the distribution before the first frame.
      skips: float32[S, B].

    Returns:
      float32[T', S, B], the log of the sum over all paths that are in a state after each frame, less what was subtracted until
      then; and that, float32[T', B].
    """
    states, batch = tf.unstack(tf.shape(before))

    def advance(last: tf.Tensor, chunk: tf.Tensor) -> tf.Tensor:
        # The gradient of what is subtracted is 0: the posterior probabilities, which alone have one, do not depend on it.
        now = last[-1] - tf.stop_gradient(tf.reduce_max(last[-1], axis=0))
        after = []
        for emission in tf.unstack(chunk, UNROLLED):
            now = log_sum_exp(*transitions(now, skips)) + emission
            after.append(now)
        return tf.stack(after)

    chunks = tf.reshape(emitted, [-1, UNROLLED, states, batch])
    after = tf.scan(advance, chunks, tf.broadcast_to(before, [UNROLLED, states, batch]))
    subtracted = tf.cumsum(tf.reduce_max(after[:, -1], axis=1), axis=0, exclusive=True)  # [T' / 8, B]
    return tf.reshape(after, [-1, states, batch]), tf.repeat(subtracted, UNROLLED, axis=0)
