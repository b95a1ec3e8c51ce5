"""Which evaluation of a training is the best so far."""

import math
from typing import Any

import tensorflow as tf


class Best:
    """What the evaluations up to now have come to."""

    def __init__(self) -> None:
        kinds = {"cer": math.inf, "eval_loss": math.inf, "poorer": 0.0}
        self.kept = {name: tf.Variable(tf.constant(value, tf.float64), trainable=False) for name, value in kinds.items()}

    @property
    def poorer(self) -> int:
        """How many evaluations there were since the best one."""
        return int(self.kept["poorer"])

    def judge(self, figures: dict[str, Any]) -> bool:
        """Says whether an evaluation is better than all before."""
        new = rank(figures)
        if new < (float(self.kept["cer"]), float(self.kept["eval_loss"])):
            for name, value in zip(self.kept, (*new, 0.0), strict=True):
                self.kept[name].assign(value)
            return True
        self.kept["poorer"].assign_add(1.0)
        return False


def rank(figures: dict[str, Any]) -> tuple[float, float]:
    """Returns what evaluations are compared by, the least the best: CER; the loss, where there is one, between equals."""
    cer, loss = (figures.get(name) for name in ("cer", "eval_loss"))
    return math.inf if cer is None else cer, math.inf if loss is None else loss
