"""One line of text as a `tf.train.Example`, under the keys that TensorFlow's OCR data sets use."""

import dataclasses

import tensorflow as tf

PNG, JPEG, RAW = "png", "jpeg", "raw"


@dataclasses.dataclass(frozen=True)
class Record:
    """What a shard holds of one line.

    Attributes:
      encoded: the image file's bytes; for `raw`, height * width grey values, row by row.
      image_format: `png`, `jpeg` or `raw`.
      height: of the stored image, in pixels.
      width: of the stored image, in pixels.
      text: the line's text.
      filename: the image's name as the labels file has it.
    """

    encoded: bytes
    image_format: str
    height: int
    width: int
    text: str
    filename: str

    def serialize(self) -> bytes:
        """Returns the record as a serialized Example; equal records give equal bytes."""

        def of_bytes(value: bytes) -> tf.train.Feature:
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

        def of_int(value: int) -> tf.train.Feature:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

        features = {
            "image/encoded": of_bytes(self.encoded),
            "image/format": of_bytes(self.image_format.encode("ascii")),
            "image/height": of_int(self.height),
            "image/width": of_int(self.width),
            "image/text": of_bytes(self.text.encode("utf-8")),
            "image/filename": of_bytes(self.filename.encode("utf-8", "surrogateescape")),
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        return example.SerializeToString(deterministic=True)


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses Examples in the graph.

    Args:
      serialized: string[B].

    Returns:
      `encoded`, `format`, `text`, `filename`: string[B]; `height`, `width`: int64[B].
    """
    strings = {key: tf.io.FixedLenFeature([], tf.string) for key in ("encoded", "format", "text", "filename")}
    sizes = {key: tf.io.FixedLenFeature([], tf.int64) for key in ("height", "width")}
    features = {f"image/{key}": feature for key, feature in (strings | sizes).items()}
    parsed = tf.io.parse_example(serialized, features)
    return {key.removeprefix("image/"): value for key, value in parsed.items()}
