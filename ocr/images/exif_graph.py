"""Exif orientation in the graph, as `exif` reads it in Python, and turning an image by it."""

from collections.abc import Callable

import tensorflow as tf

from ocr.images import exif
from ocr.images.header import JPEG_MAGIC, PNG_MAGIC
from ocr.images.noinline import noinline

_LONGEST = 10  # bytes of a part that are read at once: a JPEG's marker, length and `exif.MARK`


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of an image file, 1 to 8; 1 if it has none, or malformed Exif data: int32 scalar."""
    # Most files have none, and finding that out takes much less time than a walk through their parts.
    name = tf.where(_begins(encoded, JPEG_MAGIC), exif.MARK, exif.CHUNK)
    pieces = tf.raw_ops.StringSplitV2(input=encoded[tf.newaxis], sep=name, maxsplit=1).values
    return tf.cond(tf.size(pieces) > 1, lambda: _find_orientation(encoded), lambda: tf.constant(exif.UPRIGHT))


def shown(size: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the height and width of an image once `turn` has turned it: a tensor [2], as given."""
    return tf.where(orientation >= min(exif.SIDEWAYS), size[::-1], size)


def turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image [H, W, channels] as viewers do; an orientation that does not exist changes nothing."""

    def turned() -> tf.Tensor:
        upright = tf.cond(_is_one_of(orientation, exif.SIDEWAYS), lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        down, across = (tf.where(_is_one_of(orientation, flipped), -1, 1) for flipped in ((3, 4, 7, 8), (2, 3, 6, 7)))
        return upright[::down, ::across]

    return tf.ensure_shape(tf.cond(orientation == exif.UPRIGHT, lambda: image, turned), [None, None, None])


def is_whole_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether a JPEG file has an end, without which TensorFlow cannot decode it: bool scalar."""
    has_end = tf.strings.substr(encoded, -2, 2) == b"\xff\xd9"
    return tf.cond(has_end, lambda: has_end, lambda: _has_end_inside(encoded))


@noinline
def _has_end_inside(encoded: tf.Tensor) -> tf.Tensor:
    octets = tf.io.decode_raw(encoded, tf.uint8)
    ends = tf.where((octets[:-1] == 0xFF) & (octets[1:] == 0xD9))[:, 0]
    return tf.reduce_any(ends > _walk_jpeg(octets, stop_at_exif=False))  # a thumbnail before the data may have an end


@noinline
def _find_orientation(encoded: tf.Tensor) -> tf.Tensor:
    octets = tf.io.decode_raw(encoded, tf.uint8)
    png = lambda: tf.cond(_begins(encoded, PNG_MAGIC), lambda: _png_exif(octets), lambda: octets[:0])  # noqa: E731
    return _orientation(tf.cond(_begins(encoded, JPEG_MAGIC), lambda: _jpeg_exif(octets), png))


def _begins(encoded: tf.Tensor, magic: bytes) -> tf.Tensor:
    """Returns whether a file begins with these bytes: bool scalar."""
    return tf.strings.substr(encoded, 0, len(magic)) == magic


def _is_one_of(value: tf.Tensor, values: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(values, value.dtype))


def _jpeg_exif(octets: tf.Tensor) -> tf.Tensor:
    """Returns the Exif data of a JPEG file, uint8[N], or nothing."""
    at = _walk_jpeg(octets, stop_at_exif=True)
    part = _part(octets, at)
    return tf.cond(_is_jpeg_exif(part), lambda: octets[at + 4 : at + 2 + _integer(part[2:4])], lambda: octets[:0])


def _walk_jpeg(octets: tf.Tensor, stop_at_exif: bool) -> tf.Tensor:
    """Returns where a JPEG's data or, if asked for, its Exif data begin, or where its segments are malformed: int64 scalar."""

    def is_last(part: tf.Tensor) -> tf.Tensor:
        return (part[0] != 0xFF) | (part[1] == exif.SCAN_MARKER) | (stop_at_exif & _is_jpeg_exif(part))

    def length(part: tf.Tensor) -> tf.Tensor:
        bare = tf.where(part[1] == 0xFF, tf.constant(1, tf.int64), 2)
        is_bare = _is_one_of(part[1], (0xFF, *exif.BARE_MARKERS))
        return tf.where(is_bare, bare, 2 + _integer(part[2:4]))

    return _walk(octets, 2, is_last, length)


