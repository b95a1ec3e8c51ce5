"""The weights' update in a training step, whatever the optimizer.

All replicas take the same steps: gradients are summed, tested and clipped, then applied on all replicas or on none.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

_FIRST_SCALE = 2.0**11  # low, since an overflow costs a step, and the first steps matter most
_GOOD_STEPS = 1000  # steps without an overflow after which the loss scale doubles

Schedule = Callable[[tf.Tensor], tf.Tensor]  # from the number of steps taken to the learning rate, float32 scalars


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


class Optimizer:
    """Changes the weights of a network by an update rule.

    To be created in the scope of the strategy in which the weights were created.

    Args:
      weights: to train.
      statistics: of batch norm; a training step changes them too, and a skipped step must not.
      rule: update rule.
      rate: learning rate schedule.
      decay: weight decay of matrices and kernels, as a share of the learning rate; biases and other vectors do not decay.
      clip_norm: gradients are scaled down to this global norm; 0 for no clipping.
      average: how much of the weights' moving average each step keeps; 0 for no average.
      scaling: whether to scale the loss, which float16 needs.

    Attributes:
      weights: as given.
      steps: int64 variable, number of steps applied.
      scale: float32 variable, factor of the loss.
    """

    def __init__(
        self,
        weights: Sequence[tf.Variable],
        statistics: Sequence[tf.Variable],
        rule: Rule,
        rate: Schedule,
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
        """What a checkpoint holds beside the weights."""
        counts = {"steps": self.steps, "scale": self.scale, "calm": self._good_steps}
        return {**counts, "moments": self._moments, "averages": self._averages}

    @property
    def rate(self) -> tf.Tensor:
        """The learning rate of the next step, float32 scalar."""
        return self._rate(tf.cast(self.steps, tf.float32))

    @property
    def averaged(self) -> list[tf.Variable]:
        """The weights to evaluate: their moving averages, or the weights themselves if there are none."""
        return self._averages or self.weights

    def statistics(self) -> list[tf.Tensor]:
        """Returns the current statistics of batch norm, for `apply`."""
        return [tf.identity(value) for value in self._statistics]

    def apply(
        self, gradients: Sequence[tf.Tensor], factor: tf.Tensor, all_finite: tf.Tensor, statistics: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes a step or skips it, in replica context.

        Args:
          gradients: summed over all replicas, of the loss times `scale`.
          factor: float32 scalar that the gradients are multiplied with, beside the loss scale.
          all_finite: bool scalar, whether the loss is finite. A step is skipped if it is not, or if a gradient is not.
          statistics: of batch norm before the network was run.

        Returns:
          bool scalar, whether the step was taken; float32 scalar, the global norm of the gradients before clipping.
        """
        factor = factor / self.scale
        norm = tf.linalg.global_norm(gradients) * factor  # not finite if any of them is not
        all_finite = all_finite & tf.math.is_finite(norm)
        if self._clip_norm:
            factor *= self._clip_norm / tf.maximum(norm, self._clip_norm)
        step = {"factor": factor, "all_finite": all_finite, "rate": self.rate, "count": tf.cast(self.steps + 1, tf.float32)}
        self._update_weights(list(gradients), step)
        tf.distribute.get_replica_context().merge_call(self._update_others, args=(list(statistics), step))
        return all_finite, norm

    def _update_others(self, strategy: tf.distribute.Strategy, statistics: list, step: dict[str, tf.Tensor]) -> None:
        """Takes back the statistics of a skipped step, and counts a step that was taken."""
        update, all_finite = strategy.extended.update, step["all_finite"]
        for value, before in zip(self._statistics, statistics, strict=True):
            update(
                value,
                lambda value, before, all_finite: value.assign(tf.where(all_finite, value, before)),
                args=(before, all_finite),
            )
        if self._scaling:
            update(self.scale, self._rescale, args=(self._good_steps, all_finite))
        update(self.steps, lambda steps, all_finite: steps.assign_add(tf.cast(all_finite, tf.int64)), args=(all_finite,))

    def _update_weights(self, gradients: list, step: dict[str, tf.Tensor]) -> None:
        def update_all(strategy: tf.distribute.Strategy, gradients: list) -> None:
            for place, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
                args = (gradient, self._moments[place], self._averages[place : place + 1], step)
                strategy.extended.update(weight, self._update_weight, args=args)

        tf.distribute.get_replica_context().merge_call(update_all, args=(gradients,))

    def _update_weight(
        self, weight: tf.Variable, gradient: tf.Tensor, moments: list, averages: list, step: dict[str, tf.Tensor]
    ) -> None:
        """Changes a weight on one device, its moments and its average, if the step is taken."""

        def update() -> None:
            decay = self._decay if len(weight.shape) > 1 else 0.0
            self._rule.update(weight, moments, gradient * step["factor"], step["rate"], step["count"], decay)
            for average in averages:
                self._update_ema(average, weight, step)

        tf.cond(step["all_finite"], update, lambda: None)

    def _update_ema(self, average: tf.Variable, weight: tf.Variable, step: dict[str, tf.Tensor]) -> None:
        # The first steps keep less, so that the initial weights are forgotten.
        keep = tf.minimum(self._average, step["count"] / (step["count"] + 10.0))
        average.assign_add((1.0 - keep) * (weight - average))

    def _rescale(self, scale: tf.Variable, good_steps: tf.Variable, all_finite: tf.Tensor) -> None:
        """Halves the loss scale after an overflow, doubles it after many steps without one."""
        count = tf.where(all_finite, good_steps + 1, 0)
        double = count >= _GOOD_STEPS
        scale.assign(
            tf.where(all_finite, tf.where(double, tf.minimum(scale * 2.0, 2.0**24), scale), tf.maximum(scale / 2.0, 1.0))
        )
        good_steps.assign(tf.where(double, tf.zeros_like(count), count))


class KerasOptimizerAdapter(Optimizer):
    """Changes the weights of a network, on one device, by an optimizer of Keras 2's legacy kind, as TensorFlow Addons has.

    Args:
      weights: see `Optimizer`, as for the other arguments.
      statistics: see `Optimizer`.
      keras_optimizer: the optimizer, which is to have no schedule of its own.
      rate: see `Optimizer`.
      **options: `clip_norm`, `average` and `scaling` of `Optimizer`.
    """

    def __init__(
        self,
        weights: Sequence[tf.Variable],
        statistics: Sequence[tf.Variable],
        keras_optimizer: Any,
        rate: Schedule,
        **options: Any,
    ):
        super().__init__(weights, statistics, Rule(0, lambda *_: None), rate, **options)
        self._keras_optimizer = keras_optimizer
        # It creates its moments with its first step: take one with a rate of 0, and do not count it.
        learning_rate = keras_optimizer.learning_rate
        learning_rate.assign(0.0)
        keras_optimizer.apply_gradients([(tf.zeros_like(weight), weight) for weight in weights])
        keras_optimizer.iterations.assign(0)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the weights."""
        return {**super().state, "theirs": list(self._keras_optimizer.weights)}

    def _update_weights(self, gradients: list, step: dict[str, tf.Tensor]) -> None:
        def update() -> None:
            self._keras_optimizer.learning_rate.assign(step["rate"])
            scaled = [gradient * step["factor"] for gradient in gradients]
            self._keras_optimizer.apply_gradients(zip(scaled, self.weights, strict=True))
            for average, weight in zip(self._averages, self.weights, strict=False):
                self._update_ema(average, weight, step)

        tf.cond(step["all_finite"], update, lambda: None)


def _variable(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)
