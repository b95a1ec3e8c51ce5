"""What an image file says of itself before it is unfolded: its size, and whether TensorFlow will read it as it is meant."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

_GIF, _BMP, _JPEG = b"GIF8", b"BM", b"\xff\xd8\xff"
_HEADER = 70  # bytes looked at
# Where a header holds the height and width: first byte, number of bytes, whether the least comes first.
_PLACES = {
    b"\x89PNG\r\n\x1a\n": ((20, 4, False), (16, 4, False)),
    _GIF: ((8, 2, True), (6, 2, True)),
    _BMP: ((22, 4, True), (18, 4, True)),
}
# Blocks that a GIF may have up to the end of its first frame: some, and one more for so many of its bytes. Encoders make them
# as long as may be, 255 bytes; a file of short ones would take long to walk through.
_BLOCKS, _BYTES_OF_A_BLOCK = 500, 128


def size(encoded: tf.Tensor, attempt: Callable = lambda op, file, _: op(file)) -> tf.Tensor:
    """Reads an image's size off its header.

    Args:
      encoded: string scalar, a PNG, JPEG or BMP file, or a GIF file that `first_frame` has passed.
      attempt: runs an op on the file that fails where a JPEG's header is damaged, and then may return its last argument.

    Returns:
      int64[2]: height and width in pixels; zeros for any other kind of file, and for a BMP that TensorFlow misreads.

    Raises:
      tf.errors.InvalidArgumentError: a JPEG's header is damaged.
    """
    octets = _header(encoded)
    found = tf.zeros([2], tf.int64)
    for magic, places in _PLACES.items():
        found = tf.where(_begins(encoded, magic), tf.stack([_number(octets, *place) for place in places]), found)
    # Of a BMP that is stored from the top down the height is negative.
    found = tf.where(tf.logical_and(found >= 2**31, _begins(encoded, _BMP)), 2**32 - found, found)
    found = tf.cond(_begins(encoded, _BMP), lambda: tf.where(_as_meant(encoded, octets), found, 0), lambda: found)
    jpeg = lambda: tf.cast(attempt(tf.io.extract_jpeg_shape, encoded, tf.zeros([3], tf.int32))[:2], tf.int64)  # noqa: E731
    return tf.cond(_begins(encoded, _JPEG), jpeg, lambda: found)


def unused_alpha(encoded: tf.Tensor) -> tf.Tensor:
    """Says whether a file's fourth channel holds nothing: that of an uncompressed BMP is only room. bool scalar."""
    return tf.logical_and(_begins(encoded, _BMP), _number(_header(encoded), 30, 4) == 0)


def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """Cuts a GIF down to its first frame, with that frame's size in its header: TensorFlow would unfold every frame, of
    whatever size each says it has. Any other file is returned as it is. string scalar."""
    return tf.cond(_begins(encoded, _GIF), lambda: _cut_gif(encoded), lambda: encoded)


def _begins(encoded: tf.Tensor, magic: bytes) -> tf.Tensor:
    return tf.strings.substr(encoded, 0, len(magic)) == magic


def _header(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the first bytes of a file, zeros where it has none: int64[_HEADER]."""
    padded = tf.strings.substr(tf.strings.join([tf.strings.substr(encoded, 0, _HEADER), b"\0" * _HEADER]), 0, _HEADER)
    return tf.cast(tf.io.decode_raw(padded, tf.uint8), tf.int64)


def _number(octets: tf.Tensor, at: int, length: int, least_first: bool = True) -> tf.Tensor:
    """Returns the number that some bytes of a header are."""
    powers = 256 ** np.arange(length)
    return tf.reduce_sum(octets[at : at + length] * (powers if least_first else powers[::-1]))


def _as_meant(encoded: tf.Tensor, octets: tf.Tensor) -> tf.Tensor:
    """Says whether a BMP is of the kinds that TensorFlow reads rightly, for it looks neither at palettes nor at masks: true
    colour, or grey whose palette is the greys in order."""
    header, bits, packing, used = (_number(octets, *place) for place in ((14, 4), (28, 2), (30, 4), (46, 4)))
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


def _cut_gif(encoded: tf.Tensor) -> tf.Tensor:
    octets = tf.io.decode_raw(encoded, tf.uint8)
    count = tf.size(octets)

    def at(place: tf.Tensor) -> tf.Tensor:
        return tf.where(place < count, tf.cast(octets[tf.minimum(place, count - 1)], tf.int32), 0)

    def after_table(flags: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        return place + tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def after_blocks(place: tf.Tensor, left: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        more, following = lambda p, left: (at(p) > 0) & (left > 0), lambda p, left: (p + at(p) + 1, left - 1)
        place, left = tf.while_loop(more, following, (place, left))
        return place + 1, left

    start = after_table(at(tf.constant(10)), tf.constant(13))
    is_extension, past_it = lambda p, left: (at(p) == 0x21) & (left > 0), lambda p, left: after_blocks(p + 2, left - 1)
    frame, left = tf.while_loop(is_extension, past_it, (start, _BLOCKS + count // _BYTES_OF_A_BLOCK))
    end, _ = after_blocks(after_table(at(frame + 9), frame + 10) + 1, left)

    def part(first: tf.Tensor | int, last: tf.Tensor | int) -> tf.Tensor:
        first, last = tf.minimum(first, count), tf.minimum(last, count)
        return tf.strings.substr(encoded, first, tf.maximum(last - first, 0))

    cut = [part(0, 6), part(frame + 5, frame + 9), part(10, frame + 1), b"\0\0\0\0", part(frame + 5, end), b";"]
    return tf.cond(at(frame) == 0x2C, lambda: tf.strings.join(cut), lambda: tf.constant(b"GIF89a"))
