"""What a training changes and its checkpoints hold."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from ocr import keras_compat
from ocr.model import networks
from ocr.saving.best import Best
from ocr.training.steps import Steps
from ocr.training.weight_update import Optimizer
from tfrecords.errors import IntegrityError


@dataclasses.dataclass(frozen=True)
class State:
    """The parts of a training that change.

    Attributes:
      model: network that is trained.
      optimizer: of its weights.
      steps: takes the steps, and counts them.
      best: best evaluation so far.
    """

    model: keras.Model
    optimizer: Optimizer
    steps: Steps
    best: Best

    def parts(self) -> dict[str, Any]:
        """Returns what a checkpoint holds, by name."""
        return {
            "model": self.model,
            "randomness": keras_compat.randomness(self.model),
            "optimizer": self.optimizer.state,
            "steps": self.steps.state,
            "best": self.best.state,
        }

    def usable(self, batch: dict[str, tf.Tensor]) -> bool:
        """Returns whether the network still gives finite logits of a batch; a step may have failed for its lines alone."""
        if not self.steps.failing:
            return True
        logits, _ = networks.logits(self.model, batch["pixels"], batch["width"], training=False)
        return bool(tf.reduce_all(tf.math.is_finite(logits)))

    def check_finite(self) -> None:
        """Checks that the weights are finite, before they are saved.

        Raises:
          IntegrityError: a weight is not; its layer is named.
        """
        for weight in self.model.weights:
            if not bool(tf.reduce_all(tf.math.is_finite(tf.cast(weight, tf.float32)))):
                raise IntegrityError(f"the weights {keras_compat.path(weight)} are not finite after step {self.steps.number}")
