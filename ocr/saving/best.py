"""The best evaluation of a training, and how evaluations compare."""

import math
from typing import Any

import tensorflow as tf


class Best:
    """The best evaluation so far, as a checkpoint stores it.

    Attributes:
      state: what a checkpoint holds.
    """

    def __init__(self) -> None:
        initial = {"cer": math.inf, "eval_loss": math.inf, "poorer": 0.0}
        self.state = {name: tf.Variable(tf.constant(value, tf.float64), trainable=False) for name, value in initial.items()}

    @property
    def evals_since_best(self) -> int:
        """Number of evaluations since the best one."""
        return int(self.state["poorer"])

    def update(self, metrics: dict[str, Any]) -> bool:
        """Takes an evaluation into account; returns whether it is better than all before."""
        new = rank(metrics)
        if new < (float(self.state["cer"]), float(self.state["eval_loss"])):
            for name, value in zip(self.state, (*new, 0.0), strict=True):
                self.state[name].assign(value)
            return True
        self.state["poorer"].assign_add(1.0)
        return False


def rank(metrics: dict[str, Any]) -> tuple[float, float]:
    """Returns what evaluations are compared by, lower is better: CER, then the loss; infinite where unknown."""
    cer, loss = (metrics.get(name) for name in ("cer", "eval_loss"))
    return math.inf if cer is None else cer, math.inf if loss is None else loss
