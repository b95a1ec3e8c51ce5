"""From an image file to a line: the code that decodes and scales.

Conversion, training, evaluation and the exported graph all use it, so that serving sees exactly what training saw.
`preprocess_numpy` is its twin for reading without TensorFlow.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from ocr.images import exif_graph, header, header_graph
from ocr.images.preprocess_numpy import (
    LUMA,
    MID_GREY,
    MIN_CONTRAST,
    NO_CONTRAST,
    PAGE_DEVIATION,
    PAGE_OPACITY,
    READ,
    SQUARINGS,
    TOO_LARGE,
    UNDECODABLE,
)

TALL = 1.5  # height over width from which on an image may be a line that stands on its side


def scaled_width(height: tf.Tensor, width: tf.Tensor, line_height: int) -> tf.Tensor:
    """Returns the width in pixels of a line scaled to another height, rounded, at least 1. Sizes are int64."""
    return tf.maximum((2 * width * line_height + height) // (2 * height), 1)


def status(encoded: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns whether an image with this header may be decoded.

    Args:
      encoded: string scalar.
      height: int64 scalar, in pixels, from its header, of the image as it is shown.
      width: int64 scalar, likewise.

    Returns:
      int32 scalar: READ, UNDECODABLE or TOO_LARGE.
    """
    too_large = (tf.strings.length(encoded) > header.MAX_BYTES) | header.is_too_large(height, width)
    undecodable = tf.minimum(height, width) <= 0
    return tf.where(undecodable, UNDECODABLE, tf.where(too_large, TOO_LARGE, READ))


