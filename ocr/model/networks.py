"""The networks: images in, logits out, built from plain Keras layers.

Each takes the outputs of `network_input.to_network`, `[image float32[B, H, T * frame width, 1], mask float32[B, 1, T, 1]]`,
and returns logits float32[B, T, C], never a softmax. Before each layer that sees neighbouring columns, everything beyond a
line's own frames is set to zero, like the padding at the edge of an image. So a line's logits do not depend on what else is
in the batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from ocr import keras_compat
from ocr.images import network_input
from ocr.images.network_input import FrameSize
from ocr.model import layers as fast_layers
from tfrecords.errors import InputError

Symbolic = Any  # a symbolic tensor: keras.KerasTensor in Keras 3, of a private class in Keras 2
_Size = int | tuple[int, int]  # height and width
BatchNorm = Callable[..., keras.layers.Layer]  # takes the arguments of keras.layers.BatchNormalization


@dataclasses.dataclass(frozen=True)
class Network:
    """One way to build a network.

    Attributes:
      body: takes image, mask and a factory of batch norm layers; returns features [B, T, D].
      frame: size of a frame.
      last_layer: initializer of the last layer's kernel.
    """

    body: Callable[[Symbolic, Symbolic, BatchNorm], Symbolic]
    frame: FrameSize
    last_layer: str = "he_normal"  # of the original networks


def _masked(x: Symbolic, mask: Symbolic, repeats: int) -> Symbolic:
    """Zeroes features beyond a line's own frames; a frame has `repeats` feature columns."""
    return layers.Multiply()([x, _widened(mask, repeats)])


def _activated(x: Symbolic, mask: Symbolic, repeats: int) -> Symbolic:
    """Applies a ReLU, then does the same."""
    return fast_layers.MaskedReLU()(x, _widened(mask, repeats))


def _widened(mask: Symbolic, repeats: int) -> Symbolic:
    return layers.UpSampling2D((1, repeats))(mask) if repeats > 1 else mask


def _lite(x: Symbolic, mask: Symbolic, batch_norm: BatchNorm) -> Symbolic:
    """Small alphabets: a stem that halves the image, then 3x3 convolutions; most of the arithmetic is at 8 x W/4."""

    def convolve(
        x: Symbolic, filters: int, repeats: int, kernel: _Size = 3, stride: int = 1, padding: str = "same"
    ) -> Symbolic:
        x = layers.Conv2D(filters, kernel, stride, padding, use_bias=False, kernel_initializer="he_normal")(x)
        x = batch_norm(momentum=0.95)(x)
        return _activated(x, mask, repeats)

    x = convolve(x, 16, 2, stride=2)  # 16 x W/2
    x = convolve(x, 32, 2)
    x = layers.MaxPooling2D(2)(x)  # 8 x W/4
    x = convolve(x, 64, 1)
    x = convolve(x, 96, 1)
    x = layers.MaxPooling2D((2, 1))(x)  # 4 x W/4
    x = convolve(x, 128, 1)
    x = layers.MaxPooling2D((2, 1))(x)  # 2 x W/4
    x = convolve(x, 256, 1)
    x = convolve(x, 256, 1, kernel=(2, 1), padding="valid")  # 1 x W/4
    return layers.Reshape((-1, 256))(x)


def _wide(x: Symbolic, mask: Symbolic, batch_norm: BatchNorm) -> Symbolic:
    """Large alphabets.

    Strides instead of pooling, so that most of the arithmetic is large matrix products; 1x5 kernels that see the neighbouring
    characters; and few features before the last layer, which is a quarter of the arithmetic even so.
    """

    def convolve(
        x: Symbolic, filters: int, kernel: _Size = 3, stride: _Size = 1, padding: str = "same", repeats: int = 1
    ) -> Symbolic:
        x = layers.Conv2D(filters, kernel, stride, padding, use_bias=False, kernel_initializer="he_normal")(x)
        return _activated(batch_norm(momentum=0.98)(x), mask, repeats)

    x = convolve(x, 32, 5, 2, repeats=2)  # 16 x W/2
    x = convolve(x, 64, stride=2)  # 8 x W/4
    x = convolve(x, 96)
    x = convolve(x, 96)
    x = convolve(x, 160, stride=(2, 1))  # 4 x W/4
    x = convolve(x, 160)
    x = convolve(x, 256, stride=(2, 1))  # 2 x W/4
    x = convolve(x, 256)
    x = convolve(x, 320, (2, 1), padding="valid")  # 1 x W/4
    x = convolve(x, 256, (1, 5))
    x = convolve(x, 256, (1, 5))
    return layers.Dense(128, use_bias=False)(layers.Reshape((-1, 256))(x))


