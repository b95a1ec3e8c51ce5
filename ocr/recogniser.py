"""A trained network with its alphabet: lines or image files in, texts out. Evaluation runs it, and it is what is exported."""

import keras
import tensorflow as tf

from ocr import decode, images, models
from ocr.charset import Charset


class Recogniser(tf.Module):
    """Reads lines.

    Args:
      model: that `models.build` made.
      charset: whose classes the model's logits are.
      decoder: of `decode.DECODERS`.
    """

    def __init__(self, model: keras.Model, charset: Charset, decoder: str = "greedy"):
        super().__init__()
        self.model = model
        self._charset = charset
        self._decode = decode.DECODERS[decoder]

    def logits(self, pixels: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the network: see `models.logits`."""
        return models.logits(self.model, pixels, width, training=False)

    def texts(self, logits: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the texts string[B] and their confidences float32[B], each the probability of that text."""
        decoded = self._decode(logits, frames)
        return self._charset.decode_graph(decoded.ids, decoded.lengths), decoded.confidence

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
