"""Changes to training lines by TensorFlow Addons: slope and lean as `augment` has them, and holes."""

import tensorflow as tf

from ocr import addons
from ocr.images.header import HEIGHT


def warp(
    pixels: tf.Tensor, width: tf.Tensor, slope: tf.Tensor, lean: tf.Tensor, along: tf.Tensor, down: tf.Tensor, shift: tf.Tensor
) -> tf.Tensor:
    """Shears, rotates and moves lines, each about its own centre.

    Args:
      pixels: uint8[N, 32, W].
      width: int32[N], in pixels.
      slope, lean, along, down, shift: float32[N] each: a line's (x, y) goes to (along * x + lean * y,
        slope * x + down * y + shift).

    Returns:
      uint8[N, 32, W].
    """
    image = addons.load().image
    # Any such change is a shear, which stretches as well, and then a rotation.
    angle, none = tf.atan2(slope, along), tf.zeros_like(slope)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    stretch_x, sideways, stretch_y = along * cosine + slope * sine, cosine * lean + sine * down, cosine * down - sine * lean
    # Transforms say where a pixel comes from: they undo that, and the move, the last first.
    columns, middle_y = tf.cast(width, tf.float32), (HEIGHT - 1) / 2.0
    a0, a1, b1 = 1.0 / stretch_x, -sideways / (stretch_x * stretch_y), 1.0 / stretch_y
    a2 = (1.0 - a0) * (columns - 1.0) / 2.0 - a1 * middle_y - (a0 * sine + a1 * cosine) * shift
    b2 = (1.0 - b1) * middle_y - b1 * cosine * shift
    transforms = [
        tf.stack([a0, a1, a2, none, b1, b2, none, none], axis=1),
        image.angles_to_projective_transforms(-angle, float(HEIGHT), columns),
    ]
    return image.transform(pixels[..., tf.newaxis], image.compose_transforms(transforms), "bilinear", "nearest")[..., 0]


def cut_out(pixels: tf.Tensor, width: tf.Tensor, place: tf.Tensor, side: int) -> tf.Tensor:
    """Fills a square of each line with its mean grey (DeVries and Taylor, 2017, "Improved Regularization of Convolutional
    Neural Networks with Cutout").

    Args:
      pixels: uint8[N, 32, W].
      width: int32[N], in pixels.
      place: float32[N, 2], 0 to 1: of the square's centre, in parts of a line's height and width.
      side: of the square in pixels, an even number.

    Returns:
      uint8[N, 32, W].
    """
    own = tf.sequence_mask(width, tf.shape(pixels)[2], tf.float32)[:, tf.newaxis]
    size = tf.stack([tf.fill(tf.shape(width), HEIGHT), width], axis=1)
    grey = tf.reduce_sum(tf.cast(pixels, tf.float32) * own, [1, 2]) / tf.cast(tf.reduce_prod(size, 1), tf.float32)

    def cut() -> tf.Tensor:
        centre = tf.cast(place * tf.cast(size, tf.float32), tf.int32)
        fill = tf.round(grey)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return addons.load().image.cutout(pixels[..., tf.newaxis], (side, side), centre, fill)[..., 0]

    return tf.cond(tf.size(width) > 0, cut, lambda: pixels)  # of no lines it cannot make the masks
