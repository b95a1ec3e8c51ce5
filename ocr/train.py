"""The training loop: an inner loop of steps inside one `tf.function`, an outer loop in Python that logs, evaluates, saves."""

import math
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ocr import charset as charsets
from ocr import doctor, evaluate, inputs, models, recipe, references
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.inputs import Lines
from ocr.journal import Journal
from ocr.learner import Learner
from ocr.progress import Progress
from ocr.recogniser import Recogniser
from ocr.watch import Watch
from ocr.workdir import Workdir
from tfrecords.errors import InputError, IntegrityError

_INNER = 10  # steps at most between two looks at the clock and at the wish to stop
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
    train_lines = inputs.find(config.train_data, "train")
    held_out = inputs.find(config.eval_data, "eval")
    charset = _charset(config, train_lines)
    for lines in (train_lines, held_out):
        lines.check_writable_with(charset)
    pixels_per_frame = models.network(config.model).pixels_per_frame
    left_out = _report_unfit(train_lines, pixels_per_frame)

    workdir = Workdir(pathlib.Path(config.workdir))
    with workdir.begin(config, charset, train_lines, held_out), inputs.naming_damage(train_lines, held_out):
        step = _run(config, stop, workdir, charset, train_lines, held_out, left_out)
    best = workdir.best()
    return {
        "cer": best.get("cer"),
        "line_accuracy": best.get("line_accuracy"),
        "best_step": best.get("step"),
        "steps": step,
        "seconds": round(time.monotonic() - begun, 1),
    }