def _mobile(x: Symbolic, mask: Symbolic, batch_norm: BatchNorm) -> Symbolic:
    """Print of any kind and size: 48 pixels high, and little arithmetic for each pixel.

    Residual blocks of a depthwise convolution and a multilayer perceptron at each place (Liu et al., 2022, "A ConvNet for the
    2020s"); those at the end look along the line, 12 frames to either side.
    """

    def convolve(x: Symbolic, filters: int, kernel: _Size, stride: _Size) -> Symbolic:
        padding = "valid" if kernel == stride else "same"
        x = layers.Conv2D(filters, kernel, stride, padding, use_bias=False, kernel_initializer="he_normal")(x)
        return batch_norm(momentum=0.98)(x)

    def block(x: Symbolic, kernel: _Size, repeats: int) -> Symbolic:
        features = x.shape[-1]
        y = batch_norm(momentum=0.98)(layers.DepthwiseConv2D(kernel, padding="same", use_bias=False)(x))
        y = layers.Conv2D(2 * features, 1, activation="relu", kernel_initializer="he_normal")(y)
        y = batch_norm(momentum=0.98)(layers.Conv2D(features, 1, use_bias=False)(y))
        return _masked(layers.Add()([x, y]), mask, repeats)

    x = _activated(convolve(x, 24, 3, 2), mask, 4)  # 24 x W/2
    x = _activated(convolve(x, 48, 3, 2), mask, 2)  # 12 x W/4
    for _ in range(2):
        x = block(x, 3, 2)
    x = _masked(convolve(x, 96, (2, 1), (2, 1)), mask, 2)  # 6 x W/4
    for _ in range(2):
        x = block(x, 3, 2)
    x = _masked(convolve(x, 160, (2, 1), (2, 1)), mask, 2)  # 3 x W/4
    for _ in range(2):
        x = block(x, 3, 2)
    x = _masked(convolve(x, 256, (3, 2), (3, 2)), mask, 1)  # 1 x W/8
    for _ in range(3):
        x = block(x, (1, 9), 1)
    return layers.Dense(80, use_bias=False)(layers.Reshape((-1, 256))(x))


def _convolution(filters: int, kernel: int, stride: _Size = 1) -> keras.layers.Layer:
    """A convolution of the original networks: no bias, He initialisation, weight decay."""
    return layers.Conv2D(
        filters, kernel, stride, "same", use_bias=False,
        kernel_initializer="he_normal", kernel_regularizer=keras.regularizers.L2(1e-4),
    )  # fmt: skip


def _cnn(x: Symbolic, mask: Symbolic, batch_norm: BatchNorm) -> Symbolic:
    """The network of confusing-ctc: batch norm before each convolution except the last two."""
    for filters, repeats in ((64, 8), (128, 4), (256, 2)):
        for _ in range(2):
            x = _masked(batch_norm(epsilon=1.1e-5)(x), mask, repeats)
            x = layers.ReLU()(_convolution(filters, 3)(x))
        x = layers.Dropout(0.3)(x)
        x = layers.MaxPooling2D(2)(x)
    # The 4x4 kernel leaves one row; it sees two frames to the right and one to the left.
    x = layers.ReLU()(_convolution(512, 4, (4, 1))(_masked(x, mask, 1)))
    x = layers.ReLU()(_convolution(512, 1)(x))
    return layers.Reshape((-1, 512))(x)


