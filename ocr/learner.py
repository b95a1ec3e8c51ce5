"""What a training step is made of: the network, the loss of each line, and the one number that is made small."""

import keras
import tensorflow as tf

from ocr import ctc, models


class Learner:
    """Both trainers take their steps with it, and the doctor examines it: so what is examined is what is trained.

    A batch is a dict as `inputs.training_batches` gives it.

    Args:
      model: that `models.build` made.
    """

    def __init__(self, model: keras.Model):
        self.model = model

    def logits(self, batch: dict[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the network: see `models.logits`."""
        return models.logits(self.model, batch["pixels"], batch["width"], training)

    def nats(self, logits: tf.Tensor, frames: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns each line's CTC loss, float32[B]."""
        return ctc.loss(logits, frames, batch["labels"], batch["label_lengths"])

    def objective(self, nats: tf.Tensor) -> tf.Tensor:
        """Returns the mean loss of the lines that can be aligned, and what the layers add to it, such as weight decay: float32
        scalar."""
        possible = readable(nats)
        mean = tf.math.divide_no_nan(tf.reduce_sum(tf.where(possible, nats, 0.0)), tf.reduce_sum(tf.cast(possible, tf.float32)))
        return tf.add_n([mean, *(tf.cast(loss, tf.float32) for loss in self.model.losses)])


def readable(nats: tf.Tensor) -> tf.Tensor:
    """Says which lines can be aligned: bool[B]. Those that cannot have an infinite loss."""
    return nats != float("inf")
