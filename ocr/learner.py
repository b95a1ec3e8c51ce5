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
        """Returns the mean loss and what the layers add to it, such as weight decay: float32 scalar."""
        return tf.add_n([tf.reduce_mean(nats), *self.model.losses])
