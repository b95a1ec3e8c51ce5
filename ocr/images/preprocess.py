"""From an image file to the network's input: the only code that decodes, scales or normalises.

Conversion, training, evaluation and the exported graph all use it, so that serving sees exactly what training saw.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ocr.images import exif, exif_graph, header, header_graph
from tfrecords import schema

READ, UNDECODABLE, TOO_LARGE, NO_CONTRAST = 0, 1, 2, 3  # statuses
_PER_TURN = 8  # images that one turn of a loop decodes, if there is little else to do with them
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_RECORD_FIELDS = {"encoded": tf.string, "format": tf.string} | dict.fromkeys(
    ("height", "width", "channels", "orientation"), tf.int64
)
_GREY = np.array([(1, 0, 0, 0), (1, 0, 0, 0), (*_LUMA, 0), (*_LUMA, 0)], np.float32)  # weights, by number of channels
_MID_GREY = 127.5  # what is lighter is light ink
_PAGE_OPACITY, _PAGE_DEVIATION = 0.5, 20.0  # of a page with ink and clear margins, at least; the deviation in grey levels
_MIN_CONTRAST = 3  # grey levels; less may come from scaling and rounding


class FrameSize(NamedTuple):
    """Size of the frames that a network cuts a line into.

    Attributes:
      height: in pixels; lines are scaled to it.
      width: in pixels of a line of that height.
    """

    height: int
    width: int


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


def shapes(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes PNG and JPEG files, and returns the shapes that they are stored in.

    Args:
      encoded: string[B].

    Returns:
      int32[B, 3]: height, width and channels.

    Raises:
      tf.errors.InvalidArgumentError: one is damaged.
    """
    count = tf.size(encoded)
    flat = _join_rows(lambda row: tf.shape(decode_image(encoded[row])), count, tf.int32, _PER_TURN)
    return tf.reshape(flat, [-1, 3])[:count]


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
        weights = tf.gather(_GREY, channels - 1)[:channels]
        grey = tf.linalg.matvec(tf.cast(image, tf.float32), weights)
        grey = tf.cond(
            channels % 2 == 0, lambda: _lay_on_ground(grey, tf.cast(image[:, :, -1], tf.float32) / 255.0), lambda: grey
        )
        width = scaled_width(tf.cast(height, tf.int64), tf.cast(shape[1], tf.int64), line_height)
        target = tf.stack([line_height, tf.cast(width, tf.int32)])
        resized = lambda: tf.image.resize(grey[:, :, tf.newaxis], target, antialias=True)[:, :, 0]  # noqa: E731
        line = tf.cond(height == line_height, lambda: grey, resized)
        return tf.cast(tf.round(tf.clip_by_value(line, 0.0, 255.0)), tf.uint8)

    is_line = tf.logical_and(channels == 1, height == line_height)
    return tf.ensure_shape(tf.cond(is_line, lambda: image[:, :, 0], general), [line_height, None])


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
    is_page = (tf.reduce_mean(opacity) >= _PAGE_OPACITY) & (deviation >= _PAGE_DEVIATION)
    ground = tf.where((mean > _MID_GREY) & ~is_page, 0.0, 255.0)
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
    has_contrast = tf.cast(lightest, tf.int32) - tf.cast(darkest, tf.int32) >= _MIN_CONTRAST
    return tf.where(has_contrast, READ, NO_CONTRAST)


