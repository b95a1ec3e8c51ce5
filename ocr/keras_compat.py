"""What differs between Keras 2.15, which comes with TensorFlow 2.15, and Keras 3.

Each function has a comment that says how; nothing else in this package asks which one there is.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from tfrecords.errors import InputError

MAJOR = keras.__version__.partition(".")[0]  # checkpoints of one mean nothing to the other
_KERAS_2 = MAJOR == "2"
if _KERAS_2:
    # Else its dropout draws by an op whose state nobody can save.
    keras.backend.experimental.enable_tf_random_generator()


def variable(weight) -> tf.Variable:
    """Returns the variable of a weight."""
    # In Keras 3 a weight wraps it, and has it as `value`; in Keras 2 it is the variable, which has a method of that name.
    return weight if _KERAS_2 else weight.value


def path(weight) -> str:
    """Returns the name of a weight in its network, such as `conv2d/kernel`."""
    # Keras 3 has it as `path` and only its last part as `name`; in Keras 2 the name is all of it, and the output's number.
    return weight.name.partition(":")[0] if _KERAS_2 else weight.path


def check_workers() -> None:
    """Makes sure that several machines can train together.

    Raises:
      InputError: they cannot.
    """
    # In Keras 2 batch norm's statistics are read by all workers at once or not at all, so that one cannot save for all.
    if _KERAS_2:
        raise InputError(f"TF_CONFIG: several workers take TensorFlow 2.16 or newer, not {tf.__version__}")


def randomness(model: keras.Model) -> list[tf.Variable]:
    """Returns what the next dropout of a network depends on; no checkpoint of the network has it."""
    if _KERAS_2:
        # In Keras 3 they are weights, the only ones that are integers; in Keras 2 each layer hides a generator.
        hidden = [layer._random_generator for layer in model.layers if hasattr(layer, "_random_generator")]
        return [generator._generator.state for generator in hidden]
    return [weight.value for weight in model.non_trainable_variables if not tf.as_dtype(weight.dtype).is_floating]


def call_with(model: keras.Model, values: Mapping[int, tf.Tensor], inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Runs a network, in inference, with other values in place of its weights.

    Args:
      model: a network.
      values: by `id` of the weight; what depends on any other must not be looked at.
      inputs: of the network.

    Returns:
      Its output.
    """
    if _KERAS_2:
        # Keras 2 has no such call: the layers are told that their weights are these.
        with _replaced(model, values):
            return model(list(inputs), training=False)

    def of(weights: list) -> list[tf.Tensor]:
        return [values[id(w)] if id(w) in values else tf.zeros(w.shape, w.dtype) for w in weights]

    output, _ = model.stateless_call(
        of(model.trainable_variables), of(model.non_trainable_variables), list(inputs), training=False
    )
    return output


@contextlib.contextmanager
def _replaced(model: keras.Model, values: Mapping[int, tf.Tensor]) -> Iterator[None]:
    found = [
        (vars(part), name, value) for part in model.submodules for name, value in vars(part).items() if id(value) in values
    ]
    for attributes, name, value in found:
        attributes[name] = values[id(value)]
    try:
        yield
    finally:
        for attributes, name, value in found:
            attributes[name] = value
