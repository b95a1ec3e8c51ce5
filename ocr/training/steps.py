"""Training steps, compiled: several at a time run without returning to Python."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from ocr.model.objective import Objective, alignable
from ocr.training.devices import Devices
from ocr.training.weight_update import Optimizer

_INPUTS = ("pixels", "width", "labels", "label_lengths", "middles", "draws")  # parts of a batch that replicas need, if present


class StepTotals(NamedTuple):
    """Sums over the steps since `Steps.reset_totals`.

    Attributes:
      nats: sum of the CTC losses of all lines that have one.
      lines: number of these lines.
      norms: sum of the gradients' global norms.
      taken: number of steps taken.
      overflows: number of steps skipped because a gradient overflowed float16; each lowers the loss scale.
    """

    nats: float
    lines: float
    norms: float
    taken: float
    overflows: float


class SkippedSteps(NamedTuple):
    """Steps that were skipped because their loss or a gradient was not finite.

    Attributes:
      steps: their numbers, from 1.
      files: names of the lines in their batches, as far as this process has them.
      row: the longest run of consecutive ones.
    """

    steps: list[int]
    files: list[str]
    row: int


class Steps:
    """Takes training steps on all devices.

    The loss is the sum over all lines that can be aligned, on all replicas, divided by their number.

    Args:
      objective: network and loss, created in the scope of the devices' strategy.
      optimizer: of its weights, created in the same scope.
      devices: to run on.
      batch_size: lines of a step, over all workers.
      timed: whether to measure the wait for input; deterministic ops must not read the clock.

    Attributes:
      run: takes steps; of an iterator over batches, and the number of steps, an int64 scalar.
    """

    def __init__(self, objective: Objective, optimizer: Optimizer, devices: Devices, batch_size: int, timed: bool = True):
        self._objective, self._optimizer, self._devices, self._batch_size = objective, optimizer, devices, batch_size
        self.run = tf.function(self._run, reduce_retracing=True, autograph=False)
        self._totals = [_variable(tf.constant(0.0, tf.float64)) for _ in StepTotals._fields]
        self._number, self._row, self._longest_row = (_variable(tf.constant(0, tf.int64)) for _ in range(3))
        self._clock = tf.timestamp if timed else lambda: tf.constant(math.nan, tf.float64)
        self._waited_s = _variable(tf.constant(0.0, tf.float64))
        self._skipped = tf.Variable(tf.zeros([0], tf.int64), shape=[None], trainable=False)
        self._files = tf.Variable(tf.zeros([0], tf.string), shape=[None], trainable=False)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"number": self._number, "row": self._row, "sums": self._totals}

    @property
    def number(self) -> int:
        """Number of steps done, including skipped ones."""
        return int(self._number)

    @property
    def failing(self) -> bool:
        """Whether the last step was skipped because something was not finite."""
        return bool(self._row > 0)

    def totals(self) -> StepTotals:
        """Returns the sums over the steps since `reset_totals`."""
        return StepTotals(*(float(value) for value in self._totals))

    def reset_totals(self) -> None:
        """Begins new sums."""
        for value in self._totals:
            value.assign(0.0)

    def waited(self) -> float:
        """Returns the seconds that `run` has waited for input since the last call; NaN if this is not measured."""
        waited = float(self._waited_s)
        self._waited_s.assign(0.0)
        return waited

    def skipped(self) -> SkippedSteps:
        """Returns the steps skipped since the last call."""
        skipped = SkippedSteps(
            self._skipped.numpy().tolist(),
            [name.decode("utf-8", "replace") for name in self._files.numpy()],
            int(self._longest_row),
        )
        if skipped.steps:
            self._skipped.assign(tf.zeros([0], tf.int64))
            self._files.assign(tf.zeros([0], tf.string))
        self._longest_row.assign(self._row)
        return skipped

    def _run(self, iterator: Iterator[dict[str, tf.Tensor]], count: tf.Tensor) -> None:
        def take_one(number: tf.Tensor) -> tuple[tf.Tensor]:
            # In this order: the last step ends, read the clock, the next batch arrives, read the clock.
            with tf.control_dependencies([number]):
                before = self._clock()
            with tf.control_dependencies([before]):
                batch = next(iterator)
            with tf.control_dependencies([batch["pixels"]]):
                self._waited_s.assign_add(self._clock() - before)
            return (self.step(batch),)

        end = self._number + count
        tf.while_loop(lambda number: number < end, take_one, [tf.identity(self._number)])

    def step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Takes a step, inside a `tf.function`.

        Args:
          batch: as `pipeline.training_batches` yields it.

        Returns:
          The number of the step, int64 scalar.
        """
        inputs = {name: batch[name] for name in _INPUTS if name in batch}
        nats, lines, norm, taken, not_finite = self._devices.run(self._replica_step, inputs)
        was_taken, was_finite = (tf.cast(value, tf.float32) for value in (taken, ~not_finite))
        sums = (
            tf.math.multiply_no_nan(nats, was_finite),
            lines * was_finite,
            tf.math.multiply_no_nan(norm, was_taken),
            was_taken,
            was_finite - was_taken,
        )
        for total, value in zip(self._totals, sums, strict=True):
            total.assign_add(tf.cast(value, tf.float64))
        number = self._number.assign_add(1)
        row = self._row.assign(tf.where(not_finite, self._row + 1, 0))
        self._longest_row.assign(tf.maximum(self._longest_row, row))
        skipped = tf.cast(not_finite, tf.int32)  # 1 or 0
        self._skipped.assign(tf.concat([self._skipped, number[tf.newaxis][:skipped]], 0))
        self._files.assign(tf.concat([self._files, batch["filename"][: skipped * tf.shape(batch["filename"])[0]]], 0))
        return tf.identity(number)

    def _replica_step(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """Takes a step with a replica's own rows.

        Returns:
          Over all replicas, and equal on each: the sum of the losses, the number of lines, the norm of the gradients, whether
          the step was taken, and whether it was skipped because something is not finite (other than by an overflow of the
          scaled loss).
        """
        context = tf.distribute.get_replica_context()
        rows, replicas = tf.shape(batch["width"])[0], self._devices.local_replicas
        index = context.replica_id_in_sync_group % replicas
        own = {name: value[index * rows // replicas : (index + 1) * rows // replicas] for name, value in batch.items()}
        statistics, scale = self._optimizer.statistics(), tf.identity(self._optimizer.scale)
        with tf.GradientTape() as tape:
            line_losses, loss = self._objective.losses(own)
            lines = tf.reduce_sum(tf.cast(alignable(line_losses), tf.float32))
            # Each replica's mean is weighted by its lines. `apply` corrects for the lines missing from a full batch.
            loss *= (lines / self._batch_size) * scale
        gradients = tape.gradient(loss, self._optimizer.weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        total = tf.reduce_sum(tf.where(alignable(line_losses), line_losses, 0.0))
        *gradients, total, lines = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, total, lines])
        all_finite = tf.math.is_finite(total) & (lines > 0.0)
        taken, norm = self._optimizer.apply(gradients, self._batch_size / tf.maximum(lines, 1.0), all_finite, statistics)
        return total, lines, norm, taken, ~taken & ~(all_finite & (scale > 1.0))


def _variable(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)
