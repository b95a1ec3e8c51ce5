"""From logits to texts, in the graph."""

import tensorflow as tf

from ocr import ctc


def greedy(logits: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Takes the best class of each frame, and of each run of equal ones the first; blanks fall out.

    Args:
      logits: float32[B, T, C], the blank last; B may be 0.
      frames: int32[B].

    Returns:
      ids int32[B, N], padded with 0; lengths int32[B]; confidence float32[B], the probability of the text, summed over all
      its alignments.
    """
    best = tf.argmax(logits, axis=2, output_type=tf.int32)
    before = tf.pad(best, [[0, 0], [1, 0]], constant_values=-1)[:, :-1]
    own = tf.sequence_mask(frames, tf.shape(best)[1])
    kept = (best != before) & (best != tf.shape(logits)[2] - 1) & own
    lengths = tf.reduce_sum(tf.cast(kept, tf.int32), axis=1)
    ids = tf.RaggedTensor.from_row_lengths(tf.boolean_mask(best, kept), lengths).to_tensor()
    return ids, lengths, tf.exp(-ctc.loss(logits, frames, ids, lengths))
