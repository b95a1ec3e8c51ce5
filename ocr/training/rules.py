"""Update rules: how one weight changes with its gradient. There is a function for each of `config.OPTIMIZERS`, of that name."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Rule(NamedTuple):
    """An update rule.

    Attributes:
      slots: number of moments kept for each weight.
      update: changes a weight and its moments. It takes the weight, its moments, the gradient, the learning rate, the number
        of the step from 1 as a float, and the weight decay of this weight.
      decays: whether matrices and kernels decay.
    """

    slots: int
    update: Callable[[tf.Variable, list[tf.Variable], tf.Tensor, tf.Tensor, tf.Tensor, float], None]
    decays: bool = False


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
