"""The training objective: a network, the CTC loss of each line, and the scalar that training minimises."""

import keras
import tensorflow as tf

from ocr import ctc
from ocr.model import networks


class Objective:
    """What training minimises. Both trainers use it, and the doctor examines it: what is examined is what is trained.

    A batch is a dict as `pipeline.training_batches` yields it.

    Args:
      model: network built by `networks.build`.
    """

    def __init__(self, model: keras.Model):
        self.model = model

    def logits(self, batch: dict[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the network on a batch: see `networks.logits`."""
        return networks.logits(self.model, batch["pixels"], batch["width"], training)

    def ctc_loss(self, logits: tf.Tensor, frames: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the CTC loss of each line in nats, float32[B]; infinite for a line that cannot be aligned."""
        return ctc.loss(logits, frames, batch["labels"], batch["label_lengths"])

    def reduce(self, line_losses: tf.Tensor) -> tf.Tensor:
        """Reduces the losses of a batch to the scalar to minimise.

        Args:
          line_losses: float32[B], in nats; lines that cannot be aligned have an infinite one and do not count.

        Returns:
          float32 scalar: the mean of the finite losses, plus the losses of the layers, such as weight decay.
        """
        finite = alignable(line_losses)
        total = tf.reduce_sum(tf.where(finite, line_losses, 0.0))
        mean = tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(finite, tf.float32)))
        return tf.add_n([mean, *(tf.cast(loss, tf.float32) for loss in self.model.losses)])

    def losses(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the network for a training step.

        Returns:
          The CTC losses of the lines that have one, float32[b] with b at most B, and the scalar to minimise, float32.
        """
        line_losses = self.ctc_loss(*self.logits(batch, training=True), batch)
        return line_losses, self.reduce(line_losses)


def alignable(line_losses: tf.Tensor) -> tf.Tensor:
    """Returns which lines can be aligned, bool[B]: the loss of the others is infinite."""
    return line_losses != float("inf")
