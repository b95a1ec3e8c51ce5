"""The CTC loss (Graves et al., 2006, "Connectionist temporal classification"), for logits with the blank last.

Shapes: B lines, T frames, C classes with the blank, N label length, S = 2N + 1 states of a line's lattice: blank, first
label, blank, second label, ..., blank.
"""

import tensorflow as tf

_NEVER = -1e30  # stands for the logarithm of 0; finite, so that differences of two stay numbers
_AT_ONCE = 8  # frames in a turn of a loop that does little with each


def feasible(frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Says which lines can be aligned at all: equal neighbours need a blank frame between them.

    Args:
      frames: int32[B].
      labels: int32[B, N], padded with anything.
      label_lengths: int32[B].

    Returns:
      bool[B].
    """
    within = tf.sequence_mask(label_lengths, tf.shape(labels)[1])[:, 1:]
    repeats = tf.logical_and(labels[:, 1:] == labels[:, :-1], within)
    return label_lengths + tf.reduce_sum(tf.cast(repeats, tf.int32), 1) <= frames


def loss(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Computes minus the logarithm of the probability of each line's label, summed over all alignments.

    The gradient comes with it: softmax minus the posterior of each class in each frame (Graves et al., equation 16). Beside
    the softmax, which becomes the gradient in place, nothing is as large as the logits.

    Args:
      logits: float[B, T, C], not a softmax's output; the blank is class C - 1.
      frames: int32[B], how many of the T are a line's own.
      labels: int32[B, N], classes, padded with anything.
      label_lengths: int32[B], may be 0.

    Returns:
      float32[B], in nats. Infinite, with a gradient of zero, for a line that cannot be aligned. Frames beyond a line's own
      have a gradient of zero.
    """
    frames, labels, label_lengths = (tf.cast(value, tf.int32) for value in (frames, labels, label_lengths))

    @tf.custom_gradient
    def with_gradient(logits: tf.Tensor):
        values = tf.cast(logits, tf.float32)
        softmax = tf.nn.softmax(values)
        columns, highest, emitted = _lattice(values, labels, label_lengths)
        alpha = _alpha(emitted, labels)  # [B, T + 1, S]
        at_end = tf.gather(alpha, frames, batch_dims=1)  # [B, S]
        last_blank = tf.gather(at_end, 2 * label_lengths, batch_dims=1)
        last_label = tf.gather(at_end, tf.maximum(2 * label_lengths - 1, 0), batch_dims=1)
        total = _log_sum(last_blank, tf.where(label_lengths > 0, last_label, _NEVER))
        impossible = total < 0.5 * _NEVER
        within = tf.sequence_mask(frames, tf.shape(values)[1])
        likeliest = tf.reduce_max(tf.gather(softmax, columns, batch_dims=1, axis=2), axis=2)
        nll = tf.where(within, _surprise(likeliest, highest, values, softmax), 0.0)
        nats = tf.reduce_sum(nll, axis=1) - total

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            beta = _beta(emitted, frames, labels, label_lengths)  # [B, T, S]
            weight = tf.where(impossible, 0.0, tf.cast(upstream, tf.float32))[:, tf.newaxis]
            weight = tf.where(within, weight, 0.0)[:, :, tf.newaxis]  # [B, T, 1]
            in_state = alpha[:, 1:] + beta - emitted - total[:, tf.newaxis, tf.newaxis]
            posterior = tf.exp(tf.minimum(in_state, 0.0)) * weight
            blanks = tf.reduce_sum(posterior[:, :, ::2], axis=2, keepdims=True)
            posterior = tf.concat([posterior[:, :, 1::2], blanks], axis=2)  # [B, T, N + 1], in the order of the columns
            return tf.cast(_subtract_columns(softmax * weight, columns, posterior), logits.dtype)

        return tf.where(impossible, float("inf"), nats), gradient

    return with_gradient(tf.convert_to_tensor(logits))


def probability(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Computes the probability of each line's label, summed over all alignments: what minus the exponent of `loss` is, in less
    time and without a gradient.

    Args:
      logits: float32[B, T, C]; the blank is class C - 1.
      frames: int32[B], how many of the T are a line's own.
      labels: int32[B, N], classes, padded with classes.
      label_lengths: int32[B].

    Returns:
      float32[B], from 0 to 1; 0 where float32 has no room for it, below 1e-38.
    """
    batch, time, blank = tf.shape(logits)[0], tf.shape(logits)[1], tf.shape(logits)[2] - 1
    length = tf.shape(labels)[1]
    columns = tf.pad(labels, [[0, 0], [0, 1]], constant_values=blank)
    emitted = tf.gather(tf.nn.softmax(logits), columns, batch_dims=1, axis=2)  # [B, T, N + 1]
    # Behind its own frames each line has some that are blank for sure, and so ends in its last state.
    certain = tf.one_hot(length, length + 1)
    emitted = tf.where(tf.sequence_mask(frames, time)[:, :, tf.newaxis], emitted, certain)
    more = tf.broadcast_to(certain, [batch, _AT_ONCE - time % _AT_ONCE, length + 1])
    states = tf.range(2 * length + 1)
    emitted = tf.gather(tf.concat([emitted, more], axis=1), tf.where(states % 2 == 1, states // 2, length), axis=2)
    turns = tf.reshape(tf.transpose(emitted, [1, 0, 2]), [-1, _AT_ONCE, batch, 2 * length + 1])
    start, skips = (tf.exp(value) for value in _start_and_skips(emitted, labels))

    def turn(before: tf.Tensor, some: tf.Tensor) -> tf.Tensor:
        for emission in tf.unstack(some, _AT_ONCE):
            earlier = tf.pad(before, [[0, 0], [2, 0]])
            before = (before + earlier[:, 1:-1] + earlier[:, :-2] * skips) * emission
        return before

    total = tf.gather(tf.foldl(turn, turns, start), 2 * label_lengths, batch_dims=1)
    return tf.minimum(total, 1.0)


def align(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Finds the most probable alignment of each line's label (Viterbi's algorithm).

    Args:
      logits: float[B, T, C], T at least 1; the blank is class C - 1.
      frames: int32[B].
      labels: int32[B, N], classes, padded with anything.
      label_lengths: int32[B]; the lines must be `feasible`.

    Returns:
      int32[B, T]: the class of each frame, the blank beyond a line's own frames.
    """
    frames, labels, label_lengths = (tf.cast(value, tf.int32) for value in (frames, labels, label_lengths))
    columns, _, emitted = _lattice(tf.cast(logits, tf.float32), labels, label_lengths)
    start, skips = _start_and_skips(emitted, labels)

    def forward(before: tuple[tf.Tensor, tf.Tensor], emission: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ways = tf.stack(_entered(before[0], skips))
        return tf.reduce_max(ways, axis=0) + emission, tf.argmax(ways, axis=0, output_type=tf.int32)

    best, moves = tf.scan(forward, tf.transpose(emitted, [1, 0, 2]), (start, tf.zeros_like(start, tf.int32)))
    at_end = tf.gather(tf.transpose(best, [1, 0, 2]), tf.maximum(frames - 1, 0), batch_dims=1)  # [B, S]
    last_blank = 2 * label_lengths
    last_label = tf.maximum(last_blank - 1, 0)
    ends_in_blank = tf.gather(at_end, last_blank, batch_dims=1) > tf.gather(at_end, last_label, batch_dims=1)
    end = tf.where(ends_in_blank, last_blank, last_label)

    def back(after: tuple[tf.Tensor, tf.Tensor], frame: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        time, move = frame
        state = tf.where(time < frames - 1, after[1], end)
        return state, state - tf.gather(move, state, batch_dims=1)

    times = tf.range(tf.shape(moves)[0])
    states = tf.transpose(tf.scan(back, (times, moves), (end, end), reverse=True)[0])  # [B, T]
    length = tf.shape(labels)[1]
    column = tf.where((states % 2 == 1) & tf.sequence_mask(frames, tf.shape(states)[1]), states // 2, length)
    return tf.gather(columns, column, batch_dims=1)


def _surprise(likeliest: tf.Tensor, highest: tf.Tensor, values: tf.Tensor, softmax: tf.Tensor) -> tf.Tensor:
    """Returns minus the logarithm of a probability, float32[B, T], also where float32 has no room for the probability.

    Args:
      likeliest: float32[B, T], the probability.
      highest: float32[B, T], its logit.
      values: float32[B, T, C], all logits.
      softmax: float32[B, T, C], all probabilities.
    """

    def from_best_class() -> tf.Tensor:
        return tf.reduce_max(values, axis=2) - highest - tf.math.log(tf.reduce_max(softmax, axis=2))

    return tf.cond(tf.reduce_min(likeliest) < 1e-30, from_best_class, lambda: -tf.math.log(likeliest))


def _lattice(values: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns what each state of a line's lattice emits in each frame.

    Of all the classes only a line's own labels and the blank count. The logits are taken relative to the highest of them, so
    that a good line's sums over the lattice are near 0 and keep their precision.

    Returns:
      The classes that a line needs, int32[B, N + 1] with the blank last; the highest of their logits float32[B, T]; and,
      relative to it, the logit of what each state emits, float32[B, T, S].
    """
    batch, length = tf.shape(labels)[0], tf.shape(labels)[1]
    blank = tf.shape(values)[2] - 1
    own = tf.where(tf.sequence_mask(label_lengths, length), labels, blank)
    columns = tf.concat([own, tf.fill([batch, 1], blank)], axis=1)
    needed = tf.gather(values, columns, batch_dims=1, axis=2)  # [B, T, N + 1]
    highest = tf.maximum(tf.reduce_max(needed, axis=2), _NEVER)
    states = tf.range(2 * length + 1)
    emitted = tf.gather(needed - highest[:, :, tf.newaxis], tf.where(states % 2 == 1, states // 2, length), axis=2)
    exists = tf.sequence_mask(2 * label_lengths + 1, 2 * length + 1)[:, tf.newaxis]
    return columns, highest, tf.where(exists, tf.maximum(emitted, _NEVER), _NEVER)


def _start_and_skips(emitted: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns float32[B, S] each: logarithms of being in a state before the first frame, when a line is in its first blank of
    which nothing has been emitted yet; and of 1 or 0 for whether a state may be entered past the one before it: a label may
    be, unless it equals the label before."""
    batch, states = tf.shape(emitted)[0], tf.shape(emitted)[2]
    start = tf.concat([tf.zeros([batch, 1]), tf.fill([batch, states - 1], _NEVER)], axis=1)
    equal = tf.pad(labels[:, 1:] == labels[:, :-1], [[0, 0], [1, 0]], constant_values=True)[:, : tf.shape(labels)[1]]
    skips = tf.stack([tf.fill(tf.shape(labels), _NEVER), tf.where(equal, _NEVER, 0.0)], axis=2)
    return start, tf.pad(tf.reshape(skips, [batch, states - 1]), [[0, 0], [0, 1]], constant_values=_NEVER)


def _entered(before: tf.Tensor, skips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the three ways into each state, float32[B, S] each: from itself, from the one before, from two before."""
    earlier = tf.pad(before, [[0, 0], [2, 0]], constant_values=_NEVER)
    return before, earlier[:, 1:-1], earlier[:, :-2] + skips


def _alpha(emitted: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Sums over the ways through the lattice from its start.

    Args:
      emitted: float32[B, T, S], of `_lattice`.
      labels: int32[B, N].

    Returns:
      float32[B, T + 1, S]: the logarithm of being in each state after so many frames.
    """
    start, skips = _start_and_skips(emitted, labels)
    step = lambda before, emission: _log_sum(*_entered(before, skips)) + emission  # noqa: E731
    after = tf.scan(step, tf.transpose(emitted, [1, 0, 2]), start)
    return tf.transpose(tf.concat([start[tf.newaxis], after], axis=0), [1, 0, 2])


def _beta(emitted: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Sums over the ways from each state, its own emission included, to the end: alpha of the line read backwards.

    Returns:
      float32[B, T, S].
    """

    def reverse(lattice: tf.Tensor) -> tf.Tensor:
        return tf.reverse_sequence(tf.reverse_sequence(lattice, frames, 1), 2 * label_lengths + 1, 2)

    return reverse(_alpha(reverse(emitted), tf.reverse_sequence(labels, label_lengths, 1))[:, 1:])


def _log_sum(*terms: tf.Tensor) -> tf.Tensor:
    """Returns log(sum(exp)) over the terms."""
    highest = terms[0]
    for term in terms[1:]:
        highest = tf.maximum(highest, term)
    return highest + tf.math.log(tf.add_n([tf.exp(term - highest) for term in terms]))


def _subtract_columns(whole: tf.Tensor, columns: tf.Tensor, parts: tf.Tensor) -> tf.Tensor:
    """Subtracts [B, T, N + 1] at classes int32[B, N + 1] from [B, T, C]; what stands at the same class adds up."""
    shape = tf.shape(parts)
    batch = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis, tf.newaxis], shape)
    time = tf.broadcast_to(tf.range(shape[1])[:, tf.newaxis], shape)
    places = tf.stack([batch, time, tf.broadcast_to(columns[:, tf.newaxis], shape)], axis=3)
    return tf.tensor_scatter_nd_sub(whole, places, parts)