def _is_jpeg_exif(part: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(part[:2] == [0xFF, exif.APP1_MARKER]) & tf.reduce_all(part[4:] == list(exif.MARK))


def _png_exif(octets: tf.Tensor) -> tf.Tensor:
    """Returns the Exif data of a PNG file, uint8[N], or nothing."""
    is_exif = lambda part: tf.reduce_all(part[4:8] == list(exif.CHUNK))  # noqa: E731
    is_last = lambda part: is_exif(part) | tf.reduce_all(part[4:8] == list(b"IEND"))  # noqa: E731
    at = _walk(octets, 8, is_last, lambda part: 12 + _integer(part[:4]))
    part = _part(octets, at)
    return tf.cond(is_exif(part), lambda: octets[at + 8 : at + 8 + _integer(part[:4])], lambda: octets[:0])


def _walk(octets: tf.Tensor, start: int, is_last: Callable, length: Callable) -> tf.Tensor:
    """Walks through the parts of a file up to the last one, or its end; returns where that begins: int64 scalar."""

    def has_more(at: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        return (at < tf.size(octets, tf.int64)) & (count < exif.MAX_PARTS) & ~is_last(_part(octets, at))

    def take(at: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return at + length(_part(octets, at)), count + 1

    return tf.while_loop(has_more, take, (tf.constant(start, tf.int64), tf.constant(1)))[0]


def _part(octets: tf.Tensor, at: tf.Tensor | int) -> tf.Tensor:
    """Returns the first bytes of a part, with zeros beyond the file's end: int64[_LONGEST]."""
    part = tf.cast(octets[at : at + _LONGEST], tf.int64)
    return tf.ensure_shape(tf.pad(part, [[0, _LONGEST - tf.size(part)]]), [_LONGEST])


def _integer(octets: tf.Tensor) -> tf.Tensor:
    """Returns the integer that bytes encode, the most significant first: [..., N] -> [...]."""
    return tf.reduce_sum(octets * [256**power for power in reversed(range(octets.shape[-1]))], axis=-1)


def _orientation(data: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in Exif data, uint8[N]: int32 scalar."""
    prefix = len(exif.MARK)
    has_prefix = tf.reduce_all(_part(data, 0)[:prefix] == list(exif.MARK))
    data = tf.cond(has_prefix, lambda: data[prefix:], lambda: data)
    head = _part(data, 0)
    little, big = (tf.reduce_all(head[:4] == list(order)) for order in (b"II*\0", b"MM\0*"))

    def integer(octets: tf.Tensor) -> tf.Tensor:
        return _integer(tf.where(little, octets[..., ::-1], octets))

    def read() -> tf.Tensor:
        start = integer(head[4:8])
        count = integer(_part(data, start)[:2])
        entries = data[start + 2 : start + 2 + 12 * count]
        entries = tf.cast(tf.reshape(entries[: tf.size(entries) // 12 * 12], [-1, 12]), tf.int64)
        kinds = integer(entries[:, 2:4])
        values = tf.where(kinds == exif.SHORT, integer(entries[:, 8:10]), integer(entries[:, 8:12]))
        is_short_or_long = (kinds == exif.SHORT) | (kinds == exif.LONG)
        is_orientation = (integer(entries[:, :2]) == exif.TAG) & is_short_or_long & (integer(entries[:, 4:8]) == 1)
        value = tf.concat([tf.boolean_mask(values, is_orientation), [exif.UPRIGHT]], 0)[0]
        return tf.where((value >= 1) & (value <= 8), tf.cast(value, tf.int32), exif.UPRIGHT)

    return tf.cond((little | big) & (tf.size(data) >= 8), read, lambda: tf.constant(exif.UPRIGHT))
