"""The images of parsed records, decoded a batch at a time."""

import functools
from collections.abc import Callable

import tensorflow as tf

from ocr.images import exif, exif_graph, header, preprocess
from tfrecords import schema

_PER_TURN = 8  # images that one turn of a loop decodes, if there is little else to do with them
_FIELDS = {"encoded": tf.string, "format": tf.string} | dict.fromkeys(("height", "width", "channels", "orientation"), tf.int64)


def read(record: dict[str, tf.Tensor], line_height: int, only_raw: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
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
    return _record_decoder(line_height, only_raw)({key: record[key] for key in _FIELDS})


@functools.cache
def _record_decoder(line_height: int, only_raw: bool) -> Callable[[dict[str, tf.Tensor]], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a graph that all pipelines of a process share, since building it takes most of a second."""
    signature = {key: tf.TensorSpec([None], dtype) for key, dtype in _FIELDS.items()}
    return tf.function(
        functools.partial(_decode_records, line_height=line_height, only_raw=only_raw), [signature], autograph=False
    )


def _decode_records(record: dict[str, tf.Tensor], line_height: int, only_raw: bool) -> tuple[tf.Tensor, tf.Tensor]:
    height, width = record["height"], record["width"]
    allowed = (tf.minimum(height, width) > 0) & ~header.is_too_large(height, width)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(allowed), ["an image's size is out of bounds"])]):
        scaled = tf.cast(preprocess.scaled_width(height, width, line_height), tf.int32)
    is_raw = record["format"] == schema.RAW
    encoded, sizes = record["encoded"], line_height * scaled
    if only_raw:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(is_raw), ["an image that is not raw"])]):
            encoded = tf.identity(encoded)
        return _pad_lines(_decode_raw(encoded, sizes), scaled, line_height), scaled

    def line_file(row: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(preprocess.decode_image(encoded[row]), [line_height, None, 1])

    def any_image(row: tf.Tensor) -> tf.Tensor:
        raw = lambda: tf.io.decode_raw(encoded[row], tf.uint8)  # noqa: E731
        turned = lambda: exif_graph.turn(preprocess.decode_image(encoded[row]), record["orientation"][row])  # noqa: E731
        return tf.cond(is_raw[row], raw, lambda: tf.reshape(preprocess.to_line(turned(), line_height), [-1]))

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
    flat = _join_rows(lambda row: tf.shape(preprocess.decode_image(encoded[row])), count, tf.int32, _PER_TURN)
    return tf.reshape(flat, [-1, 3])[:count]
