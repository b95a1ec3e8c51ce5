"""Update rules that step alike on every replica: the gradients are summed, tested and clipped, then applied everywhere or
nowhere."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ocr import addons
from ocr.config import TrainConfig
from ocr.model import networks

_FIRST_SCALE = 2.0**11  # low: an overflow costs a step, and none is worth more than the first
_GOOD_STEPS = 1000  # steps without an overflow after which the loss is scaled up


class Rule(NamedTuple):
    """One way to step.

    Attributes:
      slots: how many moments it keeps of each weight.
      change: changes a weight and its moments; takes both, the gradient, the learning rate, the number of the step from 1, and
        how strongly this weight decays.
    """

    slots: int
    change: Callable[[tf.Variable, list[tf.Variable], tf.Tensor, tf.Tensor, tf.Tensor, float], None]


def sgd(momentum: float = 0.9) -> Rule:
    """Gradient descent with momentum."""

    def change(weight, moments, gradient, rate, count, decay):
        velocity = moments[0].assign(momentum * moments[0] + gradient)
        weight.assign_sub(rate * (velocity + decay * weight))

    return Rule(1, change)


def adam(beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7) -> Rule:
    """Adam (Kingma and Ba, 2015; the faster form at the end of its section 2), with decoupled weight decay where there is any
    (Loshchilov and Hutter, 2019), by TensorFlow's kernel: one pass over a weight and its moments."""

    def change(weight, moments, gradient, rate, count, decay):
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

    return Rule(2, change)


def lamb(beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7) -> Rule:
    """Adam whose step for a matrix or kernel is as long as a share of that (You et al., 2020)."""

    def change(weight, moments, gradient, rate, count, decay):
        mean = moments[0].assign_add((gradient - moments[0]) * (1.0 - beta_1))
        square = moments[1].assign_add((tf.square(gradient) - moments[1]) * (1.0 - beta_2))
        grown = tf.sqrt(1.0 - tf.pow(beta_2, count)) / (1.0 - tf.pow(beta_1, count))
        step = grown * mean / (tf.sqrt(square) + epsilon) + decay * weight
        if len(weight.shape) > 1:
            own, length = tf.norm(weight), tf.norm(step)
            step *= tf.where((own > 0.0) & (length > 0.0), own / length, 1.0)
        weight.assign_sub(rate * step)

    return Rule(2, change)


