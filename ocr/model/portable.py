"""A network and its decoder for a line at a time, of operations that ONNX and LiteRT have too.

Shapes follow from the input's shape alone up to the logits, which LiteRT needs to run the network with its fast kernels.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from ocr import ctc, keras_compat
from ocr.images.network_input import FrameSize
from ocr.model import frozen, networks

Read = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


def reader(model: keras.Model) -> Read:
    """Returns a function that reads a line with a network's current weights, rounded as in an export, as `decode.greedy` does.

    Args:
      model: built by `networks.build`.

    Returns:
      A function of

      * pixels uint8[1, H, W], with any values beyond the line's width; W is a multiple of the width of the network's frames.
      * width int32[1], in pixels.

      It returns

      * ids int32[1, N], the classes of the characters.
      * lengths int32[1], N.
      * confidence float32[1], the probability of the text.
      * char_confidence float32[1, N], as in `decode.Decoded`.
      * frames int32[1, N, 2], the first frame of each character and its last.
    """
    frame = networks.network(model.name).frame
    network = keras.models.clone_model(model, clone_function=_portable)
    values = [frozen.rounded(tf.convert_to_tensor(variable)).numpy() for variable in network.variables]

    @tf.function(
        input_signature=[tf.TensorSpec([1, frame.height, None], tf.uint8, "pixels"), tf.TensorSpec([1], tf.int32, "width")],
        autograph=False,
    )
    def read(pixels: tf.Tensor, width: tf.Tensor) -> dict[str, tf.Tensor]:
        image, mask = _inputs(pixels, width, frame)
        weights = {id(variable): tf.constant(value) for variable, value in zip(network.variables, values, strict=True)}
        logits = keras_compat.call_with(network, weights, (image, mask))
        return _decode(tf.reshape(logits, [-1, logits.shape[-1]]), tf.reshape(mask, [-1]) > 0)

    return read


class _Widened(keras.layers.Layer):
    """Repeats the columns of a mask [1, 1, W, 1], as `UpSampling2D` does."""

    def __init__(self, layer: keras.layers.UpSampling2D):
        super().__init__(name=layer.name)
        self._repeats = layer.size[1]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.concat([inputs] * self._repeats, -1), [1, 1, -1, 1])

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


class _Product(keras.layers.Layer):
    """A dense layer for features [1, T, D], as one product of matrices."""

    def __init__(self, dense: keras.layers.Dense):
        super().__init__(name=dense.name)
        self._dense = dense

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        product = tf.matmul(tf.reshape(inputs, [-1, inputs.shape[-1]]), tf.convert_to_tensor(self._dense.kernel))
        if self._dense.use_bias:
            product += tf.convert_to_tensor(self._dense.bias)
        return tf.reshape(product, [1, -1, self._dense.units])

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self._dense.units)


def _portable(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Returns a layer that does the same with the same weights, or the layer itself."""
    if isinstance(layer, keras.layers.UpSampling2D):
        return _Widened(layer)
    return _Product(layer) if isinstance(layer, keras.layers.Dense) else layer


def _inputs(pixels: tf.Tensor, width: tf.Tensor, frame: FrameSize) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns image float32[1, H, W, 1] and mask float32[1, 1, T, 1], as `network_input.to_network` does."""
    grey = tf.cast(pixels, tf.float32)
    column = tf.cumsum(tf.ones_like(grey[:, :1]), axis=2, exclusive=True)
    own = tf.cast(column < tf.cast(width, tf.float32), tf.float32)
    image = tf.expand_dims((grey / 127.5 - 1.0) * own, 3)
    return image, tf.expand_dims(own[:, :, :: frame.width], 3)


def _decode(logits: tf.Tensor, own: tf.Tensor) -> dict[str, tf.Tensor]:
    """Decodes logits float32[T, C] as `decode.greedy` does; `own` bool[T] tells which frames are the line's."""
    blank = logits.shape[1] - 1
    path = tf.where(own, tf.argmax(logits, axis=1, output_type=tf.int32), blank)
    outside = tf.constant([-1])
    begins = (path != blank) & (path != tf.concat([outside, path[:-1]], 0))
    ends = (path != blank) & (path != tf.concat([path[1:], outside], 0))
    number = tf.range(tf.size(path))
    ids, first, last = (tf.boolean_mask(*pair) for pair in ((path, begins), (number, begins), (number, ends)))
    within = (number >= first[:, tf.newaxis]) & (number <= last[:, tf.newaxis])  # [N, T]
    probability = tf.gather(tf.nn.softmax(logits), path, batch_dims=1)
    length, frames = tf.size(ids)[tf.newaxis], tf.reduce_sum(tf.cast(own, tf.int32))[tf.newaxis]
    return {
        "ids": ids[tf.newaxis],
        "lengths": length,
        "confidence": ctc.probability(logits[tf.newaxis], frames, ids[tf.newaxis], length),
        "char_confidence": tf.reduce_max(tf.where(within, probability, 0.0), axis=1)[tf.newaxis],
        "frames": tf.stack([first, last], axis=1)[tf.newaxis],
    }
