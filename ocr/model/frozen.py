"""Networks as they are exported: weights are constants of the graph, kernels in half precision.

This halves the size on disk. TensorFlow folds constants when it loads a graph, so batch norm costs nothing, and kernels are
reordered for the processor once instead of with every call.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ocr import keras_compat
from ocr.images import network_input
from ocr.model import networks

_PART = 24 * 1024  # values of a constant: TensorFlow does not fold a cast whose result is larger than 100 KB
_NAME = re.compile(r"weight_(\d+)_(\d+)")


def rounded(value: tf.Tensor) -> tf.Tensor:
    """Returns a weight as an export has it: kernels and matrices are rounded to half precision, vectors are not."""
    return tf.cast(tf.cast(value, tf.float16), tf.float32) if len(value.shape) > 1 else tf.identity(value)


def network(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Compiles `networks.logits` of a network, in inference, with its current weights as constants.

    Functions that call it share one copy of the weights.

    Args:
      model: built by `networks.build`.

    Returns:
      A function of pixels uint8[B, H, W] and width int32[B] that returns logits float32[B, T, C] and frames int32[B].
    """
    frame = networks.network(model.name).frame
    values = [np.asarray(variable) for variable in _stored(model)]

    @tf.function(
        input_signature=[tf.TensorSpec([None, frame.height, None], tf.uint8), tf.TensorSpec([None], tf.int32)],
        autograph=False,
    )
    def logits(pixels: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        weights = {
            id(variable): _constant(*numbered) for variable, numbered in zip(_stored(model), enumerate(values), strict=True)
        }
        inputs = network_input.to_network(pixels, width, frame.width)
        return keras_compat.call_with(model, weights, inputs), network_input.frames(width, frame.width)

    return logits


def fingerprint(model: keras.Model) -> str:
    """Returns a fingerprint of an export of this network: sha256 over its rounded weights."""
    return digest(rounded(tf.convert_to_tensor(variable)).numpy() for variable in _stored(model))


def digest(values: Iterable[np.ndarray]) -> str:
    """Returns the same fingerprint for weights that `weights` returned."""
    sha256 = hashlib.sha256()
    for value in values:
        sha256.update(value.tobytes())
    return sha256.hexdigest()


def weights(serve: Any) -> list[np.ndarray]:
    """Reads the weights from a signature of an export.

    Args:
      serve: signature of a loaded SavedModel.

    Returns:
      float32[n] for each weight, in the order of `load_weights`.

    Raises:
      ValueError: weights are missing.
    """
    graph = serve.graph.as_graph_def()
    parts: dict[int, dict[int, np.ndarray]] = {}
    for function in graph.library.function:
        for node in function.node_def:
            if node.op == "Const" and (match := _NAME.fullmatch(node.name)):
                parts.setdefault(int(match[1]), {})[int(match[2])] = tf.make_ndarray(node.attr["value"].tensor).ravel()
    if sorted(parts) != list(range(len(parts))) or not parts:
        raise ValueError("weights of its network are missing")
    return [np.concatenate([parts[i][j] for j in sorted(parts[i])]).astype(np.float32) for i in range(len(parts))]


def load_weights(model: keras.Model, values: list[np.ndarray]) -> None:
    """Assigns to a network the weights that `weights` returned.

    Raises:
      ValueError: they belong to another network.
    """
    for variable, value in zip(_stored(model), values, strict=True):
        variable.assign(value.reshape(variable.shape))


def round_weights(model: keras.Model) -> None:
    """Rounds the weights of a network to those that an export of it has."""
    for variable in _stored(model):
        variable.assign(rounded(tf.convert_to_tensor(variable)))


def _stored(model: keras.Model) -> list[Any]:
    """Returns the Keras variables that an export stores: all except the state of dropout."""
    statistics = [v for v in model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
    return [*model.trainable_variables, *statistics]


def _constant(number: int, value: np.ndarray) -> tf.Tensor:
    if value.ndim < 2:
        return tf.constant(value, name=f"weight_{number}_0")
    flat = value.astype(np.float16).ravel()
    parts = [flat[start : start + _PART] for start in range(0, flat.size, _PART)]
    full = [tf.cast(tf.constant(part, name=f"weight_{number}_{n}"), tf.float32) for n, part in enumerate(parts)]
    return tf.reshape(tf.concat(full, 0), value.shape)
