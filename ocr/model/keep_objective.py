"""A loss that keeps what a trained network knows while it learns new lines, without the lines it was trained on."""

import keras
import tensorflow as tf

from ocr.model import frozen
from ocr.model.objective import Objective


class KeepObjective(Objective):
    """The CTC loss, and how far the network's outputs have moved from those of its teacher.

    The teacher is the network as it was. In each frame of the new lines, the distribution over the classes that it knows is
    to stay the teacher's (Li and Hoiem, 2016, "Learning without Forgetting"). Where the teacher's best class is a character
    that the line does not contain, the teacher is wrong, and the frame does not count. Classes that it does not know are left
    out of the comparison, so nothing holds them back.

    The network runs in inference mode, so that batch norm keeps the statistics of the lines it was trained on.

    Args:
      model: network built by `networks.build`.
      teacher: network with the same classes; those that it does not know have a logit below -1e8.
      weight: of the comparison beside the CTC loss.
    """

    def __init__(self, model: keras.Model, teacher: keras.Model, weight: float):
        super().__init__(model)
        self._teacher, self._weight = frozen.network(teacher), weight
        bias = tf.convert_to_tensor(teacher.get_layer("logits").bias)
        self._unknown = tf.constant(tf.where(bias < -1e8, bias, 0.0).numpy())  # [C], to be added to logits

    def losses(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the network for a training step: see `Objective.losses`."""
        logits, frames = self.logits(batch, training=False)
        line_losses = self.ctc_loss(logits, frames, batch)
        drift = self._drift(logits, frames, batch)
        return line_losses, self.reduce(line_losses) + self._weight * tf.reduce_mean(drift)

    def _drift(self, logits: tf.Tensor, frames: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Compares the network with its teacher.

        Args:
          logits: float32[B, T, C].
          frames: int32[B], how many of the T are a line's own.
          batch: of the lines.

        Returns:
          float32[B]: the sum over the frames of KL(teacher || network), in nats.
        """
        taught, _ = self._teacher(batch["pixels"], batch["width"])
        taught = tf.stop_gradient(taught)
        best = tf.argmax(taught, 2, tf.int32)  # [B, T]
        count = tf.shape(batch["labels"])[1]
        labels = tf.where(tf.sequence_mask(batch["label_lengths"], count), batch["labels"], -1)
        contained = tf.reduce_any(best[:, :, tf.newaxis] == labels[:, tf.newaxis], 2)
        counts = (contained | (best == logits.shape[2] - 1)) & tf.sequence_mask(frames, tf.shape(logits)[1])
        target = tf.nn.softmax(taught)
        entropy = tf.nn.softmax_cross_entropy_with_logits(target, taught)
        drift = tf.nn.softmax_cross_entropy_with_logits(target, logits + self._unknown) - entropy
        return tf.reduce_sum(tf.where(counts, drift, 0.0), 1)
