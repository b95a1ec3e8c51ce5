"""From the bytes of an image file to what the network sees: the only code that decodes, scales or normalises.

Conversion, training, evaluation and the exported graph all call it, so that what trained well also reads well.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ocr.images import header_graph
from ocr.images.header import HEIGHT, MAX_BYTES, MAX_PIXELS, MAX_WIDTH
from tfrecords import schema

READ, UNDECODABLE, TOO_LARGE = 0, 1, 2  # statuses
_AT_ONCE = 8  # images of which little is asked
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_OF_A_RECORD = {"encoded": tf.string, "format": tf.string} | dict.fromkeys(("height", "width", "channels"), tf.int64)
_GREY = np.array([(1, 0, 0, 0), (1, 0, 0, 0), (*_LUMA, 0), (*_LUMA, 0)], np.float32)  # by number of channels


def scaled_width(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns the width in pixels of a line scaled to a height of 32, rounded, at least 1. Sizes are int64."""
    return tf.maximum((2 * width * HEIGHT + height) // (2 * height), 1)


def status(encoded: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Says whether an image with this header may be decoded.

    Args:
      encoded: string scalar.
      height: int64 scalar, in pixels, as its header says.
      width: the same.

    Returns:
      int32 scalar: READ, UNDECODABLE or TOO_LARGE.
    """
    too_large = tf.logical_or(tf.strings.length(encoded) > MAX_BYTES, height * width > MAX_PIXELS)
    too_large = tf.logical_or(too_large, width * HEIGHT > MAX_WIDTH * height)
    undecodable = tf.minimum(height, width) <= 0
    return tf.where(undecodable, UNDECODABLE, tf.where(too_large, TOO_LARGE, READ))


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image file that `headers.first_frame` has passed: uint8[H, W, channels], as many channels as it has.

    Raises:
      tf.errors.InvalidArgumentError: it is damaged.
    """
    return _without_unused_alpha(encoded, decode_image(encoded))


def _without_unused_alpha(encoded: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    return tf.cond(header_graph.unused_alpha(encoded), lambda: image[:, :, :3], lambda: image)


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG or JPEG file, the only ones that records hold: as `decode` does."""
    return tf.ensure_shape(tf.io.decode_image(encoded, expand_animations=False), [None, None, None])


def shapes(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes PNG and JPEG files, for no more than their shapes: string[B] -> int32[B, 3], height, width and channels.

    Raises:
      tf.errors.InvalidArgumentError: one is damaged.
    """
    count = tf.size(encoded)
    return tf.reshape(_in_turns(lambda row: tf.shape(decode_image(encoded[row])), count, tf.int32, _AT_ONCE), [-1, 3])[:count]


def to_line(image: tf.Tensor) -> tf.Tensor:
    """Makes a decoded image a line: grey, alpha laid over white, 32 high in proportion.

    Args:
      image: uint8[H, W, 1 to 4]: grey, grey and alpha, colour, or colour and alpha.

    Returns:
      uint8[32, scaled width].
    """
    shape = tf.shape(image)
    height, channels = shape[0], shape[2]

    def general() -> tf.Tensor:
        weights = tf.gather(_GREY, channels - 1)[:channels]
        grey = tf.linalg.matvec(tf.cast(image, tf.float32), weights)
        opacity = tf.cond(channels % 2 == 0, lambda: tf.cast(image[:, :, -1], tf.float32) / 255.0, lambda: tf.ones_like(grey))
        grey = 255.0 + (grey - 255.0) * opacity
        width = scaled_width(tf.cast(height, tf.int64), tf.cast(shape[1], tf.int64))
        target = tf.stack([HEIGHT, tf.cast(width, tf.int32)])
        resized = lambda: tf.image.resize(grey[:, :, tf.newaxis], target, antialias=True)[:, :, 0]  # noqa: E731
        line = tf.cond(height == HEIGHT, lambda: grey, resized)
        return tf.cast(tf.round(tf.clip_by_value(line, 0.0, 255.0)), tf.uint8)

    is_line = tf.logical_and(channels == 1, height == HEIGHT)
    return tf.ensure_shape(tf.cond(is_line, lambda: image[:, :, 0], general), [HEIGHT, None])


def read_rows(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads image files in the graph; one that cannot be read hurts no other.

    Args:
      encoded: string[B], B at least 1.

    Returns:
      pixels uint8[B, 32, W], zero beyond each line's width; width int32[B] in pixels; status int32[B]; and the width of
      the image as it was given, int32[B] in pixels. A line that was not read is one pixel wide.
    """
    return tf.cond(tf.size(encoded) == 1, lambda: _read_one(encoded), lambda: _read_many(encoded))


def _read_one(encoded: tf.Tensor) -> tuple[tf.Tensor, ...]:
    # What runs inside a data set is prepared anew with every call, so nothing does but the ops that may fail.
    def attempt(op: Callable[[tf.Tensor], tf.Tensor], file: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
        failed = tf.data.Dataset.from_tensors(otherwise)
        return tf.data.Dataset.from_tensors(file).map(op).ignore_errors().concatenate(failed).take(1).get_single_element()

    return tuple(value[tf.newaxis] for value in _read(encoded[0], attempt))


def _read_many(encoded: tf.Tensor) -> tuple[tf.Tensor, ...]:
    count = tf.size(encoded)

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return number, *_read(encoded[number], lambda op, file, _: op(file))

    rows = tf.data.Dataset.range(tf.cast(count, tf.int64), output_type=tf.int32)
    found = rows.map(read, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    failed = tf.data.Dataset.from_tensors((count, *_unread(UNDECODABLE)))
    number, *values = found.concatenate(failed).padded_batch(tf.cast(count, tf.int64) + 1).get_single_element()
    last = tf.size(number) - 1
    place = tf.tensor_scatter_nd_update(tf.fill([count + 1], last), number[:, tf.newaxis], tf.range(last + 1))[:count]
    return tuple(tf.gather(value, place) for value in values)


def _read(file: tf.Tensor, attempt: Callable[[Callable, tf.Tensor, tf.Tensor], tf.Tensor]) -> tuple[tf.Tensor, ...]:
    """Reads an image file: pixels uint8[32, W], its width, its status and its width as it was given.

    Args:
      file: string scalar.
      attempt: runs an op that fails where the file is damaged, and then may return its last argument.
    """
    file = header_graph.first_frame(file)
    height, width = tf.unstack(header_graph.size(file, attempt))
    code = status(file, height, width)
    nothing = tf.zeros([0, 0, 1], tf.uint8)
    image = tf.cond(code == READ, lambda: attempt(decode_image, file, nothing), lambda: nothing)

    def read() -> tuple[tf.Tensor, ...]:
        line = to_line(_without_unused_alpha(file, image))
        return line, tf.shape(line)[1], code, tf.cast(width, tf.int32)

    return tf.cond(tf.size(image) > 0, read, lambda: _unread(tf.where(code == READ, UNDECODABLE, code)))


def _unread(code: tf.Tensor | int) -> tuple[tf.Tensor, ...]:
    """Returns what stands for a file that could not be read: a line one pixel wide."""
    return tf.zeros([HEIGHT, 1], tf.uint8), tf.constant(1), tf.convert_to_tensor(code), tf.constant(1)


def read_records(record: dict[str, tf.Tensor], only_raw: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads the images of parsed records, a whole batch of them, in the graph.

    Args:
      record: as `schema.parse` gives them, B at least 1.
      only_raw: whether none of them holds an image file, which makes for a smaller graph.

    Returns:
      pixels uint8[B, 32, W], zero beyond each line's width; width int32[B] in pixels.

    Raises:
      tf.errors.InvalidArgumentError: one cannot be decoded, or is not what its record says of it.
    """
    return _record_decoder(only_raw)({key: record[key] for key in _OF_A_RECORD})


@functools.cache
def _record_decoder(only_raw: bool) -> Callable[[dict[str, tf.Tensor]], tuple[tf.Tensor, tf.Tensor]]:
    """Returns one graph for all the pipelines of a process: to make it takes most of a second."""
    signature = {key: tf.TensorSpec([None], dtype) for key, dtype in _OF_A_RECORD.items()}
    return tf.function(functools.partial(_read_all, only_raw=only_raw), [signature], autograph=False)


def _read_all(record: dict[str, tf.Tensor], only_raw: bool) -> tuple[tf.Tensor, tf.Tensor]:
    height, width = record["height"], record["width"]
    allowed = (tf.minimum(height, width) > 0) & (height * width <= MAX_PIXELS) & (width * HEIGHT <= MAX_WIDTH * height)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(allowed), ["an image's size is out of bounds"])]):
        scaled = tf.cast(scaled_width(height, width), tf.int32)
    raw = record["format"] == schema.RAW
    is_line = tf.reduce_all((height == HEIGHT) & (record["channels"] == 1))
    encoded, sizes = record["encoded"], HEIGHT * scaled

    def all_raw() -> tf.Tensor:
        told = tf.debugging.assert_equal(tf.strings.length(encoded), sizes, "raw pixels are not as many as the record says")
        alike = lambda: tf.reshape(tf.io.decode_raw(encoded, tf.uint8), [-1])  # noqa: E731
        joined = lambda: tf.io.decode_raw(tf.strings.reduce_join(encoded), tf.uint8)  # noqa: E731
        with tf.control_dependencies([told]):
            return tf.cond(tf.reduce_all(sizes == sizes[0]), alike, joined)

    def line(row: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(decode_image(row), [HEIGHT, None, 1])

    def general(row: tf.Tensor, is_raw: tf.Tensor) -> tf.Tensor:
        return tf.cond(is_raw, lambda: tf.io.decode_raw(row, tf.uint8), lambda: tf.reshape(to_line(decode_image(row)), [-1]))

    def decoded(one: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], at_once: int) -> tf.Tensor:
        rows = lambda row: tf.reshape(one(encoded[row], raw[row]), [sizes[row]])  # noqa: E731
        return _in_turns(rows, tf.size(encoded), tf.uint8, at_once)[: tf.reduce_sum(sizes)]

    if only_raw:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(raw), ["an image that is not raw"])]):
            encoded = tf.identity(encoded)
        return _side_by_side(all_raw(), scaled), scaled
    lines = lambda: tf.cond(is_line & ~tf.reduce_any(raw), lambda: decoded(line, _AT_ONCE), lambda: decoded(general, 1))  # noqa: E731
    return _side_by_side(tf.cond(tf.reduce_all(raw), all_raw, lines), scaled), scaled


