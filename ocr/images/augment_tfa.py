"""Augmentation by TensorFlow Addons: rotation and shear in place of `augment`'s own, and cutout."""

import tensorflow as tf

from ocr import addons


def warp(
    pixels: tf.Tensor, width: tf.Tensor, slope: tf.Tensor, lean: tf.Tensor, along: tf.Tensor, down: tf.Tensor, shift: tf.Tensor
) -> tf.Tensor:
    """Shears, rotates and shifts lines, each about its own centre.

    A line's (x, y) goes to (along * x + lean * y, slope * x + down * y + shift).

    Args:
      pixels: uint8[N, H, W].
      width: int32[N], in pixels.
      slope: float32[N].
      lean: float32[N].
      along: float32[N].
      down: float32[N].
      shift: float32[N], in pixels.

    Returns:
      uint8[N, H, W].
    """
    image = addons.load().image
    # Any such map is a shear with scaling, followed by a rotation.
    angle, zero = tf.atan2(slope, along), tf.zeros_like(slope)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    stretch_x, sideways, stretch_y = along * cosine + slope * sine, cosine * lean + sine * down, cosine * down - sine * lean
    # Transforms map output to input: they undo the steps, the last first.
    columns, middle_y = tf.cast(width, tf.float32), (pixels.shape[1] - 1) / 2.0
    a0, a1, b1 = 1.0 / stretch_x, -sideways / (stretch_x * stretch_y), 1.0 / stretch_y
    a2 = (1.0 - a0) * (columns - 1.0) / 2.0 - a1 * middle_y - (a0 * sine + a1 * cosine) * shift
    b2 = (1.0 - b1) * middle_y - b1 * cosine * shift
    transforms = [
        tf.stack([a0, a1, a2, zero, b1, b2, zero, zero], axis=1),
        image.angles_to_projective_transforms(-angle, float(pixels.shape[1]), columns),
    ]
    return image.transform(pixels[..., tf.newaxis], image.compose_transforms(transforms), "bilinear", "nearest")[..., 0]


def cut_out(pixels: tf.Tensor, width: tf.Tensor, place: tf.Tensor, side: int) -> tf.Tensor:
    """Fills a square of each line with its mean grey.

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.

    Args:
      pixels: uint8[N, H, W].
      width: int32[N], in pixels.
      place: float32[N, 2], from 0 to 1: the square's centre, as fractions of the line's height and width.
      side: of the square in pixels, even.

    Returns:
      uint8[N, H, W].
    """
    own = tf.sequence_mask(width, tf.shape(pixels)[2], tf.float32)[:, tf.newaxis]
    size = tf.stack([tf.fill(tf.shape(width), pixels.shape[1]), width], axis=1)
    grey = tf.reduce_sum(tf.cast(pixels, tf.float32) * own, [1, 2]) / tf.cast(tf.reduce_prod(size, 1), tf.float32)

    def cut() -> tf.Tensor:
        centre = tf.cast(place * tf.cast(size, tf.float32), tf.int32)
        fill = tf.round(grey)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return addons.load().image.cutout(pixels[..., tf.newaxis], (side, side), centre, fill)[..., 0]

    return tf.cond(tf.size(width) > 0, cut, lambda: pixels)  # cutout fails on an empty batch
