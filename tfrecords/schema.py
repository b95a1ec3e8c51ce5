"""A line of text as a `tf.train.Example`, under the keys that TensorFlow's OCR data sets use."""

import functools
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # writing records must not wait for TensorFlow to start
    import tensorflow as tf

PNG, JPEG, RAW = "png", "jpeg", "raw"
_UPRIGHT = 1  # the orientation of images without one


class Record(NamedTuple):
    """What a shard holds of one line.

    Attributes:
      encoded: the image file's bytes; for `raw`, height * width grey values, row by row.
      image_format: `png`, `jpeg` or `raw`.
      height: of the image as it is shown, in pixels.
      width: of the image as it is shown, in pixels.
      channels: of the stored image; 0 if its header does not say.
      text: the line's text.
      filename: the image's name as the labels file has it.
      font: font that the line was drawn with; empty if unknown.
      middles: column of each character's middle, in pixels of the image as it is shown; empty if unknown.
      orientation: how the stored image must be turned to be shown, 1 to 8 as in Exif.
    """

    encoded: bytes
    image_format: str
    height: int
    width: int
    channels: int
    text: str
    filename: str
    font: str = ""
    middles: tuple[int, ...] = ()
    orientation: int = _UPRIGHT

    def serialize(self) -> bytes:
        """Returns the record as a serialized Example; equal records give equal bytes.

        Encoded by hand, since this is the converter's inner loop: protocol buffers as in
        tensorflow/core/example/feature.proto, with the keys in order.
        """
        entries = b"".join(
            (
                _ints(b"image/channels", self.channels),
                _octets(b"image/encoded", self.encoded),
                _octets(b"image/filename", self.filename.encode("utf-8", "surrogateescape")),
                _octets(b"image/font", self.font.encode("utf-8")) if self.font else b"",
                _octets(b"image/format", self.image_format.encode("ascii")),
                _ints(b"image/height", self.height),
                _ints(b"image/middles", *self.middles) if self.middles else b"",
                _ints(b"image/orientation", self.orientation) if self.orientation != _UPRIGHT else b"",
                _octets(b"image/text", self.text.encode("utf-8")),
                _ints(b"image/width", self.width),
            )
        )
        return b"\x0a%b%b" % (_varint(len(entries)), entries)


def _octets(key: bytes, value: bytes) -> bytes:
    """Returns the map entry of a feature that holds one byte string."""
    length = _varint(len(value))
    items = 1 + len(length) + len(value)  # BytesList
    feature = 1 + len(_varint(items)) + items
    entry = 2 + len(key) + 1 + len(_varint(feature)) + feature
    parts = (_varint(entry), len(key), key, _varint(feature), _varint(items), length, value)
    return b"\x0a%b\x0a%c%b\x12%b\x0a%b\x0a%b%b" % parts


@functools.lru_cache(maxsize=4096)
def _ints(key: bytes, *values: int) -> bytes:
    """Returns the map entry of a feature that holds integers, none of them negative."""
    numbers = b"".join(map(_varint, values))
    packed = b"\x0a%b%b" % (_varint(len(numbers)), numbers)  # Int64List
    feature = b"\x1a%b%b" % (_varint(len(packed)), packed)
    entry = b"\x0a%c%b\x12%b%b" % (len(key), key, _varint(len(feature)), feature)
    return b"\x0a%b%b" % (_varint(len(entry)), entry)


@functools.lru_cache(maxsize=16_384)
def _varint(number: int) -> bytes:
    """Returns an integer in base 128, least significant digit first, with the top bit set in all bytes but the last."""
    octets = bytearray()
    while number >= 128:
        octets.append(number & 127 | 128)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def parse(serialized: "tf.Tensor", middles: bool = False) -> dict[str, "tf.Tensor"]:
    """Parses Examples in the graph.

    Args:
      serialized: string[B].
      middles: whether to parse the characters' middles too.

    Returns:
      `encoded`, `format`, `text`, `filename`, `font`: string[B]; `height`, `width`, `channels`, `orientation`: int64[B]; and,
      if asked for, `middles`: ragged int64[B, (N)], an empty row where they are unknown.
    """
    import tensorflow as tf

    strings = {key: tf.io.FixedLenFeature([], tf.string) for key in ("encoded", "format", "text", "filename")}
    sizes = {key: tf.io.FixedLenFeature([], tf.int64) for key in ("height", "width", "channels")}
    features = {f"image/{key}": feature for key, feature in (strings | sizes).items()}
    features["image/font"] = tf.io.FixedLenFeature([], tf.string, "")
    # Earlier records lack it: their images are read as they are stored, in which size their records give them.
    features["image/orientation"] = tf.io.FixedLenFeature([], tf.int64, _UPRIGHT)
    if middles:
        features["image/middles"] = tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)
    parsed = tf.io.parse_example(serialized, features)
    return {key.removeprefix("image/"): value for key, value in parsed.items()}
