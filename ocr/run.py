"""What goes on around the steps of a training, whoever takes them: logging, evaluation, checkpoints, and the doctor's watch."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ocr import doctor, evaluate, inputs, models, recipe
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.journal import Journal
from ocr.learner import Learner
from ocr.progress import Progress
from ocr.recogniser import Recogniser
from ocr.sets import Lines, Mixture
from ocr.watch import Watch
from ocr.workdir import Workdir
from tfrecords.errors import IntegrityError

INNER = 10  # steps at most between two looks at the clock and at the wish to stop


class Run:
    """A training under way, used as a context: it begins where the newest checkpoint is, and saves when the block ends well.

    Args:
      config: of the training.
      workdir: that was begun.
      charset: of the labels.
      data: to train on.
      held_out: to evaluate.
      stop: asked every few steps; once it is true, the training is to end.

    Attributes:
      learner: network and loss.
      optimizer: with its schedule.
      batches: to train on, without end.
      step: how many are done.

    Raises:
      IntegrityError: the doctor found why the training must fail, and `override` is not set; or the checkpoints are damaged.
    """

    def __init__(
        self,
        config: TrainConfig,
        workdir: Workdir,
        charset: Charset,
        data: Mixture,
        held_out: Lines,
        stop: Callable[[], bool],
    ):
        self._config, self._workdir, self._charset, self._stop = config, workdir, charset, stop
        keras.utils.set_random_seed(config.seed)
        model = models.build(config.model, charset.num_classes)
        self.learner = Learner(model)
        self.optimizer = recipe.optimizer(config, data.count)
        self.optimizer.build(model.trainable_variables)
        self._passed = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._parts = {"model": model, "optimizer": self.optimizer, "step": self._passed}
        if workdir.restore(self._parts):
            print(f"going on from step {int(self._passed)}", file=sys.stderr)
        self.step = self._saved = int(self._passed)
        self._poorer = 0  # evaluations since the best one

        pixels_per_frame = models.network(config.model).pixels_per_frame
        self.batches = inputs.training_batches(
            data, charset, config.batch_size, pixels_per_frame, config.seed, self.step, strength=config.augment
        )
        self._held_out = inputs.evaluation_batches(held_out, charset, config.batch_size)
        self._evaluator = evaluate.Evaluator(Recogniser(model, charset))
        case, levels = doctor.look_at(self.learner, charset, data, held_out, pixels_per_frame)
        self._looked_at = case.held_out[0]
        self._watch = _examine(case, levels, config, workdir)
        if self.step >= config.steps:
            print(f"nothing to do: step {self.step} is done, --steps={config.steps} asks for no more", file=sys.stderr)

    def __enter__(self) -> "Run":
        self._journal = Journal(self._workdir.path, self.step).__enter__()
        self._bar = Progress("training", self._config.steps, "steps", self.step).__enter__()
        self._interval = _Interval()
        self._watch.before_steps()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                if self._interval.lines:  # asked to stop
                    self._log()
                if self.step > self._saved:
                    self._save()
        finally:
            self._bar.__exit__(*error)
            self._journal.__exit__(*error)

    @property
    def remaining(self) -> int:
        """How many steps are still to be taken; 0 once the training is to end."""
        patience = self._config.patience
        done = self._stop() or (patience and self._poorer >= patience)
        return 0 if done else max(self._config.steps - self.step, 0)

    @property
    def together(self) -> int:
        """How many steps may be taken before `taken` has to be told."""
        intervals = (self._config.log_every, self._config.eval_every, self._config.checkpoint_every)
        return min(INNER, self._config.steps - self.step, *(every - self.step % every for every in intervals))

    def taken(self, count: int, total: float, lines: int, waited: float | None) -> None:
        """Is told of steps: logs, evaluates and saves where that is due.

        Args:
          count: of steps.
          total: sum of the lines' CTC losses, in nats.
          lines: their number.
          waited: seconds spent waiting for input, or None where that is not known.

        Raises:
          IntegrityError: the loss or the weights are not finite.
        """
        first = not self._interval.lines
        self._interval.add(total, lines, waited)
        self.step += count
        self._passed.assign(self.step)
        loss = self._interval.loss
        if first:
            self._watch.after_steps(self.step, count, loss, float(self.optimizer.learning_rate))
        if not math.isfinite(loss):
            raise IntegrityError(f"the loss is {loss} between steps {self.step - count} and {self.step}")
        self._bar.update(self.step, f"loss {loss:.3f}")
        if self._due(self._config.log_every):
            self._log()
        if self._due(self._config.eval_every):
            self._evaluate()
        if self._due(self._config.checkpoint_every):
            self._save()
        self._interval.restart_clock()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self._config.steps

    def _log(self) -> None:
        self._journal.write(self.step, self._interval.figures(float(self.optimizer.learning_rate)))
        self._interval = _Interval()
        self._watch.before_steps()

    def _evaluate(self) -> None:
        readings, loss = self._evaluator(self._held_out)
        measured = evaluate.measures(readings)
        figures = {"eval_loss": loss, "cer": measured["cer"], "line_accuracy": measured["line_accuracy"]}
        self._watch.after_evaluation(readings, self._charset, self._looked_at)
        self._journal.write(self.step, figures)
        told = f"CER {figures['cer']:.2%}, {figures['line_accuracy']:.1%} of lines whole"
        self._bar.update(self.step, told, always=True)
        self._poorer += 1
        if _is_better(figures, self._workdir.best()):
            self._poorer = 0
            if not self._workdir.has_checkpoint:  # what is best must not be all there is
                self._save()
            self._workdir.keep_best(self.learner.model, self.step, figures)

    def _save(self) -> None:
        _check_finite(self.learner.model, self.step)
        self._workdir.save(self.step, self._config.keep_checkpoints, self._parts)
        self._saved = self.step


def _examine(case: doctor.Case, levels: dict[str, float], config: TrainConfig, workdir: Workdir) -> Watch:
    """Has the doctor look at everything before the first step.

    Returns:
      Who looks on from then.

    Raises:
      IntegrityError: it found why the training must fail, and `override` is not set.
    """
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


class _Interval:
    """Sums over the steps between two training lines of the journal."""

    def __init__(self) -> None:
        self._total = self.lines = self._waited = self._used = 0.0
        self._since = time.monotonic()

    def add(self, total: float, lines: int, waited: float | None) -> None:
        self._total += total
        self.lines += lines
        self._waited += math.nan if waited is None else waited
        self._used += time.monotonic() - self._since
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out what has passed since: an evaluation is no training time."""
        self._since = time.monotonic()

    @property
    def loss(self) -> float:
        return self._total / max(self.lines, 1)

    def figures(self, learning_rate: float) -> dict[str, float | None]:
        return {
            "loss": self.loss,
            "learning_rate": learning_rate,
            "lines_per_second": self.lines / self._used,
            "input_wait": None if math.isnan(self._waited) else self._waited / self._used,
        }


def _is_better(figures: dict[str, Any], best: dict[str, Any]) -> bool:
    """Compares by CER; the loss, where there is one, decides between equals."""

    def rank(of: dict[str, Any]) -> tuple[float, float]:
        return of["cer"], math.inf if of.get("eval_loss") is None else of["eval_loss"]

    return not best or rank(figures) < rank(best)
