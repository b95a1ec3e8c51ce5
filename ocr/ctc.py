"""The CTC loss, the probability of a label, and forced alignment. The blank is the last class, C - 1.

Notation in docstrings and comments:

* B: batch size.
* T: number of frames, the time steps of the network's output.
* C: number of classes, the blank included.
* N: largest label length in the batch; shorter labels are padded.
* S = 2N + 1: states of the lattice of a label: see `lattice`.

Source: Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with Recurrent Neural
Networks", ICML 2006. Equation numbers in this module are those of that paper.
"""

from collections.abc import Callable

import tensorflow as tf

from ocr import lattice
from ocr.lattice import LOG_ZERO, UNROLLED

_MANY = 512  # classes: with fewer, a matrix product is faster than to look each class up


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
        columns, needed = _needed(values, labels)
        of_labels = lattice.build(needed, frames, labels, label_lengths)
        sums = lattice.sums(of_labels)
        impossible = (sums.total < 0.5 * LOG_ZERO) | ~valid
        time = tf.shape(values)[1]
        within = tf.sequence_mask(frames, time)
        likeliest = tf.gather(columns, tf.argmax(needed, axis=2), batch_dims=1)  # [B, T]
        p_likeliest = tf.gather(softmax, likeliest, batch_dims=2)
        nll = tf.where(within, _nll(tf.where(within, p_likeliest, 1.0), of_labels.highest, values, softmax), 0.0)
        losses = tf.reduce_sum(nll, axis=1) - sums.total

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            weight = tf.where(impossible, 0.0, tf.cast(upstream, tf.float32))[:, tf.newaxis]
            # The gradient takes the place of the softmax once nothing else needs that; it may come after all of the lattice.
            with tf.control_dependencies([nll]):
                weight = tf.where(within, weight, 0.0)[:, :, tf.newaxis]  # [B, T, 1]
            # The sum over all paths through each state. In each frame a line is in one of the states: the softmax needs no
            # total, whose rounding would be in each of them.
            through = (sums.before + sums.behind - of_labels.emitted)[:time]
            posterior = tf.math.multiply_no_nan(tf.nn.softmax(tf.transpose(through, [2, 0, 1])), weight)  # [B, T, S]
            blanks = tf.reduce_sum(posterior[:, :, ::2], axis=2, keepdims=True)
            posterior = tf.concat([posterior[:, :, 1::2], blanks], axis=2)  # [B, T, N + 1], in the order of the columns
            difference = _difference(softmax, weight, columns, posterior)
            # A weight of 0 gives 0, also where the softmax is NaN. The second pass, rarely needed, would take time.
            # If one class is NaN, the others are NaN or 0, depending on the processor.
            numbers = tf.reduce_all(p_likeliest > 0.0)
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
    columns, needed = _needed(logits, labels)
    # In a frame of minus infinity only the softmax is NaN, although every class is ruled out.
    p = tf.gather(tf.nn.softmax(logits), columns, batch_dims=1, axis=2)  # [B, T, N + 1]
    p = tf.where(needed == -float("inf"), 0.0, p)
    batch, time, length = tf.shape(p)[0], tf.shape(p)[1], tf.shape(labels)[1]
    # Frames beyond a line's own are blank with probability 1, so each line ends in its last state.
    certain = tf.one_hot(length, length + 1)
    p = tf.where(tf.sequence_mask(frames, time)[:, :, tf.newaxis], p, certain)
    padding = tf.broadcast_to(certain, [batch, UNROLLED - time % UNROLLED, length + 1])
    emitted = lattice.interleave(tf.transpose(tf.concat([p, padding], axis=1), [1, 2, 0]))  # [T', S, B]
    start, skips = (tf.exp(value) for value in (lattice.start(labels), lattice.skips(labels)))
    minus_skips = -skips

    def advance(before: tf.Tensor, chunk: tf.Tensor) -> tf.Tensor:
        for emission in tf.unstack(chunk, UNROLLED):
            earlier = tf.pad(before, [[2, 0], [0, 0]])
            # Not a sum of three: TensorFlow makes that an AddN, and one in a loop may fail where memory runs short.
            before = (before + earlier[1:-1] - earlier[:-2] * minus_skips) * emission
        return before

    chunks = tf.reshape(emitted, [-1, UNROLLED, 2 * length + 1, batch])
    total = tf.gather(tf.transpose(tf.foldl(advance, chunks, start)), 2 * label_lengths, batch_dims=1)
    return tf.where(valid, tf.minimum(total, 1.0), 0.0)


