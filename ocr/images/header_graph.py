"""Image headers in the graph: the size before decoding, and whether TensorFlow will decode the file correctly."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ocr.images import exif_graph
from ocr.images.header import BMP_MAGIC, GIF_MAGIC, JPEG_MAGIC, PNG_MAGIC
from ocr.images.noinline import noinline

_HEADER_BYTES = 70  # enough for all that is read here
# Where a header holds the height and width: first byte, number of bytes, whether the least significant comes first.
_SIZE_FIELDS = {
    PNG_MAGIC: ((20, 4, False), (16, 4, False)),
    GIF_MAGIC: ((8, 2, True), (6, 2, True)),
    BMP_MAGIC: ((22, 4, True), (18, 4, True)),
}
# A GIF may have this many blocks up to the end of its first frame, and one more for every so many bytes of the file. Encoders
# fill blocks to 255 bytes; a file of short ones would take long to walk through.
_MAX_BLOCKS, _BYTES_PER_BLOCK = 500, 128


def size(encoded: tf.Tensor, attempt: Callable = lambda op, file, _: op(file)) -> tf.Tensor:
    """Reads from its header the size that an image is stored in; it may be shown turned: see `exif_graph`.

    Args:
      encoded: string scalar, a PNG, JPEG or BMP file, or a GIF file that `first_frame` has passed.
      attempt: calls its first argument, an op, with the second, the file. The op fails if a JPEG's header is damaged;
        `attempt` may then return its third argument instead.

    Returns:
      int64[2]: height and width in pixels; zeros for any other kind of file, for a JPEG that has been cut, and for a BMP that
      TensorFlow decodes wrongly.

    Raises:
      tf.errors.InvalidArgumentError: a JPEG's header is damaged.
    """
    octets = _header(encoded)
    pixels = tf.zeros([2], tf.int64)
    for magic, fields in _SIZE_FIELDS.items():
        pixels = tf.where(_begins(encoded, magic), tf.stack([_number(octets, *field) for field in fields]), pixels)
    is_bmp = _begins(encoded, BMP_MAGIC)
    # A BMP that is stored from the top down has a negative height.
    pixels = tf.where(tf.logical_and(pixels >= 2**31, is_bmp), 2**32 - pixels, pixels)
    pixels = tf.cond(is_bmp, lambda: tf.where(_is_supported_bmp(encoded, octets), pixels, 0), lambda: pixels)
    jpeg = lambda: tf.cast(attempt(tf.io.extract_jpeg_shape, encoded, tf.zeros([3], tf.int32))[:2], tf.int64)  # noqa: E731
    # libjpeg would write nameless complaints about a cut file to stderr before it fails.
    whole_jpeg = lambda: tf.cond(exif_graph.is_whole_jpeg(encoded), jpeg, lambda: tf.zeros([2], tf.int64))  # noqa: E731
    return tf.cond(_begins(encoded, JPEG_MAGIC), whole_jpeg, lambda: pixels)


def unused_alpha(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether a file's fourth channel is padding, as in an uncompressed BMP: bool scalar."""
    return tf.logical_and(_begins(encoded, BMP_MAGIC), _number(_header(encoded), 30, 4) == 0)


def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """Cuts a GIF down to its first frame, and returns any other file unchanged: string scalar.

    The header gets the frame's own size. TensorFlow would decode every frame, of whatever size.
    """
    return tf.cond(_begins(encoded, GIF_MAGIC), lambda: _cut_gif(encoded), lambda: encoded)


def _begins(encoded: tf.Tensor, magic: bytes) -> tf.Tensor:
    """Returns whether a file begins with these bytes: bool scalar."""
    return tf.strings.substr(encoded, 0, len(magic)) == magic


