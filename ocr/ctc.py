"""The CTC loss, the probability of a label, and forced alignment. The blank is the last class, C - 1.

Notation in docstrings and comments:

* B: batch size.
* T: number of frames, the time steps of the network's output.
* C: number of classes, the blank included.
* N: largest label length in the batch; shorter labels are padded.
* S = 2N + 1: states of the lattice (the trellis of the forward-backward algorithm): blank, first label, blank, second label,
  ..., blank.

Source: Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with Recurrent Neural
Networks", ICML 2006. Equation numbers in this module are those of that paper.
"""

from collections.abc import Callable

import tensorflow as tf

_LOG_ZERO = -1e30  # in place of log(0); finite, since the difference of two infinities would be NaN
_UNROLLED = 8  # frames in one iteration of a loop that does little work for each


def feasible(frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Tells which labels have at least one alignment.

    An alignment needs a frame for each character, and a blank frame between any two equal neighbours.

    Args:
      frames: int[B], the number of frames of each line, at most T.
      labels: int[B, N], classes; entries beyond a label's length are ignored.
      label_lengths: int[B], the length of each label; may be 0.

    Returns:
      bool[B], whether `loss` is finite for the line, given valid classes and logits; false for a length below 0 or above N.

    Raises:
      TypeError: labels or lengths are not integers.
    """
    frames, labels, label_lengths = _integers(frames=frames, labels=labels, label_lengths=label_lengths)
    within = tf.sequence_mask(label_lengths, tf.shape(labels)[1])[:, 1:]
    repeats = tf.logical_and(labels[:, 1:] == labels[:, :-1], within)
    possible = (label_lengths >= 0) & (label_lengths <= tf.shape(labels)[1])
    return possible & (label_lengths + tf.reduce_sum(tf.cast(repeats, tf.int32), 1) <= frames)


def loss(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Computes the CTC loss of each line: -log p(label | logits), summed over all alignments (equations 3 and 12).

    The gradient with respect to the logits is computed by the forward-backward algorithm: softmax minus the posterior
    probability of each class in each frame (equation 16). Memory: the softmax, which is turned into the gradient in place, is
    the only intermediate as large as the logits.

    The loss applies a softmax itself. Probabilities passed as logits put a floor under the loss close to its value before
    training, since no class can then exceed e / (e + C - 1).

    Args:
      logits: float[B, T, C], unnormalised; computed in float32. The blank is class C - 1. A class may be ruled out by minus
        infinity.
      frames: int[B], the number of frames of each line, at most T; frames beyond are ignored, whatever they hold.
      labels: int[B, N], classes from 0 to C - 2; entries beyond a label's length are ignored.
      label_lengths: int[B], the length of each label; may be 0.

    Returns:
      float32[B], the loss in nats, neither averaged over the batch nor divided by a length. It is infinite where the label
      has no alignment (see `feasible`) or has a class that is ruled out, and where the label or a length is invalid: a class
      that is the blank, below 0 or above C - 1, a label length below 0 or above N, frames below 0 or above T. Else it is NaN
      where a logit is NaN or plus infinity. The gradient has the dtype of `logits`; it is zero for a line with an infinite
      loss, and on frames beyond a line's own. No line changes the loss or the gradient of another.

    Raises:
      TypeError: labels or lengths are not integers, or the logits not floating-point numbers.
    """
    logits = _floats(logits)
    frames, labels, label_lengths, valid = _checked(logits, frames, labels, label_lengths)

    @tf.custom_gradient
    def with_gradient(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        values = tf.cast(logits, tf.float32)
        softmax = tf.nn.softmax(values)
        columns, likeliest, highest, emitted = _lattice(values, frames, labels, label_lengths)
        alpha, scale = _alpha(emitted, labels)  # [B, T + 1, S], [B, T + 1]
        at_end = tf.gather(alpha, frames, batch_dims=1)  # [B, S]
        last_blank = tf.gather(at_end, 2 * label_lengths, batch_dims=1)
        last_label = tf.gather(at_end, tf.maximum(2 * label_lengths - 1, 0), batch_dims=1)
        total = _log_sum_exp(last_blank, tf.where(label_lengths > 0, last_label, _LOG_ZERO))
        total += tf.gather(scale, frames, batch_dims=1)
        impossible = (total < 0.5 * _LOG_ZERO) | ~valid
        within = tf.sequence_mask(frames, tf.shape(values)[1])
        p_likeliest = tf.gather(softmax, likeliest, batch_dims=2)  # [B, T]
        nll = tf.where(within, _nll(tf.where(within, p_likeliest, 1.0), highest, values, softmax), 0.0)
        losses = tf.reduce_sum(nll, axis=1) - total

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            beta = _beta(emitted, frames, labels, label_lengths)  # [B, T, S]
            weight = tf.where(impossible, 0.0, tf.cast(upstream, tf.float32))[:, tf.newaxis]
            weight = tf.where(within, weight, 0.0)[:, :, tf.newaxis]  # [B, T, 1]
            # In each frame a line is in one of the states: the softmax needs no total, whose rounding would be in each of them.
            posterior = tf.math.multiply_no_nan(tf.nn.softmax(alpha[:, 1:] + beta - emitted), weight)
            blanks = tf.reduce_sum(posterior[:, :, ::2], axis=2, keepdims=True)
            posterior = tf.concat([posterior[:, :, 1::2], blanks], axis=2)  # [B, T, N + 1], in the order of the columns
            difference = _difference(softmax, weight, columns, posterior)
            # A weight of 0 gives 0, also where the softmax is NaN. The second pass, rarely needed, would take time.
            numbers = tf.reduce_all(tf.math.is_finite(p_likeliest))
            difference = tf.cond(numbers, lambda: difference, lambda: tf.where(weight == 0.0, 0.0, difference))
            return tf.cast(difference, logits.dtype)

        return tf.where(impossible, float("inf"), losses), gradient

    return with_gradient(logits)


def probability(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Computes the probability of each line's label, exp(-loss), summed over all alignments (equation 3).

    It is faster than `loss`, since it works with probabilities instead of their logarithms, and has no gradient.

    Args:
      logits: float[B, T, C], unnormalised; computed in float32. The blank is class C - 1.
      frames: int[B], the number of frames of each line, at most T; frames beyond are ignored, whatever they hold.
      labels: int[B, N], classes from 0 to C - 2; entries beyond a label's length are ignored.
      label_lengths: int[B], the length of each label; may be 0.

    Returns:
      float32[B], from 0 to 1; 0 where the probability underflows float32, below 1e-38, and where the label has no alignment
      or a class that is ruled out, or the label or a length is invalid, as in `loss`. Else it is NaN where a logit is NaN or
      plus infinity.

    Raises:
      TypeError: labels or lengths are not integers, or the logits not floating-point numbers.
    """
    logits = tf.cast(_floats(logits), tf.float32)
    frames, labels, label_lengths, valid = _checked(logits, frames, labels, label_lengths)
    batch, time, blank = tf.shape(logits)[0], tf.shape(logits)[1], tf.shape(logits)[2] - 1
    length = tf.shape(labels)[1]
    columns = tf.concat([labels, tf.fill([batch, 1], blank)], axis=1)
    emitted = tf.gather(tf.nn.softmax(logits), columns, batch_dims=1, axis=2)  # [B, T, N + 1]

    def without_ruled_out() -> tf.Tensor:
        return tf.where(tf.gather(logits, columns, batch_dims=1, axis=2) == -float("inf"), 0.0, emitted)

    # In a frame of minus infinity only the softmax is NaN, although every class is ruled out.
    emitted = tf.cond(tf.reduce_any(tf.math.is_nan(emitted)), without_ruled_out, lambda: emitted)
    # Frames beyond a line's own are blank with probability 1, so each line ends in its last state.
    certain = tf.one_hot(length, length + 1)
    emitted = tf.where(tf.sequence_mask(frames, time)[:, :, tf.newaxis], emitted, certain)
    padding = tf.broadcast_to(certain, [batch, _UNROLLED - time % _UNROLLED, length + 1])
    states = tf.range(2 * length + 1)
    emitted = tf.gather(tf.concat([emitted, padding], axis=1), tf.where(states % 2 == 1, states // 2, length), axis=2)
    chunks = tf.reshape(tf.transpose(emitted, [1, 0, 2]), [-1, _UNROLLED, batch, 2 * length + 1])  # [T / 8, 8, B, S]
    start, skips = (tf.exp(value) for value in _start_and_skips(emitted, labels))
    minus_skips = -skips

    def advance(before: tf.Tensor, chunk: tf.Tensor) -> tf.Tensor:
        for emission in tf.unstack(chunk, _UNROLLED):
            earlier = tf.pad(before, [[0, 0], [2, 0]])
            # Not a sum of three: TensorFlow makes that an AddN, and one in a loop may fail where memory runs short.
            before = (before + earlier[:, 1:-1] - earlier[:, :-2] * minus_skips) * emission
        return before

    total = tf.gather(tf.foldl(advance, chunks, start), 2 * label_lengths, batch_dims=1)
    return tf.where(valid, tf.minimum(total, 1.0), 0.0)


def align(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Finds the most probable alignment of each line's label (forced alignment by the Viterbi algorithm).

    Args:
      logits: float[B, T, C], unnormalised, with T at least 1; the blank is class C - 1.
      frames: int[B], the number of frames of each line, at most T.
      labels: int[B, N], classes from 0 to C - 2; entries beyond a label's length are ignored.
      label_lengths: int[B], the length of each label.

    Returns:
      int32[B, T], the class of each frame; the blank on frames beyond a line's own, and in all frames of a line whose label
      has no alignment or that is invalid, as in `loss`. A line with a NaN gets some path, which means nothing.

    Raises:
      TypeError: labels or lengths are not integers, or the logits not floating-point numbers.
    """
    logits = _floats(logits)
    frames, labels, label_lengths, _ = _checked(logits, frames, labels, label_lengths)
    columns, _, _, emitted = _lattice(tf.cast(logits, tf.float32), frames, labels, label_lengths)
    unreached = tf.fill([tf.shape(labels)[0], 2], _LOG_ZERO)
    start, skips = _start_and_skips(emitted, labels)

    def forward(before: tuple[tf.Tensor, tf.Tensor], emission: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        paths = tf.stack(_transitions(before[0], skips, unreached))
        return tf.reduce_max(paths, axis=0) + emission, tf.argmax(paths, axis=0, output_type=tf.int32)

    best, moves = tf.scan(forward, tf.transpose(emitted, [1, 0, 2]), (start, tf.zeros_like(start, tf.int32)))
    at_end = tf.gather(tf.transpose(best, [1, 0, 2]), tf.maximum(frames - 1, 0), batch_dims=1)  # [B, S]
    last_blank = 2 * label_lengths
    last_label = tf.maximum(last_blank - 1, 0)
    ends_in_blank = tf.gather(at_end, last_blank, batch_dims=1) > tf.gather(at_end, last_label, batch_dims=1)
    end = tf.where(ends_in_blank, last_blank, last_label)

    def back(after: tuple[tf.Tensor, tf.Tensor], frame: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        time, move = frame
        state = tf.where(time < frames - 1, after[1], end)
        return state, tf.maximum(state - tf.gather(move, state, batch_dims=1), 0)  # below 0 only with a NaN

    times = tf.range(tf.shape(moves)[0])
    states = tf.transpose(tf.scan(back, (times, moves), (end, end), reverse=True)[0])  # [B, T]
    length = tf.shape(labels)[1]
    column = tf.where((states % 2 == 1) & tf.sequence_mask(frames, tf.shape(states)[1]), states // 2, length)
    return tf.gather(columns, column, batch_dims=1)


def _floats(logits: tf.Tensor) -> tf.Tensor:
    """Returns logits as a tensor, and refuses any that are not floating-point numbers."""
    logits = tf.convert_to_tensor(logits)
    if not logits.dtype.is_floating:
        raise TypeError(f"logits must be floating-point, not {logits.dtype.name}: convert with tf.cast(logits, tf.float32)")
    return logits


def _integers(**arguments: tf.Tensor) -> list[tf.Tensor]:
    """Returns labels and lengths as int32, and refuses any that are not integers, which a cast would round silently."""
    tensors = []
    for name, value in arguments.items():
        # The hint makes integers of empty lists, but would round an array of floats.
        tensor = tf.convert_to_tensor(value, dtype_hint=tf.int32 if isinstance(value, list | tuple) else None)
        if not tensor.dtype.is_integer:
            raise TypeError(f"{name} must be integers, not {tensor.dtype.name}: convert with tf.cast({name}, tf.int32)")
        tensors.append(tf.saturate_cast(tensor, tf.int32))
    return tensors


def _checked(
    logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Makes all indices valid: one that is out of bounds raises on a CPU, but reads some other entry under XLA or on a GPU.

    Returns:
      The frames, int32[B], the labels, int32[B, N] padded with the blank, and their lengths, int32[B]: an empty label in no
      frames for a line that has no alignment or is invalid; and which lines are neither, bool[B].
    """
    frames, labels, label_lengths = _integers(frames=frames, labels=labels, label_lengths=label_lengths)
    time, blank = tf.shape(logits)[1], tf.shape(logits)[2] - 1
    own = tf.sequence_mask(label_lengths, tf.shape(labels)[1])
    classes = tf.reduce_all(~own | (labels >= 0) & (labels < blank), axis=1)
    valid = classes & feasible(frames, labels, label_lengths) & (frames <= time)
    # The results are new tensors: a custom gradient inside a tf.cond or a loop cannot use one from outside.
    labels = tf.where(own & valid[:, tf.newaxis], labels, blank)
    return tf.where(valid, frames, 0), labels, tf.where(valid, label_lengths, 0), valid


def _nll(likeliest: tf.Tensor, highest: tf.Tensor, values: tf.Tensor, softmax: tf.Tensor) -> tf.Tensor:
    """Returns -log of a probability, float32[B, T], also where the probability itself underflows float32.

    Args:
      likeliest: float32[B, T], the probability of a class.
      highest: float32[B, T], the logit of that class.
      values: float32[B, T, C], the logits of all classes.
      softmax: float32[B, T, C], the probabilities of all classes.
    """

    def relative_to_best_class() -> tf.Tensor:
        return tf.reduce_max(values, axis=2) - highest - tf.math.log(tf.reduce_max(softmax, axis=2))

    return tf.cond(tf.reduce_any(likeliest < 1e-30), relative_to_best_class, lambda: -tf.math.log(likeliest))


def _lattice(
    values: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns what each state of a line's lattice emits in each frame, given the results of `_checked`.

    Only the classes of a line's label and the blank are needed. Their logits are taken relative to the highest of them in the
    frame, so that sums over the lattice are close to 0, where float32 is precise, for a line that is read well.

    Returns:
      The classes that a line needs, int32[B, N + 1] with the blank last; that of them with the highest logit, int32[B, T]; that
      logit, float32[B, T]; and, relative to it, the logit of the class that each state emits, float32[B, T, S]; log(0) beyond
      the line's states and frames.
    """
    batch, length = tf.shape(labels)[0], tf.shape(labels)[1]
    blank = tf.shape(values)[2] - 1
    columns = tf.concat([labels, tf.fill([batch, 1], blank)], axis=1)
    needed = tf.gather(values, columns, batch_dims=1, axis=2)  # [B, T, N + 1]
    likeliest = tf.gather(columns, tf.argmax(needed, axis=2), batch_dims=1)
    highest = tf.maximum(tf.reduce_max(needed, axis=2), _LOG_ZERO)
    states = tf.range(2 * length + 1)
    emitted = tf.gather(needed - highest[:, :, tf.newaxis], tf.where(states % 2 == 1, states // 2, length), axis=2)
    exists = tf.sequence_mask(2 * label_lengths + 1, 2 * length + 1)[:, tf.newaxis]
    exists &= tf.sequence_mask(frames, tf.shape(values)[1])[:, :, tf.newaxis]
    return columns, likeliest, highest, tf.where(exists, tf.maximum(emitted, _LOG_ZERO), _LOG_ZERO)


def _start_and_skips(emitted: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the log of the initial distribution over states and of the permitted skips, float32[B, S] each.

    Before the first frame a line is in its first blank. A state may be entered from two states before, skipping the blank
    between, if it is a label that differs from the label before it: log(1), else log(0).
    """
    batch, states = tf.shape(emitted)[0], tf.shape(emitted)[2]
    start = tf.concat([tf.zeros([batch, 1]), tf.fill([batch, states - 1], _LOG_ZERO)], axis=1)
    unreached = tf.fill([batch, 1], _LOG_ZERO)  # tf.pad with a constant pads with 0 inside tf.vectorized_map
    into_labels = tf.concat([unreached, tf.where(labels[:, 1:] == labels[:, :-1], _LOG_ZERO, 0.0)], axis=1)
    into_labels = into_labels[:, : tf.shape(labels)[1]]
    skips = tf.stack([tf.fill(tf.shape(labels), _LOG_ZERO), into_labels], axis=2)
    return start, tf.concat([tf.reshape(skips, [batch, states - 1]), unreached], axis=1)


def _transitions(before: tf.Tensor, skips: tf.Tensor, unreached: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the transitions into each state, from itself, from the one before and from two before: float32[B, S] each.

    Args:
      before: float32[B, S].
      skips: float32[B, S], of `_start_and_skips`.
      unreached: log(0), float32[B, 2], for what is before the first state.
    """
    earlier = tf.concat([unreached, before], axis=1)
    return before, earlier[:, 1:-1], earlier[:, :-2] + skips


def _alpha(emitted: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the forward variables (equations 6 and 7).

    They are kept close to 0, where float32 is precise: every few frames the highest of a line's states is subtracted from all.

    Args:
      emitted: float32[B, T, S], of `_lattice`.
      labels: int32[B, N].

    Returns:
      float32[B, T + 1, S], the log of the sum over all paths that are in a state after 0 to T frames, less what was subtracted
      until then; and that, float32[B, T + 1].
    """
    start, skips = _start_and_skips(emitted, labels)
    batch, time, states = tf.unstack(tf.shape(emitted))
    unreached = tf.fill([batch, 2], _LOG_ZERO)
    padding = tf.fill([batch, _UNROLLED - time % _UNROLLED, states], _LOG_ZERO)
    chunks = tf.transpose(tf.concat([emitted, padding], axis=1), [1, 0, 2])
    chunks = tf.reshape(chunks, [-1, _UNROLLED, batch, states])  # [T / 8, 8, B, S]

    def advance(before: tf.Tensor, chunk: tf.Tensor) -> tf.Tensor:
        # The gradient of what is subtracted is 0: the posterior probabilities, which alone have one, do not depend on it.
        last = before[-1] - tf.stop_gradient(tf.reduce_max(before[-1], axis=1, keepdims=True))
        after = []
        for emission in tf.unstack(chunk, _UNROLLED):
            last = _log_sum_exp(*_transitions(last, skips, unreached)) + emission
            after.append(last)
        return tf.stack(after)

    after = tf.scan(advance, chunks, tf.broadcast_to(start, [_UNROLLED, batch, states]))
    subtracted = tf.cumsum(tf.reduce_max(after[:, -1], axis=2), axis=0, exclusive=True)  # [T / 8, B]
    scale = tf.concat([tf.zeros([1, batch]), tf.repeat(subtracted, _UNROLLED, axis=0)[:time]], axis=0)
    alpha = tf.concat([start[tf.newaxis], tf.reshape(after, [-1, batch, states])[:time]], axis=0)
    return tf.transpose(alpha, [1, 0, 2]), tf.transpose(scale)


def _beta(emitted: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Computes the backward variables (equations 10 and 11), as the forward variables of the reversed line.

    Returns:
      float32[B, T, S], the log of the sum over all paths from a state to the end, the emission of the state included, less
      the same number for all states of a frame.
    """

    def reverse(lattice: tf.Tensor) -> tf.Tensor:
        return tf.reverse_sequence(tf.reverse_sequence(lattice, frames, 1), 2 * label_lengths + 1, 2)

    # GPUs reverse only floating-point numbers, which are exact for classes: integers would go through the host's memory.
    reversed_labels = tf.cast(tf.reverse_sequence(tf.cast(labels, tf.float32), label_lengths, 1), tf.int32)
    alpha, _ = _alpha(reverse(emitted), reversed_labels)
    return reverse(alpha[:, 1:])


def _log_sum_exp(*terms: tf.Tensor) -> tf.Tensor:
    """Returns the log of the sum of the terms' exponentials, elementwise."""
    highest = terms[0]
    for term in terms[1:]:
        highest = tf.maximum(highest, term)
    return highest + tf.math.log(tf.add_n([tf.exp(term - highest) for term in terms]))


def _difference(softmax: tf.Tensor, weight: tf.Tensor, columns: tf.Tensor, posterior: tf.Tensor) -> tf.Tensor:
    """Returns the softmax times a weight, less the posterior probabilities of the classes that a line needs.

    Args:
      softmax: float32[B, T, C].
      weight: float32[B, T, 1].
      columns: int32[B, N + 1], classes.
      posterior: float32[B, T, N + 1], of these classes, times the weight; those of the same class add up.

    Returns:
      float32[B, T, C].
    """
    shape = tf.shape(posterior)
    batch = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis, tf.newaxis], shape)
    time = tf.broadcast_to(tf.range(shape[1])[:, tf.newaxis], shape)
    indices = tf.stack([batch, time, tf.broadcast_to(columns[:, tf.newaxis], shape)], axis=3)

    def in_place() -> tf.Tensor:
        return tf.raw_ops.ScatterNdNonAliasingAdd(input=softmax * weight, indices=indices, updates=-posterior)

    def elsewhere() -> tf.Tensor:
        return tf.tensor_scatter_nd_sub(softmax * weight, indices, posterior)

    # On CPUs the second op copies its first argument; XLA, which takes the default here, does not know the first op.
    return tf.switch_case(tf.raw_ops.DeviceIndex(device_names=["CPU"]), [in_place], elsewhere)
