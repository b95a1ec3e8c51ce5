"""Differences between Keras 2.15, which TensorFlow 2.15 comes with, and Keras 3.

A comment in each function describes the difference. No other module depends on which version is installed.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfrecords.errors import InputError

MAJOR = keras.__version__.partition(".")[0]  # a checkpoint of one cannot be read with the other
_KERAS_2 = MAJOR == "2"
# The networks are written for these, whatever ~/.keras/keras.json says.
keras.backend.set_image_data_format("channels_last")
keras.backend.set_floatx("float32")
keras.backend.set_epsilon(1e-7)
if _KERAS_2:
    # Without this, dropout uses a stateful op whose state cannot be saved.
    keras.backend.experimental.enable_tf_random_generator()


def variable(weight: Any) -> tf.Variable:
    """Returns the TensorFlow variable of a weight."""
    # A weight of Keras 3 wraps its variable as `value`; one of Keras 2 is the variable, and `value` is a method.
    return weight if _KERAS_2 else weight.value


def path(weight: Any) -> str:
    """Returns the path of a weight in its network, such as `conv2d/kernel`."""
    # Keras 3 calls it `path`; in Keras 2 it is the `name`, followed by an output number.
    return weight.name.partition(":")[0] if _KERAS_2 else weight.path


def check_workers() -> None:
    """Checks that training on several machines is supported.

    Raises:
      InputError: it is not.
    """
    # In Keras 2 reading batch norm's statistics is a collective operation, so one worker cannot save a checkpoint alone.
    if _KERAS_2:
        raise InputError(f"TF_CONFIG: several workers need TensorFlow 2.16 or newer, not {tf.__version__}")


def randomness(model: keras.Model) -> list[tf.Variable]:
    """Returns the states of a network's random generators, which its own checkpoint does not contain."""
    if _KERAS_2:
        # In Keras 3 they are weights, and the only integer ones; in Keras 2 each layer has a private generator.
        generators = [layer._random_generator for layer in model.layers if hasattr(layer, "_random_generator")]
        return [generator._generator.state for generator in generators]
    return [weight.value for weight in model.non_trainable_variables if not tf.as_dtype(weight.dtype).is_floating]


def call_with(model: keras.Model, values: Mapping[int, tf.Tensor], inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Runs a network in inference mode with other values in place of its weights.

    Args:
      model: a network.
      values: the values by `id` of the weight. Weights that are absent are taken as zero (Keras 3) or unchanged (Keras 2), so
        the output must not depend on them.
      inputs: the inputs of the network.

    Returns:
      Its output.
    """
    if _KERAS_2:
        # Keras 2 has no stateless call, so the attributes of the layers are replaced for its duration.
        with _replaced(model, values):
            return model(list(inputs), training=False)

    def values_of(weights: list) -> list[tf.Tensor]:
        return [values[id(w)] if id(w) in values else tf.zeros(w.shape, w.dtype) for w in weights]

    output, _ = model.stateless_call(
        values_of(model.trainable_variables), values_of(model.non_trainable_variables), list(inputs), training=False
    )
    return output


@contextlib.contextmanager
def _replaced(model: keras.Model, values: Mapping[int, tf.Tensor]) -> Iterator[None]:
    replaced = [
        (vars(part), name, value) for part in model.submodules for name, value in vars(part).items() if id(value) in values
    ]
    for attributes, name, value in replaced:
        attributes[name] = values[id(value)]
    try:
        yield
    finally:
        for attributes, name, value in replaced:
            attributes[name] = value