def _crnn(x: Symbolic, mask: Symbolic, batch_norm: BatchNorm) -> Symbolic:
    """The network of confusing-ctc with two bidirectional recurrent layers over a line's own frames."""
    own = layers.Reshape((-1,))(mask) > 0
    x = _cnn(x, mask, batch_norm)
    for units in (384, 256):
        x = layers.Bidirectional(layers.LSTM(units, return_sequences=True))(x, mask=own)
    return x


def _densenet(x: Symbolic, mask: Symbolic, batch_norm: BatchNorm) -> Symbolic:
    """The network of chinese_ocr: dense blocks (Huang et al., 2017, "Densely Connected Convolutional Networks")."""

    def activated(x: Symbolic, repeats: int) -> Symbolic:
        return _activated(batch_norm(epsilon=1.1e-5)(x), mask, repeats)

    x = _convolution(64, 5, 2)(x)
    for repeats in (4, 2, 1):
        for _ in range(8):
            x = layers.Concatenate()([x, _convolution(8, 3)(activated(x, repeats))])
        if repeats > 1:
            x = layers.Dropout(0.2)(_convolution(128, 1)(activated(x, repeats)))
            x = layers.AveragePooling2D(2)(x)
    x = layers.Permute((2, 1, 3))(activated(x, 1))
    return layers.Reshape((-1, 4 * 192))(x)


NETWORKS = {
    "lite": Network(_lite, FrameSize(32, 4), "glorot_uniform"),
    "wide": Network(_wide, FrameSize(32, 4), "glorot_uniform"),
    "mobile": Network(_mobile, FrameSize(48, 8), "glorot_uniform"),
    "cnn": Network(_cnn, FrameSize(32, 8)),
    "crnn": Network(_crnn, FrameSize(32, 8)),
    "densenet": Network(_densenet, FrameSize(32, 8)),
}


def network(name: str) -> Network:
    """Returns a network by name.

    Raises:
      InputError: there is no network of that name.
    """
    if name not in NETWORKS:
        raise InputError(f"--model={name}: must be one of {', '.join(NETWORKS)}")
    return NETWORKS[name]


def build(name: str, num_classes: int, precision: str = "float32", synchronized: bool = False) -> keras.Model:
    """Builds a network.

    Args:
      name: a key of `NETWORKS`.
      num_classes: C, including the blank.
      precision: `float32`, `mixed_float16` or `mixed_bfloat16`; weights and logits are always float32.
      synchronized: whether batch norm takes its statistics over all replicas.

    Returns:
      A model from `[image, mask]` to logits float32[B, T, C].

    Raises:
      InputError: there is no network of that name.
    """
    image = keras.Input((network(name).frame.height, None, 1), name="image", dtype="float32")
    mask = keras.Input((1, None, 1), name="mask", dtype="float32")
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        batch_norm = (
            functools.partial(layers.BatchNormalization, synchronized=True) if synchronized else fast_layers.BatchNormalization
        )
        features = network(name).body(image, mask, batch_norm)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    dense = fast_layers.Logits if precision == "mixed_bfloat16" else layers.Dense
    logits = dense(num_classes, name="logits", dtype="float32", kernel_initializer=network(name).last_layer)(features)
    return keras.Model([image, mask], logits, name=name)


def logits(model: keras.Model, pixels: tf.Tensor, width: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs a network on lines.

    Args:
      model: built by `build`.
      pixels: uint8[B, H, W], with any values beyond a line's width.
      width: int32[B], in pixels.
      training: whether dropout and batch norm act as in training.

    Returns:
      logits float32[B, T, C] and frames int32[B], how many of the T are a line's own.
    """
    frame = NETWORKS[model.name].frame
    inputs = network_input.to_network(pixels, width, frame.width)
    return model(list(inputs), training=training), network_input.frames(width, frame.width)


def weights(model: keras.Model) -> list[tf.Variable]:
    """Returns the trainable variables of a network."""
    return [keras_compat.variable(weight) for weight in model.trainable_variables]


def statistics(model: keras.Model) -> list[tf.Variable]:
    """Returns the moving statistics of batch norm, which training changes without gradients."""
    return [keras_compat.variable(weight) for weight in model.non_trainable_variables if tf.as_dtype(weight.dtype).is_floating]
