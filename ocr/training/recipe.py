"""Optimizers and learning-rate schedules, by name."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ocr import addons
from ocr.config import TrainConfig
from ocr.model import networks
from ocr.training import optimizer
from ocr.training.optimizer import Borrowed, Optimizer

_RULES = {
    "sgd": optimizer.sgd(),
    "adam": optimizer.adam(),
    # A short memory for the gradients' size: it changes by orders of magnitude when CTC's slow start ends.
    "adamw": optimizer.adam(beta_2=0.98),
    "lamb": optimizer.lamb(),
}
_DECAYING = ("adamw", "lamb")


def build(config: TrainConfig, model: keras.Model, lines: int) -> Optimizer:
    """Builds the optimizer of a configuration, its schedule inside.

    Args:
      config: of the training.
      model: whose weights are trained.
      lines: of an epoch.
    """
    weights, statistics, rate = networks.weights(model), networks.statistics(model), schedule(config, lines)
    fields: dict[str, Any] = {
        "clip_norm": config.clip_norm,
        "average": config.ema,
        "scaling": config.precision == "mixed_float16",
    }
    if config.optimizer.startswith(addons.PREFIX):
        return Borrowed(weights, statistics, addons.made(config.optimizer, config.learning_rate), rate, **fields)
    decay = config.weight_decay if config.optimizer in _DECAYING else 0.0
    return Optimizer(weights, statistics, _RULES[config.optimizer], rate, decay=decay, **fields)


def schedule(config: TrainConfig, lines: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the learning rate as a function of the steps taken, float32 scalar to float32 scalar; `lines` are an epoch's."""
    peak, steps = config.learning_rate, config.steps
    warmup = min(config.warmup_steps, steps - 1)
    epoch = math.ceil(lines / config.batch_size)

    def cosine(done: tf.Tensor) -> tf.Tensor:
        share = tf.clip_by_value((done - warmup) / (steps - warmup), 0.0, 1.0)
        return tf.where(done < warmup, peak * done / max(warmup, 1), peak * 0.5 * (1.0 + tf.cos(math.pi * share)))

    named: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
        "constant": lambda done: tf.constant(peak),
        "exponential": lambda done: peak * tf.pow(0.98, done / 10_000),  # the flags of confusing-ctc
        "epoch_decay": lambda done: peak * tf.pow(0.4, done // epoch),  # its Keras way
        "cosine": cosine,
    }
    return named[config.schedule]