def read_rows(encoded: tf.Tensor, line_height: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads image files in the graph; one that cannot be read does not affect the others.

    Args:
      encoded: string[B], B at least 1.
      line_height: H, in pixels, that lines are scaled to.

    Returns:
      pixels uint8[B, H, W], zero beyond each line's width; width int32[B] in pixels; status int32[B]; and the width of
      the original image as it is shown, int32[B] in pixels. A line that was not read is one pixel wide.
    """
    return tf.cond(tf.size(encoded) == 1, lambda: _read_one(encoded, line_height), lambda: _read_many(encoded, line_height))


# The graphs of the data sets in these two have no Python control flow, and looking for it takes seconds.
@tf.autograph.experimental.do_not_convert
def _read_one(encoded: tf.Tensor, line_height: int) -> tuple[tf.Tensor, ...]:
    # A data set's graph is prepared again with every call, so only the ops that may fail are inside one.
    def attempt(op: Callable[[tf.Tensor], tf.Tensor], file: tf.Tensor, fallback: tf.Tensor) -> tf.Tensor:
        failed = tf.data.Dataset.from_tensors(fallback)
        return tf.data.Dataset.from_tensors(file).map(op).ignore_errors().concatenate(failed).take(1).get_single_element()

    return tuple(value[tf.newaxis] for value in _read(encoded[0], line_height, attempt))


@tf.autograph.experimental.do_not_convert
def _read_many(encoded: tf.Tensor, line_height: int) -> tuple[tf.Tensor, ...]:
    count = tf.size(encoded)

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return number, *_read(encoded[number], line_height, lambda op, file, _: op(file))

    rows = tf.data.Dataset.range(tf.cast(count, tf.int64), output_type=tf.int32)
    lines = rows.map(read, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    failed = tf.data.Dataset.from_tensors((count, *_unread(UNDECODABLE, line_height)))
    number, *values = lines.concatenate(failed).padded_batch(tf.cast(count, tf.int64) + 1).get_single_element()
    last = tf.size(number) - 1
    position = tf.tensor_scatter_nd_update(tf.fill([count + 1], last), number[:, tf.newaxis], tf.range(last + 1))[:count]
    return tuple(tf.gather(value, position) for value in values)


def _read(
    file: tf.Tensor, line_height: int, attempt: Callable[[Callable, tf.Tensor, tf.Tensor], tf.Tensor]
) -> tuple[tf.Tensor, ...]:
    """Reads an image file.

    Args:
      file: string scalar.
      line_height: in pixels, that the line is scaled to.
      attempt: calls its first argument, an op, with the second. The op fails if the file is damaged; `attempt` may then
        return its third argument instead.

    Returns:
      pixels uint8[line_height, W], the line's width, the status and the width of the original image.
    """
    file = header_graph.first_frame(file)
    orientation = exif_graph.orientation(file)
    height, width = tf.unstack(exif_graph.shown(header_graph.size(file, attempt), orientation))
    code = status(file, height, width)
    nothing = tf.zeros([0, 0, 1], tf.uint8)
    image = tf.cond(code == READ, lambda: attempt(decode_image, file, nothing), lambda: nothing)

    def read() -> tuple[tf.Tensor, ...]:
        line = to_line(exif_graph.turn(_without_unused_alpha(file, image), orientation), line_height)
        return line, tf.shape(line)[1], code, tf.cast(width, tf.int32)

    return tf.cond(tf.size(image) > 0, read, lambda: _unread(tf.where(code == READ, UNDECODABLE, code), line_height))


def _unread(code: tf.Tensor | int, line_height: int) -> tuple[tf.Tensor, ...]:
    """Returns what `_read` returns of a file that could not be read: a line one pixel wide."""
    return tf.zeros([line_height, 1], tf.uint8), tf.constant(1), tf.convert_to_tensor(code), tf.constant(1)


def read_records(record: dict[str, tf.Tensor], line_height: int, only_raw: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads a batch of images from parsed records, in the graph.

    Args:
      record: what `schema.parse` returns, B at least 1.
      line_height: H, in pixels, that lines are scaled to; raw pixels must have it.
      only_raw: whether all of them hold raw pixels, which makes for a smaller graph.

    Returns:
      pixels uint8[B, H, W], zero beyond each line's width; width int32[B] in pixels.

    Raises:
      tf.errors.InvalidArgumentError: an image cannot be decoded, or does not have the size that its record says.
    """
    return _record_decoder(line_height, only_raw)({key: record[key] for key in _RECORD_FIELDS})


@functools.cache
def _record_decoder(line_height: int, only_raw: bool) -> Callable[[dict[str, tf.Tensor]], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a graph that all pipelines of a process share, since building it takes most of a second."""
    signature = {key: tf.TensorSpec([None], dtype) for key, dtype in _RECORD_FIELDS.items()}
    return tf.function(
        functools.partial(_decode_records, line_height=line_height, only_raw=only_raw), [signature], autograph=False
    )


def _decode_records(record: dict[str, tf.Tensor], line_height: int, only_raw: bool) -> tuple[tf.Tensor, tf.Tensor]:
    height, width = record["height"], record["width"]
    allowed = (tf.minimum(height, width) > 0) & ~header.is_too_large(height, width)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(allowed), ["an image's size is out of bounds"])]):
        scaled = tf.cast(scaled_width(height, width, line_height), tf.int32)
    is_raw = record["format"] == schema.RAW
    encoded, sizes = record["encoded"], line_height * scaled
    if only_raw:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(is_raw), ["an image that is not raw"])]):
            encoded = tf.identity(encoded)
        return _pad_lines(_decode_raw(encoded, sizes), scaled, line_height), scaled

    def line_file(row: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(decode_image(encoded[row]), [line_height, None, 1])

    def any_image(row: tf.Tensor) -> tf.Tensor:
        raw = lambda: tf.io.decode_raw(encoded[row], tf.uint8)  # noqa: E731
        turned = lambda: exif_graph.turn(decode_image(encoded[row]), record["orientation"][row])  # noqa: E731
        return tf.cond(is_raw[row], raw, lambda: tf.reshape(to_line(turned(), line_height), [-1]))

    def decode_rows(decode_row: Callable[[tf.Tensor], tf.Tensor], per_turn: int) -> tf.Tensor:
        flat = _join_rows(lambda row: tf.reshape(decode_row(row), [sizes[row]]), tf.size(encoded), tf.uint8, per_turn)
        return flat[: tf.reduce_sum(sizes)]

    # Grey files that are already as high need no more than decoding.
    is_upright = record["orientation"] == exif.UPRIGHT
    are_line_files = tf.reduce_all((height == line_height) & (record["channels"] == 1) & ~is_raw & is_upright)
    pixels = tf.cond(are_line_files, lambda: decode_rows(line_file, _PER_TURN), lambda: decode_rows(any_image, 1))
    return _pad_lines(pixels, scaled, line_height), scaled


def _decode_raw(encoded: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Joins the pixels of raw images: string[B] and their sizes in bytes, int32[B] -> uint8[sum of sizes]."""
    message = "raw pixels are not as many as the record says"
    with tf.control_dependencies([tf.debugging.assert_equal(tf.strings.length(encoded), sizes, message)]):
        return tf.cond(
            tf.reduce_all(sizes == sizes[0]),
            lambda: tf.reshape(tf.io.decode_raw(encoded, tf.uint8), [-1]),
            lambda: tf.io.decode_raw(tf.strings.reduce_join(encoded), tf.uint8),
        )


def _join_rows(decode_row: Callable[[tf.Tensor], tf.Tensor], count: tf.Tensor, dtype: tf.DType, per_turn: int) -> tf.Tensor:
    """Joins what `decode_row` returns for each row of a batch, tensors of one dimension.

    Each turn of the loop does `per_turn` rows, which saves overhead. The last row's result is repeated at the end to fill the
    last turn.
    """
    turns = -(-count // per_turn)

    def take_turn(turn: tf.Tensor, results: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = tf.unstack(tf.minimum(turn * per_turn + tf.range(per_turn), count - 1))
        return turn + 1, results.write(turn, tf.concat([decode_row(row) for row in rows], 0))

    results = tf.TensorArray(dtype, turns, infer_shape=False, element_shape=[None])
    return tf.while_loop(lambda turn, _: turn < turns, take_turn, (0, results))[1].concat()


def _pad_lines(pixels: tf.Tensor, width: tf.Tensor, height: int) -> tf.Tensor:
    """Makes a batch of lines that are joined: uint8[height * sum of widths] and int32[B] -> uint8[B, height, W]."""
    widest = tf.reduce_max(width)

    def padded() -> tf.Tensor:
        rows = tf.RaggedTensor.from_row_lengths(pixels, tf.repeat(width, height), validate=False)
        return rows.to_tensor()

    flat = tf.cond(tf.reduce_all(width == widest), lambda: tf.reshape(pixels, [-1, widest]), padded)
    return tf.ensure_shape(tf.reshape(flat, [-1, height, widest]), [None, height, None])


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
