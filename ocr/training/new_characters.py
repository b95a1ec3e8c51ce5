"""The characters that a trained network lacks, learned before anything else of it changes."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from ocr.images import network_input
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.progress import Progress
from ocr.training import optimizer
from ocr.training.weight_update import Optimizer

_STEPS = 120
_RATE = 0.002  # at the first step; falls linearly to 0


def learn(objective: Objective, new: Sequence[int], batches: tf.data.Dataset, stop: Callable[[], bool]) -> None:
    """Trains the rows that characters have in the last layer, alone, so that they fit what the network sees already.

    Features that tell thousands of characters apart tell others apart, too. Fine-tuning a network whose last layer is untrained
    would distort them (Kumar et al., 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution").

    Args:
      objective: whose network has learned all characters but these.
      new: their classes.
      batches: to learn from, as `pipeline.training_batches` yields them.
      stop: called before each step; once it returns true, what was learned so far remains.
    """
    model = objective.model
    last = model.get_layer("logits")
    body, frame_width = keras.Model(model.inputs, last.input), networks.network(model.name).frame.width
    kernel, bias = (tf.constant(weight) for weight in last.get_weights())  # [D, C], [C]
    places = tf.constant([[label] for label in new])
    weights = [tf.Variable(tf.gather(kernel, new, axis=1)), tf.Variable(tf.gather(bias, new))]  # [D, N], [N]
    updates = Optimizer(weights, [], optimizer.adam(), lambda step: _RATE * (1.0 - step / _STEPS), clip_norm=5.0)

    def whole() -> tuple[tf.Tensor, tf.Tensor]:
        """Returns kernel and bias of the last layer with the rows as they are."""
        rows = tf.tensor_scatter_nd_update(tf.transpose(kernel), places, tf.transpose(weights[0]))
        return tf.transpose(rows), tf.tensor_scatter_nd_update(bias, places, weights[1])

    @tf.function(input_signature=[batches.element_spec], autograph=False)
    def step(batch: dict[str, tf.Tensor]) -> None:
        inputs = network_input.to_network(batch["pixels"], batch["width"], frame_width)
        features = tf.cast(body(list(inputs), training=False), tf.float32)
        with tf.GradientTape() as tape:
            own_kernel, own_bias = whole()
            logits = tf.tensordot(features, own_kernel, 1) + own_bias
            loss = objective.reduce(objective.ctc_loss(logits, network_input.frames(batch["width"], frame_width), batch))
        updates.apply(tape.gradient(loss, weights), tf.constant(1.0), tf.math.is_finite(loss), [])

    with Progress(f"learning {len(new)} new characters", _STEPS, "steps") as bar:
        for number, batch in enumerate(batches.take(_STEPS), 1):
            if stop():
                break
            step(batch)
            bar.update(number)
    last.set_weights([weight.numpy() for weight in whole()])
