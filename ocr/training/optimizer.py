"""Optimizers and learning rate schedules by name: an optimizer is the function of its name, which returns an update rule."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ocr import addons
from ocr.config import TrainConfig
from ocr.model import networks
from ocr.training.weight_update import KerasOptimizerAdapter, Optimizer, Rule, Schedule


def sgd(momentum: float = 0.9) -> Rule:
    """Gradient descent with momentum."""

    def update(
        weight: tf.Variable, moments: list[tf.Variable], gradient: tf.Tensor, rate: tf.Tensor, count: tf.Tensor, decay: float
    ) -> None:
        velocity = moments[0].assign(momentum * moments[0] + gradient)
        weight.assign_sub(rate * (velocity + decay * weight))

    return Rule(1, update)


def adam(beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7) -> Rule:
    """Adam (Kingma and Ba, 2015, in the faster form at the end of section 2).

    TensorFlow's kernel makes one pass over a weight and its moments. Weight decay, if any, is decoupled (Loshchilov and Hutter,
    2019).
    """

    def update(
        weight: tf.Variable, moments: list[tf.Variable], gradient: tf.Tensor, rate: tf.Tensor, count: tf.Tensor, decay: float
    ) -> None:
        if decay:
            weight.assign_sub(rate * decay * weight)
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle,
            m=moments[0].handle,
            v=moments[1].handle,
            beta1_power=tf.pow(beta_1, count),
            beta2_power=tf.pow(beta_2, count),
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=gradient,
        )

    return Rule(2, update)


def adamw() -> Rule:
    """Adam with weight decay, and a short memory for the gradients' size.

    That size changes by orders of magnitude when CTC's slow start ends.
    """
    return adam(beta_2=0.98)._replace(decays=True)


def lamb(beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7) -> Rule:
    """LAMB (You et al., 2020): Adam with steps proportional to the norm of each matrix or kernel."""

    def update(
        weight: tf.Variable, moments: list[tf.Variable], gradient: tf.Tensor, rate: tf.Tensor, count: tf.Tensor, decay: float
    ) -> None:
        mean = moments[0].assign_add((gradient - moments[0]) * (1.0 - beta_1))
        square = moments[1].assign_add((tf.square(gradient) - moments[1]) * (1.0 - beta_2))
        correction = tf.sqrt(1.0 - tf.pow(beta_2, count)) / (1.0 - tf.pow(beta_1, count))
        step = correction * mean / (tf.sqrt(square) + epsilon) + decay * weight
        if len(weight.shape) > 1:
            weight_norm, step_norm = tf.norm(weight), tf.norm(step)
            step *= tf.where((weight_norm > 0.0) & (step_norm > 0.0), weight_norm / step_norm, 1.0)
        weight.assign_sub(rate * step)

    return Rule(2, update, decays=True)


def muon(momentum: float = 0.95) -> Rule:
    """Muon (Jordan et al., 2024) for matrices and kernels, and AdamW for vectors, depthwise kernels and the last layer.

    A step is the gradients' average with its singular values set to about 1, as large as a step of Adam is on average (Liu et
    al., 2025, "Muon is scalable for LLM training").
    """
    others = adamw().update

    def update(
        weight: tf.Variable, moments: list[tf.Variable], gradient: tf.Tensor, rate: tf.Tensor, count: tf.Tensor, decay: float
    ) -> None:
        columns = weight.shape[-1]
        rows = weight.shape.num_elements() // columns
        if len(weight.shape) < 2 or not (_SMALLEST_MATRIX <= columns <= _LARGEST_MATRIX and rows >= _SMALLEST_MATRIX):
            others(weight, moments, gradient, rate, count, decay)
            return
        mean = moments[0].assign(momentum * moments[0] + gradient)
        step = _orthogonal(tf.reshape(gradient + momentum * mean, [rows, columns]))
        step = tf.reshape(step, weight.shape) * (0.2 * math.sqrt(max(rows, columns)))
        weight.assign_sub(rate * (step + decay * weight))

    return Rule(2, update, decays=True)


_SMALLEST_MATRIX, _LARGEST_MATRIX = 16, 1024  # rows and columns


def _orthogonal(matrix: tf.Tensor) -> tf.Tensor:
    """Returns a matrix with the same singular vectors and singular values of about 1, by Newton-Schulz iterations."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix / (tf.norm(matrix) + 1e-7)
    for _ in range(5):
        square = tf.matmul(x, x, transpose_a=tall, transpose_b=not tall)
        polynomial = -4.7750 * square + 2.0315 * tf.matmul(square, square)
        x = 3.4445 * x + (tf.matmul(x, polynomial) if tall else tf.matmul(polynomial, x))
    return x


RULES: dict[str, Callable[[], Rule]] = {rule.__name__: rule for rule in (sgd, adam, adamw, lamb, muon)}


def build(config: TrainConfig, model: keras.Model, lines: int) -> Optimizer:
    """Builds the optimizer of a training, with its schedule.

    Args:
      config: of the training.
      model: network to train.
      lines: size of an epoch.
    """
    weights, statistics, rate = networks.weights(model), networks.statistics(model), schedule(config, lines)
    options: dict[str, Any] = {
        "clip_norm": config.clip_norm,
        "average": config.ema,
        "scaling": config.precision == "mixed_float16",
    }
    if config.optimizer.startswith(addons.PREFIX):
        keras_optimizer = addons.build(config.optimizer, config.learning_rate)
        return KerasOptimizerAdapter(weights, statistics, keras_optimizer, rate, **options)
    rule = RULES[config.optimizer]()
    decay = config.weight_decay if rule.decays else 0.0
    return Optimizer(weights, statistics, rule, rate, decay=decay, **options)


def schedule(config: TrainConfig, lines: int) -> Schedule:
    """Builds the learning rate schedule of a training.

    Args:
      config: of the training.
      lines: size of an epoch.
    """
    peak, steps = config.learning_rate, config.steps
    warmup = min(config.warmup_steps, steps - 1)
    epoch = math.ceil(lines / config.batch_size)

    def cosine(done: tf.Tensor) -> tf.Tensor:
        share = tf.clip_by_value((done - warmup) / (steps - warmup), 0.0, 1.0)
        return tf.where(done < warmup, peak * done / max(warmup, 1), peak * 0.5 * (1.0 + tf.cos(math.pi * share)))

    schedules: dict[str, Schedule] = {
        "constant": lambda done: tf.constant(peak),
        "exponential": lambda done: peak * tf.pow(0.98, done / 10_000),  # default flags of confusing-ctc
        "epoch_decay": lambda done: peak * tf.pow(0.4, done // epoch),  # confusing-ctc with Keras
        "cosine": cosine,
    }
    return schedules[config.schedule]