def decode(encoded: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Decodes an image file that `header_graph.first_frame` has returned.

    Args:
      encoded: string scalar.
      orientation: int32 scalar, from `exif_graph.orientation`.

    Returns:
      uint8[H, W, channels] as it is shown, with as many channels as the file has.

    Raises:
      tf.errors.InvalidArgumentError: it is damaged.
    """
    return exif_graph.turn(_without_unused_alpha(encoded, decode_image(encoded)), orientation)


def _without_unused_alpha(encoded: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    return tf.cond(header_graph.unused_alpha(encoded), lambda: image[:, :, :3], lambda: image)


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG or JPEG file, the only kinds that records hold, as it is stored."""
    return tf.ensure_shape(tf.io.decode_image(encoded, expand_animations=False), [None, None, None])


def to_line(image: tf.Tensor, line_height: int) -> tf.Tensor:
    """Turns a decoded image into a line: grey, dark ink over white, light ink over black, scaled in proportion.

    Args:
      image: uint8[H, W, 1 to 4]: grey, grey and alpha, colour, or colour and alpha.
      line_height: in pixels.

    Returns:
      uint8[line_height, scaled width].
    """
    shape = tf.shape(image)
    height, channels = shape[0], shape[2]

    def general() -> tf.Tensor:
        values = tf.cast(image, tf.float32)
        see_through = channels % 2 == 0
        opacity = tf.cond(see_through, lambda: values[:, :, -1] / 255.0, lambda: tf.ones_like(values[:, :, 0]))
        grey = tf.cond(channels < 3, lambda: values[:, :, 0], lambda: _to_grey(values[:, :, :3], opacity))
        grey = tf.cond(see_through, lambda: _lay_on_ground(grey, opacity), lambda: grey)
        width = scaled_width(tf.cast(height, tf.int64), tf.cast(shape[1], tf.int64), line_height)
        target = tf.stack([line_height, tf.cast(width, tf.int32)])
        resized = lambda: tf.image.resize(grey[:, :, tf.newaxis], target, antialias=True)[:, :, 0]  # noqa: E731
        line = tf.cond(height == line_height, lambda: grey, resized)
        return tf.cast(tf.round(tf.clip_by_value(line, 0.0, 255.0)), tf.uint8)

    is_line = tf.logical_and(channels == 1, height == line_height)
    return tf.ensure_shape(tf.cond(is_line, lambda: image[:, :, 0], general), [line_height, None])


def _to_grey(colour: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    """Returns an image along the axis of colour on which it varies most, so that red ink stands out from grey as bright.

    That is its first principal component, of the sign that luma has, around its mean luma; of a grey image, the image itself.

    Args:
      colour: float32[H, W, 3], from 0 to 255.
      opacity: float32[H, W], from 0 to 1; weighs the pixels.

    Returns:
      float32[H, W].
    """
    weight = opacity[:, :, tf.newaxis]
    # A sum of sums: added one by one, millions of numbers lose their last digits.
    total, visible = (tf.reduce_sum(tf.reduce_sum(value, 0), 0) for value in (colour * weight, weight))
    mean = tf.math.divide_no_nan(total, visible)
    centred = colour - mean
    spread = tf.tensordot(centred * weight, centred, [[0, 1], [0, 1]])
    for _ in range(SQUARINGS):
        spread = tf.math.divide_no_nan(spread, tf.linalg.trace(spread))
        spread = tf.linalg.matmul(spread, spread)
    axis = tf.linalg.matvec(spread, tf.constant(LUMA))
    axis = tf.math.divide_no_nan(axis, tf.reduce_sum(tf.abs(axis)))
    return tf.linalg.matvec(centred, axis) + tf.reduce_sum(mean * LUMA)


def _lay_on_ground(grey: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    """Lays an image on white, or on black if it would not show on white.

    That is if what is visible is light on average, unless it is a light page with dark ink and clear margins.

    Args:
      grey: float32[H, W], from 0 to 255.
      opacity: float32[H, W], from 0 to 1.

    Returns:
      float32[H, W].
    """
    visible = tf.maximum(tf.reduce_sum(opacity), 1e-6)
    mean = tf.reduce_sum(grey * opacity) / visible
    deviation = tf.sqrt(tf.reduce_sum((grey - mean) ** 2 * opacity) / visible)
    is_page = (tf.reduce_mean(opacity) >= PAGE_OPACITY) & (deviation >= PAGE_DEVIATION)
    ground = tf.where((mean > MID_GREY) & ~is_page, 0.0, 255.0)
    return ground + (grey - ground) * opacity


def contrast_status(pixels: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns whether lines have anything in them that could be read.

    Args:
      pixels: uint8[B, H, W], anything beyond a line's width.
      width: int32[B], in pixels.

    Returns:
      int32[B]: READ or NO_CONTRAST.
    """
    own = tf.sequence_mask(width, tf.shape(pixels)[2])[:, tf.newaxis]
    lightest = tf.reduce_max(tf.where(own, pixels, 0), [1, 2])
    darkest = tf.reduce_min(tf.where(own, pixels, 255), [1, 2])
    has_contrast = tf.cast(lightest, tf.int32) - tf.cast(darkest, tf.int32) >= MIN_CONTRAST
    return tf.where(has_contrast, READ, NO_CONTRAST)


def read_rows(encoded: tf.Tensor, line_height: int, on_side: bool = False) -> tuple[tf.Tensor, ...]:
    """Reads image files in the graph; one that cannot be read does not affect the others.

    Args:
      encoded: string[B], B at least 1.
      line_height: H, in pixels, that lines are scaled to.
      on_side: whether to return tall images as lines that stand on their side, too.

    Returns:
      pixels uint8[B, H, W], zero beyond each line's width; width int32[B] in pixels; status int32[B]; and the width of
      the original image as it is shown, int32[B] in pixels. A line that was not read is one pixel wide.
      If `on_side`, also pixels uint8[B, H, V] of the images turned clockwise by 90 degrees, and their width int32[B]; it is 0
      for images that are not tall, which is `TALL`, or would be too large.
    """
    return _row_reader(line_height, on_side)(encoded)


@functools.cache  # a process builds this graph once: that takes seconds
def _row_reader(line_height: int, on_side: bool) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    def read_rows(encoded: tf.Tensor) -> tuple[tf.Tensor, ...]:
        one, many = (functools.partial(read, encoded, line_height, on_side) for read in (_read_one, _read_many))
        return tf.cond(tf.size(encoded) == 1, one, many)

    return tf.function(read_rows, [tf.TensorSpec([None], tf.string)], autograph=False)


# The graphs of the data sets in these two have no Python control flow, and looking for it takes seconds.
@tf.autograph.experimental.do_not_convert
def _read_one(encoded: tf.Tensor, line_height: int, on_side: bool) -> tuple[tf.Tensor, ...]:
    # A data set's graph is prepared again with every call, so only the ops that may fail are inside one.
    def attempt(op: Callable[[tf.Tensor], tf.Tensor], file: tf.Tensor, fallback: tf.Tensor) -> tf.Tensor:
        failed = tf.data.Dataset.from_tensors(fallback)
        return tf.data.Dataset.from_tensors(file).map(op).ignore_errors().concatenate(failed).take(1).get_single_element()

    return tuple(value[tf.newaxis] for value in _read(encoded[0], line_height, on_side, attempt))


@tf.autograph.experimental.do_not_convert
def _read_many(encoded: tf.Tensor, line_height: int, on_side: bool) -> tuple[tf.Tensor, ...]:
    count = tf.size(encoded)

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return number, *_read(encoded[number], line_height, on_side, lambda op, file, _: op(file))

    rows = tf.data.Dataset.range(tf.cast(count, tf.int64), output_type=tf.int32)
    lines = rows.map(read, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    failed = tf.data.Dataset.from_tensors((count, *_unread(UNDECODABLE, line_height, on_side)))
    number, *values = lines.concatenate(failed).padded_batch(tf.cast(count, tf.int64) + 1).get_single_element()
    last = tf.size(number) - 1
    position = tf.tensor_scatter_nd_update(tf.fill([count + 1], last), number[:, tf.newaxis], tf.range(last + 1))[:count]
    return tuple(tf.gather(value, position) for value in values)


def _read(
    file: tf.Tensor, line_height: int, on_side: bool, attempt: Callable[[Callable, tf.Tensor, tf.Tensor], tf.Tensor]
) -> tuple[tf.Tensor, ...]:
    """Reads an image file.

    Args:
      file: string scalar.
      line_height: in pixels, that the line is scaled to.
      on_side: as in `read_rows`.
      attempt: calls its first argument, an op, with the second. The op fails if the file is damaged; `attempt` may then
        return its third argument instead.

    Returns:
      pixels uint8[line_height, W], the line's width, the status and the width of the original image; if `on_side`, also
      pixels uint8[line_height, V] and V.
    """
    file = header_graph.first_frame(file)
    orientation = exif_graph.orientation(file)
    height, width = tf.unstack(exif_graph.shown(header_graph.size(file, attempt), orientation))
    code = status(file, height, width)
    nothing = tf.zeros([0, 0, 1], tf.uint8)
    image = tf.cond(code == READ, lambda: attempt(decode_image, file, nothing), lambda: nothing)

    def read() -> tuple[tf.Tensor, ...]:
        upright = exif_graph.turn(_without_unused_alpha(file, image), orientation)
        line = to_line(upright, line_height)
        values = line, tf.shape(line)[1], code, tf.cast(width, tf.int32)
        if not on_side:
            return values
        side = tf.cond(
            (tf.cast(height, tf.float32) >= TALL * tf.cast(width, tf.float32)) & ~header.is_too_large(width, height),
            lambda: to_line(tf.reverse(tf.transpose(upright, [1, 0, 2]), [1]), line_height),
            lambda: tf.zeros([line_height, 0], tf.uint8),
        )
        return *values, side, tf.shape(side)[1]

    unread = functools.partial(_unread, tf.where(code == READ, UNDECODABLE, code), line_height, on_side)
    return tf.cond(tf.size(image) > 0, read, unread)


def _unread(code: tf.Tensor | int, line_height: int, on_side: bool) -> tuple[tf.Tensor, ...]:
    """Returns what `_read` returns of a file that could not be read: a line one pixel wide."""
    line = tf.zeros([line_height, 1], tf.uint8)
    values = line, tf.constant(1), tf.convert_to_tensor(code), tf.constant(1)
    return (*values, line[:, :0], tf.constant(0)) if on_side else values
