"""The CTC loss (Graves et al., 2006, "Connectionist temporal classification"), for logits with the blank last.

Shapes: B lines, T frames, C classes with the blank, N label length, S = 2N + 1 states of a line's lattice: blank, first
label, blank, second label, ..., blank.
"""

import tensorflow as tf

_NEVER = -1e30  # stands for the logarithm of 0; finite, so that differences of two stay numbers


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

    The gradient comes with it: softmax minus the posterior of each class in each frame (Graves et al., equation 16).

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
        normaliser = tf.reduce_logsumexp(values, axis=2, keepdims=True)
        columns, column_of_state = _columns(labels, label_lengths, blank=tf.shape(values)[2] - 1)
        # Of all the classes only a line's own labels and the blank can be emitted.
        column_logp = tf.gather(values, columns, batch_dims=1, axis=2) - normaliser  # [B, T, N + 1]
        emitted = tf.gather(column_logp, column_of_state, axis=2)  # [B, T, S]
        own_states = tf.sequence_mask(2 * label_lengths + 1, tf.shape(emitted)[2])[:, tf.newaxis]
        emitted = tf.where(own_states, tf.maximum(emitted, _NEVER), _NEVER)
        alpha = _alpha(emitted, labels)  # [B, T + 1, S]
        at_end = tf.gather(alpha, frames, batch_dims=1)  # [B, S]
        last_blank = tf.gather(at_end, 2 * label_lengths, batch_dims=1)
        last_label = tf.gather(at_end, tf.maximum(2 * label_lengths - 1, 0), batch_dims=1)
        nats = -tf.where(label_lengths > 0, _log_sum(last_blank, last_label), last_blank)
        impossible = nats > -0.5 * _NEVER

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            beta = _beta(emitted, frames, labels, label_lengths)  # [B, T, S]
            weight = tf.where(impossible, 0.0, tf.cast(upstream, tf.float32))[:, tf.newaxis]
            weight = (weight * tf.sequence_mask(frames, tf.shape(values)[1], tf.float32))[:, :, tf.newaxis]  # [B, T, 1]
            in_state = tf.minimum(alpha[:, 1:] + beta - emitted + nats[:, tf.newaxis, tf.newaxis], 0.0)
            posterior = tf.exp(in_state) * weight
            blanks = tf.reduce_sum(posterior[:, :, ::2], axis=2, keepdims=True)
            posterior = tf.concat([posterior[:, :, 1::2], blanks], axis=2)  # [B, T, N + 1], in the order of the columns
            softmax = tf.exp(values - normaliser) * weight
            return tf.cast(_subtract_columns(softmax, columns, posterior), logits.dtype)

        return tf.where(impossible, float("inf"), nats), gradient

    return with_gradient(tf.convert_to_tensor(logits))


def _columns(labels: tf.Tensor, label_lengths: tf.Tensor, blank: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the classes that a line needs, int32[B, N + 1] with the blank last, and which of them each state emits,
    int32[S]."""
    batch, length = tf.shape(labels)[0], tf.shape(labels)[1]
    own = tf.where(tf.sequence_mask(label_lengths, length), labels, blank)
    columns = tf.concat([own, tf.fill([batch, 1], blank)], axis=1)
    states = tf.range(2 * length + 1)
    return columns, tf.where(states % 2 == 1, states // 2, length)


def _alpha(emitted: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Sums over the ways through the lattice from its start.

    Args:
      emitted: float32[B, T, S], logarithm of the probability of what each state emits in each frame.
      labels: int32[B, N].

    Returns:
      float32[B, T + 1, S]: the logarithm of the probability of being in each state after so many frames.
    """
    batch, states = tf.shape(emitted)[0], tf.shape(emitted)[2]
    # A label may be entered from the label before it, past the blank between, unless the two are equal.
    equal = tf.pad(labels[:, 1:] == labels[:, :-1], [[0, 0], [1, 0]], constant_values=True)[:, : tf.shape(labels)[1]]
    past = tf.stack([tf.fill(tf.shape(labels), _NEVER), tf.where(equal, _NEVER, 0.0)], axis=2)
    past = tf.pad(tf.reshape(past, [batch, states - 1]), [[0, 0], [0, 1]], constant_values=_NEVER)
    # Before the first frame a line is in its first blank, of which nothing has been emitted yet.
    start = tf.concat([tf.zeros([batch, 1]), tf.fill([batch, states - 1], _NEVER)], axis=1)

    def step(before: tf.Tensor, emission: tf.Tensor) -> tf.Tensor:
        earlier = tf.pad(before, [[0, 0], [2, 0]], constant_values=_NEVER)
        return _log_sum(before, earlier[:, 1:-1], earlier[:, :-2] + past) + emission

    after = tf.scan(step, tf.transpose(emitted, [1, 0, 2]), start)
    return tf.transpose(tf.concat([start[tf.newaxis], after], axis=0), [1, 0, 2])


def _beta(emitted: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """Sums over the ways from each state to the end: alpha of the line read backwards. The state's own emission counts.

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
