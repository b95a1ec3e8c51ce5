"""Networks as they are exported: weights inside the graph, kernels in half precision.

That is half the size on disk; and since TensorFlow unfolds and folds constants while it loads a graph, batch norm costs nothing
and kernels are brought into the processor's order once, not with every call.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ocr import keras_compat
from ocr.images import preprocess
from ocr.model import networks

# Values of a constant in half precision: TensorFlow unfolds none that becomes larger than 100 KB.
_PART = 24 * 1024
_NAME = re.compile(r"weight_(\d+)_(\d+)")


def rounded(value: tf.Tensor) -> tf.Tensor:
    """Returns what is left of a weight in an export: kernels and matrices lose the digits that half precision has not."""
    return tf.cast(tf.cast(value, tf.float16), tf.float32) if len(value.shape) > 1 else tf.identity(value)


def network(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns `models.logits` of a network, in inference, as a compiled function that holds the weights as they are now.

    Every function that calls it shares the one copy of them.
    """
    pixels_per_frame = networks.network(model.name).pixels_per_frame
    values = [np.asarray(variable) for variable in _stored(model)]

    @tf.function(
        input_signature=[tf.TensorSpec([None, preprocess.HEIGHT, None], tf.uint8), tf.TensorSpec([None], tf.int32)],
        autograph=False,
    )
    def logits(pixels: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        weights = {
            id(variable): _constant(*numbered) for variable, numbered in zip(_stored(model), enumerate(values), strict=True)
        }
        inputs = preprocess.to_network(pixels, width, pixels_per_frame)
        return keras_compat.call_with(model, weights, inputs), preprocess.frames(width, pixels_per_frame)

    return logits


def fingerprint(model: keras.Model) -> str:
    """Names what an export of a network holds: sha256 over its weights, as they are rounded."""
    return digest(rounded(tf.convert_to_tensor(variable)).numpy() for variable in _stored(model))


def digest(values: Iterable[np.ndarray]) -> str:
    """Names weights as `weights` returns them."""
    found = hashlib.sha256()
    for value in values:
        found.update(value.tobytes())
    return found.hexdigest()


def weights(serve: Any) -> list[np.ndarray]:
    """Returns the weights inside a signature of an export, float32, each of one dimension, in the order of `put`.

    Raises:
      ValueError: there are none, or not all.
    """
    graph = serve.graph.as_graph_def()
    parts: dict[int, dict[int, np.ndarray]] = {}
    for function in graph.library.function:
        for node in function.node_def:
            if node.op == "Const" and (match := _NAME.fullmatch(node.name)):
                parts.setdefault(int(match[1]), {})[int(match[2])] = tf.make_ndarray(node.attr["value"].tensor).ravel()
    if sorted(parts) != list(range(len(parts))) or not parts:
        raise ValueError("it has not all the weights of a network")
    return [np.concatenate([parts[i][j] for j in sorted(parts[i])]).astype(np.float32) for i in range(len(parts))]


def load_weights(model: keras.Model, values: list[np.ndarray]) -> None:
    """Gives a network the weights that `weights` returned.

    Raises:
      ValueError: they are of another network.
    """
    for variable, value in zip(_stored(model), values, strict=True):
        variable.assign(value.reshape(variable.shape))


def _stored(model: keras.Model) -> list:
    """Returns the Keras variables that are kept: all but what the next dropout depends on."""
    others = [v for v in model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
    return [*model.trainable_variables, *others]


def _constant(number: int, value: np.ndarray) -> tf.Tensor:
    if value.ndim < 2:
        return tf.constant(value, name=f"weight_{number}_0")
    flat = value.astype(np.float16).ravel()
    parts = [flat[start : start + _PART] for start in range(0, flat.size, _PART)]
    unfolded = [tf.cast(tf.constant(part, name=f"weight_{number}_{n}"), tf.float32) for n, part in enumerate(parts)]
    return tf.reshape(tf.concat(unfolded, 0), value.shape)