def _in_turns(one: Callable[[tf.Tensor], tf.Tensor], count: tf.Tensor, dtype: tf.DType, at_once: int) -> tf.Tensor:
    """Joins what each row of a batch gives, a tensor of one dimension; the last row's comes some times over at the end.

    A turn of the loop does `at_once` rows: fewer turns, less to do around them.
    """
    turns = -(-count // at_once)

    def some(turn: tf.Tensor, done: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = tf.unstack(tf.minimum(turn * at_once + tf.range(at_once), count - 1))
        return turn + 1, done.write(turn, tf.concat([one(row) for row in rows], 0))

    done = tf.TensorArray(dtype, turns, infer_shape=False, element_shape=[None])
    return tf.while_loop(lambda turn, _: turn < turns, some, (0, done))[1].concat()


def _side_by_side(pixels: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Makes a batch uint8[B, 32, W] of lines that follow each other, uint8[32 * sum of widths]."""
    widest = tf.reduce_max(width)

    def padded() -> tf.Tensor:
        rows = tf.RaggedTensor.from_row_lengths(pixels, tf.repeat(width, HEIGHT), validate=False)
        return rows.to_tensor()

    flat = tf.cond(tf.reduce_all(width == widest), lambda: tf.reshape(pixels, [-1, widest]), padded)
    return tf.ensure_shape(tf.reshape(flat, [-1, HEIGHT, widest]), [None, HEIGHT, None])


def frames(width: tf.Tensor, pixels_per_frame: int) -> tf.Tensor:
    """Returns how many frames a line of this width in pixels has: the last one may be partly beyond it."""
    return -(-width // pixels_per_frame)


def to_network(pixels: tf.Tensor, width: tf.Tensor, pixels_per_frame: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Gives the network's two inputs.

    Args:
      pixels: uint8[B, 32, W], anything beyond a line's width.
      width: int32[B], in pixels.
      pixels_per_frame: of the network.

    Returns:
      image float32[B, 32, T * pixels_per_frame, 1] from -1 (black) to 1 (white), 0 beyond a line's width; mask
      float32[B, 1, T, 1], 1 on a line's own frames and 0 beyond, which the network multiplies its features with, so that
      a line reads the same alone and beside wider ones.
    """
    columns = tf.shape(pixels)[2]
    count = frames(columns, pixels_per_frame)
    own = tf.sequence_mask(width, columns, tf.float32)[:, tf.newaxis]
    image = (tf.cast(pixels, tf.float32) / 127.5 - 1.0) * own
    image = tf.pad(image, [[0, 0], [0, 0], [0, count * pixels_per_frame - columns]])
    mask = tf.sequence_mask(frames(width, pixels_per_frame), count, tf.float32)
    return tf.ensure_shape(image[..., tf.newaxis], [None, HEIGHT, None, 1]), mask[:, tf.newaxis, :, tf.newaxis]