def _header(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the first bytes of a file, padded with zeros: int64[_HEADER_BYTES]."""
    padded = tf.strings.substr(
        tf.strings.join([tf.strings.substr(encoded, 0, _HEADER_BYTES), b"\0" * _HEADER_BYTES]), 0, _HEADER_BYTES
    )
    return tf.cast(tf.io.decode_raw(padded, tf.uint8), tf.int64)


def _number(octets: tf.Tensor, at: int, length: int, least_first: bool = True) -> tf.Tensor:
    """Returns the integer that some bytes of a header encode: int64 scalar."""
    powers = 256 ** np.arange(length)
    return tf.reduce_sum(octets[at : at + length] * (powers if least_first else powers[::-1]))


@noinline
def _is_supported_bmp(encoded: tf.Tensor, octets: tf.Tensor) -> tf.Tensor:
    """Returns whether TensorFlow decodes a BMP correctly: bool scalar.

    It ignores palettes and masks, so that leaves true colour, and grey whose palette is the greys in order.
    """
    header, bits, packing, used = (_number(octets, *field) for field in ((14, 4), (28, 2), (30, 4), (46, 4)))
    used = tf.where((used == 0) | (used > 256), tf.constant(256, tf.int64), used)
    after = tf.minimum(14 + header, tf.cast(tf.strings.length(encoded), tf.int64))
    palette = tf.io.decode_raw(tf.strings.substr(encoded, after, 4 * used), tf.uint8)
    grey = tf.cast(tf.repeat(tf.range(used), 3), tf.uint8)
    palette = tf.reshape(tf.reshape(palette[: tf.size(palette) // 4 * 4], [-1, 4])[:, :3], [-1])
    is_grey = tf.cond(tf.size(palette) == tf.size(grey), lambda: tf.reduce_all(palette == grey), lambda: tf.constant(False))
    masks = tf.stack([_number(octets, 54 + 4 * channel, 4) for channel in range(3)])
    usual = tf.reduce_all(masks == tf.constant([0xFF0000, 0xFF00, 0xFF], tf.int64))
    true_colour = (packing == 0) & ((bits == 24) | (bits == 32)) | (packing == 3) & (bits == 32) & usual
    return (header >= 40) & (true_colour | (packing == 0) & (bits == 8) & is_grey)


@noinline
def _cut_gif(encoded: tf.Tensor) -> tf.Tensor:
    """Returns a GIF of the first frame alone, or a GIF without a frame if there is none."""
    octets = tf.io.decode_raw(encoded, tf.uint8)
    count = tf.size(octets)

    def at(position: tf.Tensor) -> tf.Tensor:
        return tf.where(position < count, tf.cast(octets[tf.minimum(position, count - 1)], tf.int32), 0)

    def after_table(flags: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        return position + tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def after_blocks(position: tf.Tensor, budget: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        has_more, next_block = lambda p, left: (at(p) > 0) & (left > 0), lambda p, left: (p + at(p) + 1, left - 1)
        position, budget = tf.while_loop(has_more, next_block, (position, budget))
        return position + 1, budget

    start = after_table(at(tf.constant(10)), tf.constant(13))
    is_extension, skip = lambda p, left: (at(p) == 0x21) & (left > 0), lambda p, left: after_blocks(p + 2, left - 1)
    frame, budget = tf.while_loop(is_extension, skip, (start, _MAX_BLOCKS + count // _BYTES_PER_BLOCK))
    end, _ = after_blocks(after_table(at(frame + 9), frame + 10) + 1, budget)

    def part(first: tf.Tensor | int, last: tf.Tensor | int) -> tf.Tensor:
        first, last = tf.minimum(first, count), tf.minimum(last, count)
        return tf.strings.substr(encoded, first, tf.maximum(last - first, 0))

    cut = [part(0, 6), part(frame + 5, frame + 9), part(10, frame + 1), b"\0\0\0\0", part(frame + 5, end), b";"]
    return tf.cond(at(frame) == 0x2C, lambda: tf.strings.join(cut), lambda: tf.constant(b"GIF89a"))
