"""From lines to what a network takes: normalised images, cut into frames."""

from typing import NamedTuple

import tensorflow as tf


class FrameSize(NamedTuple):
    """Size of the frames that a network cuts a line into.

    Attributes:
      height: in pixels; lines are scaled to it.
      width: in pixels of a line of that height.
    """

    height: int
    width: int


def frames(width: tf.Tensor, pixels_per_frame: int) -> tf.Tensor:
    """Returns the number of frames of a line of this width in pixels; the last one may reach beyond its end."""
    return -(-width // pixels_per_frame)


def to_network(pixels: tf.Tensor, width: tf.Tensor, pixels_per_frame: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the network's two inputs.

    Args:
      pixels: uint8[B, H, W], anything beyond a line's width.
      width: int32[B], in pixels.
      pixels_per_frame: width of the network's frames.

    Returns:
      image float32[B, H, T * pixels_per_frame, 1] from -1 (black) to 1 (white), 0 beyond a line's width; and mask
      float32[B, 1, T, 1], 1 on a line's own frames and 0 beyond. The network multiplies its features with the mask, so that
      a line's result does not depend on what else is in the batch.
    """
    columns = tf.shape(pixels)[2]
    count = frames(columns, pixels_per_frame)
    own = tf.sequence_mask(width, columns, tf.float32)[:, tf.newaxis]
    image = (tf.cast(pixels, tf.float32) / 127.5 - 1.0) * own
    image = tf.pad(image, [[0, 0], [0, 0], [0, count * pixels_per_frame - columns]])
    mask = tf.sequence_mask(frames(width, pixels_per_frame), count, tf.float32)
    return tf.ensure_shape(image[..., tf.newaxis], [None, pixels.shape[1], None, 1]), mask[:, tf.newaxis, :, tf.newaxis]
