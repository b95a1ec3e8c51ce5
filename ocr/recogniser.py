"""A trained network with its alphabet: lines or image files in, texts out. Evaluation runs it, and it is what is exported."""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from ocr import decode, frozen, images, models
from ocr.charset import Charset


class Recogniser:
    """Reads lines.

    Args:
      model: that `models.build` made.
      charset: whose classes the model's logits are.
      decoder: of `decode.DECODERS`.
      fixed: whether it is to hold the weights as they are now, for an export; or else to read with what they are at the time.

    Attributes:
      charset: as given.
      logits: runs the network on pixels and widths: see `models.logits`.
    """

    def __init__(self, model: keras.Model, charset: Charset, decoder: str = "greedy", fixed: bool = False):
        self.charset = charset
        self._decode = decode.DECODERS[decoder]
        self.logits: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] = (
            frozen.network(model) if fixed else functools.partial(models.logits, model, training=False)
        )

    def texts(self, logits: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the texts string[B] and their confidences float32[B], each the probability of that text."""
        decoded = self._decode(logits, frames)
        return self.charset.decode_graph(decoded.ids, decoded.lengths), decoded.confidence

    def read_files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads image files.

        Args:
          image_bytes: string[B], PNG, JPEG, GIF or BMP files as they are on disk; B may be 0.

        Returns:
          `text` string[B], `confidence` float32[B] from 0 to 1, `status` int32[B] of `ocr.images`; a file that was not
          read has an empty text and confidence 0.
        """
        rows = tf.shape(image_bytes)[0]
        # Neither a data set nor a convolution gives the right shapes of no rows at all.
        some = tf.concat([image_bytes, tf.fill([tf.cast(rows == 0, tf.int32)], "")], axis=0)
        pixels, width, status = images.read_rows(some)
        text, confidence = self.texts(*self.logits(pixels, width))
        read = status == images.READ
        outputs = {"text": tf.where(read, text, ""), "confidence": tf.where(read, confidence, 0.0), "status": status}
        return {name: value[:rows] for name, value in outputs.items()}
