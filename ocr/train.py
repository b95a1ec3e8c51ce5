"""The two trainers: a loop of our own, compiled whole, and Keras's `fit`; both train the same, step by step."""

import pathlib
import sys
import time
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from ocr import charset as charsets
from ocr import models, sets
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.learner import Learner
from ocr.run import Run
from ocr.sets import Mixture
from ocr.workdir import Workdir
from tfrecords.errors import InputError

_NAMED = 5  # lines that do not fit, in the log


def train(config: TrainConfig, stop: Callable[[], bool] = lambda: False) -> dict:
    """Trains, or goes on training where the workdir holds a checkpoint.

    Args:
      config: what to train, on what.
      stop: asked every few steps; once it is true, the training saves and returns.

    Returns:
      `cer`, `line_accuracy` and `best_step` of the best evaluation (None where there was none), `steps`, `seconds`.

    Raises:
      InputError: the data, the alphabet or the workdir cannot be used.
      IntegrityError: a shard is damaged, or the loss is not finite.
    """
    begun = time.monotonic()
    pixels_per_frame = models.network(config.model).pixels_per_frame
    data = sets.mix(config.train_data, pixels_per_frame)
    held_out = sets.find(config.eval_data, "eval")
    charset = _charset(config, data)
    for lines in (*data.parts, held_out):
        lines.check_writable_with(charset)
    _report_unfit(data.left_out, pixels_per_frame)

    workdir = Workdir(pathlib.Path(config.workdir))
    with workdir.begin(config, charset, data, held_out), sets.naming_damage(*data.parts, held_out):
        run = Run(config, workdir, charset, data, held_out, stop)
        with run:
            TRAINERS[config.trainer](run)
    best = workdir.best()
    return {
        "cer": best.get("cer"),
        "line_accuracy": best.get("line_accuracy"),
        "best_step": best.get("step"),
        "steps": run.step,
        "seconds": round(time.monotonic() - begun, 1),
    }


def _charset(config: TrainConfig, data: Mixture) -> Charset:
    """Returns the alphabet that was asked for, or the one that the records were packed with.

    Raises:
      InputError: the sets of lines were packed with different ones.
    """
    if config.charset:
        return charsets.named(config.charset)
    if len({lines.manifest.charset for lines in data.parts}) > 1:
        raise InputError(f"--train_data={config.train_data}: packed with different alphabets; choose one with --charset")
    lines = data.parts[0]
    return charsets.saved(lines.folder / "charset.txt", lines.manifest.charset)


def _report_unfit(names: Sequence[str], pixels_per_frame: int) -> None:
    """Names the lines that training leaves out."""
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        print(
            f"{len(names)} lines are too long for frames of {pixels_per_frame} pixels and left out: "
            f"{', '.join(names[:_NAMED])}{more}",
            file=sys.stderr,
        )


def _loop(run: Run) -> None:
    """Takes a few steps at a time inside one `tf.function`."""
    take = inner_loop(run.learner, run.optimizer)
    iterator = iter(run.batches)
    while run.remaining:
        count = run.together
        total, lines, waited = take(iterator, tf.constant(count))
        run.taken(count, float(total), int(lines), float(waited))


def inner_loop(learner: Learner, optimizer: keras.optimizers.Optimizer) -> Callable:
    """Returns a function of an iterator and a number of steps: the sum of the lines' CTC losses in nats, the number of
    lines, and the seconds spent waiting for input."""

    def train_step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits, frames = learner.logits(batch, training=True)
            nats = learner.nats(logits, frames, batch)
            objective = learner.objective(nats)
        weights = learner.model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(objective, weights), weights, strict=True))
        return nats

    @tf.function
    def inner_loop(iterator: tf.data.Iterator, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        total, lines, waited = tf.constant(0.0), tf.constant(0), tf.constant(0.0, tf.float64)
        for _ in tf.range(count):
            # In this order: the last step is over, the clock, the next batch is there, the clock.
            with tf.control_dependencies([total]):
                asked = tf.timestamp()
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies([batch["pixels"]]):
                waited += tf.timestamp() - asked
            nats = train_step(batch)
            total += tf.reduce_sum(nats)
            lines += tf.size(nats)
        return total, lines, waited

    return inner_loop


def _fit(run: Run) -> None:
    """Trains with Keras's `compile` and `fit`."""
    if not (steps := run.remaining):
        return
    fitted = _Fitted(run.learner)
    fitted.compile(optimizer=run.optimizer, jit_compile=False)
    fitted.fit(run.batches, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[_Told(run)])


class _Fitted(keras.Model):
    """A learner as `fit` wants it: batches in, the loss computed of them and of the logits."""

    def __init__(self, learner: Learner):
        super().__init__(name="fitted")
        self._learner, self.network = learner, learner.model
        self.total = tf.Variable(0.0, trainable=False)  # of the CTC losses alone, which the loss that Keras shows is not
        self.lines = tf.Variable(0, trainable=False)
        self.built = True

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        return self._learner.logits(batch, training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training: bool = True) -> tf.Tensor:
        assert x is not None
        assert y_pred is not None
        logits, frames = y_pred
        nats = self._learner.nats(logits, frames, x)
        self.total.assign_add(tf.reduce_sum(nats))
        self.lines.assign_add(tf.size(nats))
        return self._learner.objective(nats)


class _Told(keras.callbacks.Callback):
    """Tells a run of the steps that `fit` takes."""

    def __init__(self, run: Run):
        super().__init__()
        self._run, self._count = run, 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._count += 1
        if self._count == self._run.together:
            self._run.taken(self._count, float(self.model.total), int(self.model.lines), waited=None)
            self._count = 0
            self.model.total.assign(0.0)
            self.model.lines.assign(0)
            self.model.stop_training = not self._run.remaining


TRAINERS: dict[str, Callable[[Run], None]] = {"loop": _loop, "keras": _fit}
