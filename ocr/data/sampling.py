"""Which lines come when: a function of the seed and the place alone, so that any step is reached by arithmetic.

The lines of a set come in blocks, as they lie on disk. An epoch is the blocks in an order of its own, epochs follow each other
without end, and a window is a stretch of so many lines of that, mixed.
"""

import numpy as np
import tensorflow as tf


def permutation(count: tf.Tensor | int, seed: tf.Tensor) -> tf.Tensor:
    """Returns the numbers below `count` in an order that the seed alone decides: int64[count]. The seed is int64[2]."""
    keys = tf.random.stateless_uniform([count], seed, minval=None, maxval=None, dtype=tf.int64)
    return tf.cast(tf.argsort(keys, stable=True), tf.int64)


def window_blocks(lines: np.ndarray, begin: tf.Tensor, length: int, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the blocks that hold a stretch of the lines.

    Args:
      lines: int64[K], how many each block has; not all 0.
      begin: int64 scalar, how many lines come before the stretch.
      length: of the stretch, in lines.
      seed: of the order of the blocks.

    Returns:
      int64[M], the blocks, in order, and int64 scalar, how many lines of theirs come before the stretch.
    """
    epoch = int(lines.sum())
    first, last = begin // epoch, (begin + length - 1) // epoch
    epochs = tf.range(first, last + 1)
    orders = tf.map_fn(lambda number: permutation(len(lines), tf.stack([tf.constant(seed, tf.int64), number])), epochs)
    blocks = tf.reshape(orders, [-1])
    ends = first * epoch + tf.cumsum(tf.gather(lines, blocks))
    begins = ends - tf.gather(lines, blocks)
    within = (ends > begin) & (begins < begin + length)
    chosen = tf.boolean_mask(blocks, within)
    return chosen, begin - tf.boolean_mask(begins, within)[0]


def batches(widths: tf.Tensor, batch_size: int, seed: tf.Tensor) -> tf.Tensor:
    """Shares the lines of a window among its batches: lines of like width together, else at random, in random order.

    Args:
      widths: int64[S], of the lines, in pixels; S a multiple of the batch size.
      batch_size: B.
      seed: int64[2].

    Returns:
      int64[S / B, B], the numbers of the lines.
    """
    mixed = permutation(tf.size(widths), seed)
    by_width = tf.gather(mixed, tf.argsort(tf.gather(widths, mixed), stable=True))
    rows = tf.reshape(by_width, [-1, batch_size])
    return tf.gather(rows, permutation(tf.shape(rows)[0], seed + 1))


def allocate(weights: np.ndarray, length: int) -> np.ndarray:
    """Shares a window among sets by their weights, at least one line each, the largest remainders rounded up: int64."""
    exact = weights / weights.sum() * length
    shares = np.maximum(exact.astype(np.int64), 1)
    while (short := length - shares.sum()) != 0:
        error = exact - shares
        if short > 0:
            shares[error.argmax()] += 1
        else:
            shares[np.where(shares > 1, error, np.inf).argmin()] -= 1
    return shares