def log_probability(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Computes -`loss`, the logarithm of `probability` where that underflows too, without a gradient.

    An exported graph takes this one: TensorFlow never frees a SavedModel that has gradients of its own.

    Args:
      logits: float[B, T, C], unnormalised; computed in float32. The blank is class C - 1.
      frames: int[B], the number of frames of each line, at most T; frames beyond are ignored, whatever they hold.
      labels: int[B, N], classes from 0 to C - 2; entries beyond a label's length are ignored.
      label_lengths: int[B], the length of each label; may be 0.

    Returns:
      float32[B], at most 0; minus infinity where the label has no alignment or a class that is ruled out, or the label or a
      length is invalid, as in `loss`. Else it is NaN where a logit is NaN or plus infinity.

    Raises:
      TypeError: labels or lengths are not integers, or the logits not floating-point numbers.
    """
    values = tf.cast(_floats(logits), tf.float32)
    frames, labels, label_lengths, valid = _checked(values, frames, labels, label_lengths)
    of_labels = lattice.build(_needed(values, labels)[1], frames, labels, label_lengths)
    total = lattice.total(of_labels)
    impossible = (total < 0.5 * LOG_ZERO) | ~valid
    within = tf.sequence_mask(frames, tf.shape(values)[1])
    total -= tf.reduce_sum(tf.where(within, tf.reduce_logsumexp(values, axis=2) - of_labels.highest, 0.0), axis=1)
    return tf.where(impossible, -float("inf"), tf.minimum(total, 0.0))


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
    columns, needed = _needed(tf.cast(logits, tf.float32), labels)
    of_labels = lattice.build(needed, frames, labels, label_lengths)
    time = tf.shape(logits)[1]

    def forward(before: tuple[tf.Tensor, tf.Tensor], emission: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        paths = tf.stack(lattice.transitions(before[0], of_labels.skips))
        return tf.reduce_max(paths, axis=0) + emission, tf.argmax(paths, axis=0, output_type=tf.int32)

    best, moves = tf.scan(forward, of_labels.emitted[:time], (of_labels.start, tf.zeros_like(of_labels.start, tf.int32)))
    at_end = tf.gather(tf.transpose(best, [2, 0, 1]), tf.maximum(frames - 1, 0), batch_dims=1)  # [B, S]
    last_blank = 2 * label_lengths
    last_label = tf.maximum(last_blank - 1, 0)
    ends_in_blank = tf.gather(at_end, last_blank, batch_dims=1) > tf.gather(at_end, last_label, batch_dims=1)
    end = tf.where(ends_in_blank, last_blank, last_label)

    def back(after: tuple[tf.Tensor, tf.Tensor], frame: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        number, move = frame
        state = tf.where(number < frames - 1, after[1], end)
        return state, tf.maximum(state - tf.gather(move, state, batch_dims=1), 0)  # below 0 only with a NaN

    moves = tf.transpose(moves, [0, 2, 1])
    states = tf.transpose(tf.scan(back, (tf.range(time), moves), (end, end), reverse=True)[0])  # [B, T]
    length = tf.shape(labels)[1]
    column = tf.where((states % 2 == 1) & tf.sequence_mask(frames, time), states // 2, length)
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
        # A cast of int32 would clip it to the range that it has, with an op that LiteRT lacks.
        tensors.append(tensor if tensor.dtype == tf.int32 else tf.saturate_cast(tensor, tf.int32))
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


def _needed(values: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the classes that each line needs, int32[B, N + 1] with the blank last; and their values, float32[B, T, N + 1].

    Args:
      values: float32[B, T, C].
      labels: int32[B, N].
    """
    columns = tf.concat([labels, tf.fill([tf.shape(labels)[0], 1], tf.shape(values)[2] - 1)], axis=1)
    return columns, tf.gather(values, columns, batch_dims=1, axis=2)


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
    if (softmax.shape[2] or _MANY) < _MANY:
        return softmax * weight - tf.matmul(posterior, tf.one_hot(columns, softmax.shape[2]))
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