def _run(
    config: TrainConfig,
    stop: Callable[[], bool],
    workdir: Workdir,
    charset: Charset,
    train_lines: Lines,
    held_out: Lines,
    left_out: int,
) -> int:
    """Trains to the last step, or until it is to stop; returns the step reached."""
    keras.utils.set_random_seed(config.seed)
    model = models.build(config.model, charset.num_classes)
    optimizer = recipe.optimizer(config)
    optimizer.build(model.trainable_variables)
    passed = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
    parts = {"model": model, "optimizer": optimizer, "step": passed}
    if workdir.restore(parts):
        print(f"going on from step {int(passed)}", file=sys.stderr)
    step = int(passed)

    pixels_per_frame = models.network(config.model).pixels_per_frame
    batches = inputs.training_batches(train_lines, charset, config.batch_size, pixels_per_frame, config.seed + step)
    learner = Learner(model)
    sample = inputs.sample(train_lines, charset, config.batch_size, pixels_per_frame, doctor.SAMPLE)
    held_out_batches = inputs.evaluation_batches(held_out, charset, config.batch_size)
    case = doctor.Case(
        learner,
        charset,
        training=sample,
        held_out=list(held_out_batches.take(-(-doctor.SAMPLE // config.batch_size))),
        dummy=train_lines.manifest.dummy,
        lines=train_lines.manifest.records,
        left_out=left_out,
        zero_ids=inputs.zero_ids(train_lines),
    )
    watch = _examine(case, config, workdir, train_lines.manifest.characters)
    train_steps = inner_loop(learner, optimizer)
    evaluator = evaluate.Evaluator(Recogniser(model, charset))
    iterator = iter(batches)
    interval = _Interval()

    def due(every: int) -> bool:
        return step % every == 0 or step == config.steps

    def save() -> None:
        _check_finite(model, step)
        workdir.save(step, config.keep_checkpoints, parts)

    if step >= config.steps:
        print(f"nothing to do: step {step} is done, --steps={config.steps} asks for no more", file=sys.stderr)
    with Journal(workdir.path, step) as journal, Progress("training", config.steps, "steps", step) as bar:
        while step < config.steps and not stop():
            count = min(_INNER, config.steps - step, *(every - step % every for every in _intervals(config)))
            if not interval.lines:
                watch.before_steps()
            interval.add(*train_steps(iterator, tf.constant(count)))
            step += count
            passed.assign(step)
            watch.after_steps(step, count, interval.loss, float(optimizer.learning_rate))
            if not math.isfinite(interval.loss):
                raise IntegrityError(f"the loss is {interval.loss} between steps {step - count} and {step}")
            bar.update(step, f"loss {interval.loss:.3f}")
            if due(config.log_every):
                journal.write(step, interval.figures(float(optimizer.learning_rate)))
                interval = _Interval()
            if due(config.eval_every):
                readings, loss = evaluator(held_out_batches)
                measured = evaluate.measures(readings)
                figures = {"eval_loss": loss, "cer": measured["cer"], "line_accuracy": measured["line_accuracy"]}
                watch.after_evaluation(readings, charset, case.held_out[0])
                journal.write(step, figures)
                bar.update(step, f"CER {figures['cer']:.2%}, {figures['line_accuracy']:.1%} of lines whole", always=True)
                if _is_better(figures, workdir.best()):
                    if not workdir.has_checkpoint:  # what is best must not be all there is
                        save()
                    workdir.keep_best(model, step, figures)
                interval.restart_clock()
            if due(config.checkpoint_every):
                save()
        if interval.lines:  # asked to stop
            journal.write(step, interval.figures(float(optimizer.learning_rate)))
        if not due(config.checkpoint_every):
            save()
    return step


def _examine(case: doctor.Case, config: TrainConfig, workdir: Workdir, characters: dict[str, int]) -> Watch:
    """Has the doctor look at everything before the first step.

    Returns:
      Who looks on from then.

    Raises:
      IntegrityError: it found why the training must fail, and `override` is not set.
    """
    shapes = doctor.shapes(case, models.network(config.model).pixels_per_frame)
    levels = references.levels(shapes, case.charset.num_classes, characters, case.dummy)
    print(f"levels of the loss: {', '.join(f'{name} {level:.1f}' for name, level in levels.items())}", file=sys.stderr)
    assert case.learner is not None
    watch = Watch(case.learner, levels, config.learning_rate, doctor.examine(case), workdir.write_report)
    definite = [str(finding) for finding in watch.findings if finding.definite]
    if definite and not config.override:
        raise IntegrityError(f"doctor: {' '.join(definite)} (--override trains all the same)")
    for finding in watch.findings:
        print(f"doctor: {finding}", file=sys.stderr)
    return watch


def _check_finite(model: keras.Model, step: int) -> None:
    """Makes sure that what is to be saved can be gone on with.

    Raises:
      IntegrityError: a weight is not finite; its layer is named.
    """
    for weight in model.weights:
        if not bool(tf.reduce_all(tf.math.is_finite(weight))):
            raise IntegrityError(f"the weights {weight.path} are not finite after step {step}")


def _intervals(config: TrainConfig) -> tuple[int, int, int]:
    return config.log_every, config.eval_every, config.checkpoint_every


def _charset(config: TrainConfig, lines: Lines) -> Charset:
    """Returns the alphabet that was asked for, or the one that the records were packed with."""
    if config.charset:
        return charsets.named(config.charset)
    return charsets.saved(lines.folder / "charset.txt", lines.manifest.charset)


def _report_unfit(lines: Lines, pixels_per_frame: int) -> int:
    """Names the lines that training leaves out, and returns how many they are.

    Raises:
      InputError: no line is left.
    """
    names = inputs.unfit(lines, pixels_per_frame)
    if len(names) == lines.manifest.records:
        raise InputError(f"{lines.folder}: none of its {len(names)} lines fits frames of {pixels_per_frame} pixels")
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        print(
            f"{len(names)} lines are too long for frames of {pixels_per_frame} pixels and left out: "
            f"{', '.join(names[:_NAMED])}{more}",
            file=sys.stderr,
        )
    return len(names)


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


class _Interval:
    """Sums over the steps between two training lines of the journal."""

    def __init__(self) -> None:
        self._total = self.lines = self._waited = self._used = 0.0
        self._since = time.monotonic()

    def add(self, total: tf.Tensor, lines: tf.Tensor, waited: tf.Tensor) -> None:
        self._total += float(total)
        self.lines += int(lines)
        self._waited += float(waited)
        self._used += time.monotonic() - self._since
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out what has passed since: an evaluation is no training time."""
        self._since = time.monotonic()

    @property
    def loss(self) -> float:
        return self._total / max(self.lines, 1)

    def figures(self, learning_rate: float) -> dict[str, float]:
        return {
            "loss": self.loss,
            "learning_rate": learning_rate,
            "lines_per_second": self.lines / self._used,
            "input_wait": self._waited / self._used,
        }


def _is_better(figures: dict[str, Any], best: dict[str, Any]) -> bool:
    """Compares by CER; the loss, where there is one, decides between equals."""

    def rank(of: dict[str, Any]) -> tuple[float, float]:
        return of["cer"], math.inf if of.get("eval_loss") is None else of["eval_loss"]

    return not best or rank(figures) < rank(best)
