"""Training steps, compiled whole: several at a time without a word between Python and the devices."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from ocr.model.objective import Objective, alignable
from ocr.training.devices import Devices
from ocr.training.optimizer import Optimizer

_FED = ("pixels", "width", "labels", "label_lengths", "middles", "draws")  # what a replica needs of a batch, if it is there


class StepTotals(NamedTuple):
    """What steps came to, since this was last begun anew.

    Attributes:
      nats: sum of the CTC losses of all lines that have one.
      lines: their number.
      norms: sum of the gradients' norms.
      taken: steps that were taken.
      overflows: steps left out because float16 could not hold a gradient; the loss is scaled less after each.
    """

    nats: float
    lines: float
    norms: float
    taken: float
    overflows: float


class SkippedSteps(NamedTuple):
    """Steps that were left out because their loss or a gradient was not finite.

    Attributes:
      steps: their numbers, from 1.
      files: that the lines of their batches are of, as far as this process has them.
      row: how many of them came one after the other, at most.
    """

    steps: list[int]
    files: list[str]
    row: int


class Steps:
    """Takes training steps on all devices.

    The loss is the sum over all lines that can be aligned, on whatever replica, divided by their number.

    Args:
      learner: network and loss, made in the scope of the devices' strategy.
      optimizer: of its weights, made there too.
      devices: to run on.
      batch_size: lines of a step, over all workers.
      timed: whether to look at the clock, which deterministic operations must not.

    Attributes:
      take: takes steps; of an iterator of batches, and their number, an int64 scalar.
    """

    def __init__(self, objective: Objective, optimizer: Optimizer, devices: Devices, batch_size: int, timed: bool = True):
        self._objective, self._optimizer, self._devices, self._batch_size = objective, optimizer, devices, batch_size
        self.run = tf.function(self._run, reduce_retracing=True, autograph=False)
        self._sums = [_variable(tf.constant(0.0, tf.float64)) for _ in StepTotals._fields]
        self._number, self._row, self._longest = (_variable(tf.constant(0, tf.int64)) for _ in range(3))
        self._clock = tf.timestamp if timed else lambda: tf.constant(math.nan, tf.float64)
        self._waited = _variable(tf.constant(0.0, tf.float64))
        self._failed = tf.Variable(tf.zeros([0], tf.int64), shape=[None], trainable=False)
        self._files = tf.Variable(tf.zeros([0], tf.string), shape=[None], trainable=False)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint is to hold."""
        return {"number": self._number, "row": self._row, "sums": self._sums}

    @property
    def number(self) -> int:
        """How many steps are over, those left out included."""
        return int(self._number)

    @property
    def failing(self) -> bool:
        """Whether the last step was left out because something was not finite."""
        return bool(self._row > 0)

    def totals(self) -> StepTotals:
        return StepTotals(*(float(value) for value in self._sums))

    def reset_totals(self) -> None:
        for value in self._sums:
            value.assign(0.0)

    def waited(self) -> float:
        """Returns the seconds that `run` has spent waiting for input since this was last asked; NaN if it is not timed."""
        waited = float(self._waited)
        self._waited.assign(0.0)
        return waited

    def skipped(self) -> SkippedSteps:
        """Returns what has failed since this was last asked."""
        failures = SkippedSteps(
            self._failed.numpy().tolist(), [name.decode("utf-8", "replace") for name in self._files.numpy()], int(self._longest)
        )
        if failures.steps:
            self._failed.assign(tf.zeros([0], tf.int64))
            self._files.assign(tf.zeros([0], tf.string))
        self._longest.assign(self._row)
        return failures

    def _run(self, iterator: Iterator[dict[str, tf.Tensor]], count: tf.Tensor) -> None:
        def one(number: tf.Tensor) -> tuple[tf.Tensor]:
            # In this order: the last step is over, the clock, the next batch is there, the clock.
            with tf.control_dependencies([number]):
                asked = self._clock()
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies([batch["pixels"]]):
                self._waited.assign_add(self._clock() - asked)
            return (self.step(batch),)

        end = self._number + count
        tf.while_loop(lambda number: number < end, one, [tf.identity(self._number)])

    def step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Takes a step, in a `tf.function`; returns its number, int64 scalar."""
        fed = {name: batch[name] for name in _FED if name in batch}
        nats, lines, norm, taken, broken = self._devices.run(self._replica_step, fed)
        counted, whole = (tf.cast(value, tf.float32) for value in (taken, ~broken))
        total = tf.math.multiply_no_nan(nats, whole), lines * whole
        for value, more in zip(
            self._sums, (*total, tf.math.multiply_no_nan(norm, counted), counted, whole - counted), strict=True
        ):
            value.assign_add(tf.cast(more, tf.float64))
        number = self._number.assign_add(1)
        row = self._row.assign(tf.where(broken, self._row + 1, 0))
        self._longest.assign(tf.maximum(self._longest, row))
        failed = tf.cast(broken, tf.int32)
        self._failed.assign(tf.concat([self._failed, number[tf.newaxis][:failed]], 0))
        self._files.assign(tf.concat([self._files, batch["filename"][: failed * tf.shape(batch["filename"])[0]]], 0))
        return tf.identity(number)

    def _replica_step(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """Takes a step with a replica's own rows.

        Returns:
          Of all replicas, and the same on each: the sum of the losses, the number of lines, the norm of the gradients, whether
          the step was taken, and whether it was not because something is not finite.
        """
        context = tf.distribute.get_replica_context()
        rows, here = tf.shape(batch["width"])[0], self._devices.local_replicas
        place = context.replica_id_in_sync_group % here
        own = {name: value[place * rows // here : (place + 1) * rows // here] for name, value in batch.items()}
        statistics, scale = self._optimizer.statistics(), tf.identity(self._optimizer.scale)
        with tf.GradientTape() as tape:
            nats, objective = self._objective.losses(own)
            lines = tf.reduce_sum(tf.cast(alignable(nats), tf.float32))
            # Each replica's mean counts by its lines; what is lacking to a whole batch is made good below.
            objective *= (lines / self._batch_size) * scale
        gradients = tape.gradient(objective, self._optimizer.weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        total = tf.reduce_sum(tf.where(alignable(nats), nats, 0.0))
        *gradients, total, lines = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, total, lines])
        all_finite = tf.math.is_finite(total) & (lines > 0.0)
        taken, norm = self._optimizer.apply(gradients, self._batch_size / tf.maximum(lines, 1.0), all_finite, statistics)
        return total, lines, norm, taken, ~taken & ~(all_finite & (scale > 1.0))


def _variable(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)