class Optimizer:
    """Steps of a network's weights.

    To be made in the scope of the strategy that the weights were made in.

    Args:
      weights: to be trained.
      statistics: of batch norm, which training steps change as well: a step that is left out does not.
      rule: the way to step.
      rate: gives the learning rate after so many steps, float32 scalar to float32 scalar.
      decay: of matrices and kernels, not of biases and the like, in parts of the rate.
      clip_norm: gradients are scaled down to this norm, all together; 0 leaves them as they are.
      average: how much of the weights' moving average each step keeps; 0 for no such average.
      scaling: whether to scale the loss, as float16 needs it.

    Attributes:
      weights: as given.
      steps: int64 variable, how many were applied.
      scale: float32 variable, of the loss.
    """

    def __init__(
        self,
        weights: Sequence[tf.Variable],
        statistics: Sequence[tf.Variable],
        rule: Rule,
        rate: Callable[[tf.Tensor], tf.Tensor],
        decay: float = 0.0,
        clip_norm: float = 0.0,
        average: float = 0.0,
        scaling: bool = False,
    ):
        self.weights, self._statistics = list(weights), list(statistics)
        self._rule, self._rate, self._decay, self._clip_norm = rule, rate, decay, clip_norm
        self._average, self._scaling = average, scaling
        self._moments = [[_variable(tf.zeros_like(weight)) for _ in range(rule.slots)] for weight in weights]
        self._averages = [_variable(tf.identity(weight)) for weight in weights] if average else []
        self.steps = _variable(tf.constant(0, tf.int64))
        self.scale = _variable(tf.constant(_FIRST_SCALE if scaling else 1.0))
        self._good_steps = _variable(tf.constant(0, tf.int64))

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint is to hold beside the weights."""
        counts = {"steps": self.steps, "scale": self.scale, "calm": self._good_steps}
        return {**counts, "moments": self._moments, "averages": self._averages}

    @property
    def rate(self) -> tf.Tensor:
        """The learning rate of the next step, float32 scalar."""
        return self._rate(tf.cast(self.steps, tf.float32))

    @property
    def averaged(self) -> list[tf.Variable]:
        """The weights to read with: their moving averages, if there are such."""
        return self._averages or self.weights

    def statistics(self) -> list[tf.Tensor]:
        """Returns batch norm's statistics as they are, for `apply`."""
        return [tf.identity(value) for value in self._statistics]

    def apply(
        self, gradients: Sequence[tf.Tensor], factor: tf.Tensor, all_finite: tf.Tensor, statistics: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes a step, or none, in the context of a replica.

        Args:
          gradients: summed over all replicas, of the loss times `scale`.
          factor: float32 scalar, what they are to be multiplied with besides.
          fine: bool scalar, whether a step may be taken as far as the caller knows. It is not if a gradient is not finite.
          statistics: what they were before the network was run.

        Returns:
          bool scalar, whether the step was taken, and float32 scalar, the norm of all gradients before clipping.
        """
        factor = factor / self.scale
        norm = tf.linalg.global_norm(gradients) * factor  # not finite if any of them is not
        all_finite = all_finite & tf.math.is_finite(norm)
        if self._clip_norm:
            factor *= self._clip_norm / tf.maximum(norm, self._clip_norm)
        told = {"factor": factor, "all_finite": all_finite, "rate": self.rate, "count": tf.cast(self.steps + 1, tf.float32)}
        self._step_weights(list(gradients), told)
        tf.distribute.get_replica_context().merge_call(self._step_others, args=(list(statistics), told))
        return all_finite, norm

    def _step_others(self, strategy: tf.distribute.Strategy, statistics: list, told: dict) -> None:
        update = strategy.extended.update
        for value, before in zip(self._statistics, statistics, strict=True):
            update(
                value,
                lambda value, before, all_finite: value.assign(tf.where(all_finite, value, before)),
                args=(before, told["all_finite"]),
            )
        if self._scaling:
            update(self.scale, self._rescale, args=(self._good_steps, told["all_finite"]))
        update(
            self.steps, lambda steps, all_finite: steps.assign_add(tf.cast(all_finite, tf.int64)), args=(told["all_finite"],)
        )

    def _step_weights(self, gradients: list, told: dict) -> None:
        def step_all(strategy: tf.distribute.Strategy, gradients: list) -> None:
            for place, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
                args = (gradient, self._moments[place], self._averages[place : place + 1], told)
                strategy.extended.update(weight, self._step, args=args)

        tf.distribute.get_replica_context().merge_call(step_all, args=(gradients,))

    def _step(self, weight: tf.Variable, gradient: tf.Tensor, moments: list, averages: list, told: dict) -> None:
        """Changes a weight on one device, and what is kept of it, if the step may be taken."""

        def change() -> None:
            decay = self._decay if len(weight.shape) > 1 else 0.0
            self._rule.change(weight, moments, gradient * told["factor"], told["rate"], told["count"], decay)
            for kept in averages:
                self._update_ema(kept, weight, told)

        tf.cond(told["all_finite"], change, lambda: None)

    def _update_ema(self, kept: tf.Variable, weight: tf.Variable, told: dict) -> None:
        # At first it follows closely: the first weights are to be forgotten.
        keeps = tf.minimum(self._average, told["count"] / (told["count"] + 10.0))
        kept.assign_add((1.0 - keeps) * (weight - kept))

    def _rescale(self, scale: tf.Variable, good_steps: tf.Variable, all_finite: tf.Tensor) -> None:
        """Halves the scale after an overflow, doubles it after a long time without one."""
        lasted = tf.where(all_finite, good_steps + 1, 0)
        over = lasted >= _GOOD_STEPS
        scale.assign(
            tf.where(all_finite, tf.where(over, tf.minimum(scale * 2.0, 2.0**24), scale), tf.maximum(scale / 2.0, 1.0))
        )
        good_steps.assign(tf.where(over, tf.zeros_like(lasted), lasted))


class KerasOptimizerAdapter(Optimizer):
    """Steps of a network's weights, on one device, by an optimizer of Keras 2's older kind: those of TensorFlow Addons.

    Args:
      weights, statistics, rate, clip_norm, average, scaling: as above.
      theirs: the optimizer.
    """

    def __init__(
        self, weights: Sequence[tf.Variable], statistics: Sequence[tf.Variable], theirs: Any, rate: Callable, **fields
    ):
        super().__init__(weights, statistics, Rule(0, lambda *_: None), rate, **fields)
        self._theirs = theirs
        # It makes its moments with its first step: one of no length, which counts for nothing.
        rate_of_theirs = theirs.learning_rate
        rate_of_theirs.assign(0.0)
        theirs.apply_gradients([(tf.zeros_like(weight), weight) for weight in weights])
        theirs.iterations.assign(0)

    @property
    def state(self) -> dict[str, Any]:
        return {**super().state, "theirs": list(self._theirs.weights)}

    def _step_weights(self, gradients: list, told: dict) -> None:
        def change() -> None:
            self._theirs.learning_rate.assign(told["rate"])
            scaled = [gradient * told["factor"] for gradient in gradients]
            self._theirs.apply_gradients(zip(scaled, self.weights, strict=True))
            for kept, weight in zip(self._averages, self.weights, strict=False):
                self._update_ema(kept, weight, told)

        tf.cond(told["all_finite"], change, lambda: None)


def _variable(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)


_RULES = {
    "sgd": sgd(),
    "adam": adam(),
    # A short memory for the gradients' size: it changes by orders of magnitude when CTC's slow start ends.
    "adamw": adam(beta_2=0.98),
    "lamb": lamb(),
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
        return KerasOptimizerAdapter(weights, statistics, addons.build(config.optimizer, config.learning_rate), rate, **fields)
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
