"""The order of training lines: a function of the seed and the step alone, so that a training can resume at any step.

The lines of a split are in blocks, as on disk. Each epoch is a random order of the blocks, and epochs follow each other without
end. A window is a number of consecutive lines of that sequence, which are then shuffled.
"""

import numpy as np
import tensorflow as tf


def permutation(count: tf.Tensor | int, seed: tf.Tensor) -> tf.Tensor:
    """Returns a random permutation of the numbers below `count`, int64[count]; the seed is int64[2]."""
    keys = tf.random.stateless_uniform([count], seed, minval=None, maxval=None, dtype=tf.int64)
    return tf.cast(tf.argsort(keys, stable=True), tf.int64)


def window_blocks(lines: np.ndarray, begin: tf.Tensor, length: int, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the blocks that hold a window.

    Args:
      lines: int64[K], number of lines of each block; not all 0.
      begin: int64 scalar, number of lines before the window.
      length: of the window, in lines.
      seed: of the order of the blocks.

    Returns:
      int64[M], the blocks in order; and int64 scalar, how many of their lines come before the window.
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
    """Splits the lines of a window into batches of similar width, in random order.

    Args:
      widths: int64[S], of the lines, in pixels; S a multiple of the batch size.
      batch_size: B.
      seed: int64[2].

    Returns:
      int64[S / B, B], the lines' numbers in the window.
    """
    shuffled = permutation(tf.size(widths), seed)
    by_width = tf.gather(shuffled, tf.argsort(tf.gather(widths, shuffled), stable=True))
    rows = tf.reshape(by_width, [-1, batch_size])
    return tf.gather(rows, permutation(tf.shape(rows)[0], seed + 1))


def allocate(weights: np.ndarray, length: int) -> np.ndarray:
    """Returns how many lines of a window each split gets: int64, by weight with largest remainders, at least one each."""
    exact = weights / weights.sum() * length
    shares = np.maximum(exact.astype(np.int64), 1)
    while (short := length - shares.sum()) != 0:
        error = exact - shares
        if short > 0:
            shares[error.argmax()] += 1
        else:
            shares[np.where(shares > 1, error, np.inf).argmin()] -= 1
    return shares
