"""The two trainers: a compiled loop of our own, and Keras's `fit`. Both take the same steps."""

import math

import keras
import tensorflow as tf

from ocr.training.run import Run
from ocr.training.steps import Steps


def loop(run: Run) -> None:
    """Takes a few steps at a time inside one `tf.function`."""
    iterator = iter(run.batches)
    while run.remaining:
        count = run.steps_until_due
        run.steps.run(iterator, tf.constant(count, tf.int64))
        run.after_steps(count, run.steps.waited())


def fit(run: Run) -> None:
    """Lets Keras's `fit` take the same steps."""
    if not (steps := run.remaining):
        return
    model = _StepModel(run.steps)
    model.compile(jit_compile=False)
    model.fit(run.batches, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[_StepCallback(run)])


class _StepModel(keras.Model):
    """A model whose `train_step` is a step of the training."""

    def __init__(self, steps: Steps):
        super().__init__(name="fitted")
        self._steps = steps
        self.built = True

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Takes a step."""
        return {"step": self._steps.step(batch)}


class _StepCallback(keras.callbacks.Callback):
    """Calls `Run.after_steps` when it is due, and ends `fit` when the run is to end."""

    def __init__(self, run: Run):
        super().__init__()
        self._run, self._count, self._steps_until_due = run, 0, run.steps_until_due

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Counts a step."""
        self._count += 1
        if self._count == self._steps_until_due:
            self._run.after_steps(self._count, waited_s=math.nan)
            self._count, self._steps_until_due = 0, self._run.steps_until_due
            self.model.stop_training = not self._run.remaining
