"""What happens around the steps of a training, whichever trainer takes them: logs, evaluations, checkpoints, and the watch."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.doctor.watch import Watch
from ocr.progress import Progress
from ocr.saving.workdir import Workdir
from ocr.training import eval_model
from ocr.training.devices import Devices
from ocr.training.eval_model import EvalModel
from ocr.training.journal import Clock, Journal
from ocr.training.state import State
from ocr.training.steps import SkippedSteps
from tfrecords.errors import IntegrityError

_LOG = logging.getLogger(__name__)

_INNER_STEPS = 10  # steps at most before returning to Python, which checks the clock and the wish to stop
_LOGGED_FILES = 5


class Run:
    """The outer loop of a training, used as a context. It saves when the block ends without an error.

    Args:
      config: of the training.
      workdir: already begun.
      charset: of the labels.
      devices: to train on.
      state: new, or restored from a checkpoint.
      batches: to train on, without end, from the next step on.
      epoch_steps: steps of an epoch.
      evaluation: evaluates held-out lines.
      held_out: the first held-out lines, to examine and to draw.
      watch: the doctor's.
      journal: records metrics; None for workers that write nothing.
      stop: called every few steps; once it returns true, the training ends.

    Attributes:
      steps: takes the steps.
      batches: as given.
      stopped: whether the training ended because of `stop`, here or in another worker.
    """

    def __init__(
        self,
        config: TrainConfig,
        workdir: Workdir,
        charset: Charset,
        devices: Devices,
        state: State,
        batches: tf.data.Dataset,
        epoch_steps: float,
        evaluation: EvalModel,
        held_out: dict[str, tf.Tensor],
        watch: Watch,
        journal: Journal | None,
        stop: Callable[[], bool],
    ):
        self._config, self._workdir, self._charset, self._devices, self._stop = config, workdir, charset, devices, stop
        self._state, self.steps, self.batches, self._epoch_steps = state, state.steps, batches, epoch_steps
        self._evaluation, self._held_out, self._watch, self._journal = evaluation, held_out, watch, journal
        self._saved = state.steps.number
        self._clock = Clock(config.batch_size)
        self._bar = Progress(devices.log_prefix("training"), config.steps, "steps", self._saved)
        self.stopped = False

    def __enter__(self) -> "Run":
        self._bar.__enter__()
        self._clock.restart()
        self._watch.before_steps(self._state.optimizer.weights)
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                if self._clock.steps:  # stopped between two training lines
                    self._log()
                if self.steps.number > self._saved:
                    self._save()
                if not self._state.usable(self._held_out):
                    raise IntegrityError(
                        f"after step {self.steps.number} the network's outputs are not finite: {self._newest_checkpoint()}"
                    )
        finally:
            self._bar.__exit__(*error)

    @property
    def remaining(self) -> int:
        """Number of steps still to take; 0 once the training is to end. Every worker has to ask."""
        patience = self._config.patience
        out_of_patience = patience > 0 and self._state.best.evals_since_best >= patience
        stops, ends = self._devices.total(float(self._stop()), float(out_of_patience))  # one worker decides for all
        left = max(self._config.steps - self.steps.number, 0)
        self.stopped = stops > 0 and left > 0
        return 0 if stops or ends else left

    @property
    def steps_until_due(self) -> int:
        """Number of steps to take before `after_steps` must be called."""
        intervals = (self._config.log_every, self._config.eval_every, self._config.checkpoint_every)
        step = self.steps.number
        return min(_INNER_STEPS, self._config.steps - step, *(every - step % every for every in intervals))

    def after_steps(self, count: int, waited_s: float) -> None:
        """Logs, evaluates and saves if it is due.

        Args:
          count: number of steps taken since the last call.
          waited_s: seconds of them spent waiting for input, or NaN if unknown.

        Raises:
          IntegrityError: too many steps in a row were skipped, or the weights are not finite.
        """
        step, last = self.steps.number, self._config.steps
        totals, skipped = self.steps.totals(), self.steps.skipped()
        self._clock.add(count, waited_s)
        loss = totals.nats / totals.lines if totals.lines else math.nan
        rate = float(self._state.optimizer.rate)
        self._watch.after_steps(step, count, loss, rate, self._state.optimizer.weights)
        if skipped.steps:
            self._report_skipped(skipped)
        epoch, batch = divmod(step, self._epoch_steps)
        self._bar.update(
            step,
            f"epoch {int(epoch)}, batch {int(batch)}/{math.ceil(self._epoch_steps)}, time {self._clock.step_s:.3f}s, "
            f"loss {loss:.3f}, learn_rate {rate:.3g}",
        )
        if _due(step, self._config.log_every, last):
            self._log()
        evaluation = _due(step, self._config.eval_every, last)
        checkpoint = _due(step, self._config.checkpoint_every, last) or step > self._saved + self._config.checkpoint_every
        if (evaluation or checkpoint) and not self._state.usable(self._held_out):
            _LOG.warning("step %d: the network's outputs are not finite, so nothing is evaluated or saved", step)
        elif evaluation:
            self._evaluate()
        if checkpoint:
            self._save()
        self._clock.restart()

    def _write(self, metrics: dict[str, Any]) -> None:
        if self._journal:
            self._journal.write(self.steps.number, metrics)

    def _report_skipped(self, skipped: SkippedSteps) -> None:
        """Names the lines of skipped steps.

        Raises:
          IntegrityError: there were too many in a row.
        """
        self._write({"left_out": skipped.steps, "files": skipped.files})
        _LOG.warning(
            "step %s: skipped, because the loss or a gradient is not finite; its lines are %s (metrics.jsonl lists them all)",
            ", ".join(map(str, skipped.steps)),
            abbreviate(skipped.files),
        )
        if skipped.row > self._config.bad_steps:
            raise IntegrityError(
                f"the loss or a gradient was not finite in {skipped.row} steps in a row, up to step {skipped.steps[-1]} "
                f"(--bad_steps={self._config.bad_steps}); {self._newest_checkpoint()}"
            )

    def _newest_checkpoint(self) -> str:
        newest = self._workdir.newest()
        return f"the last good checkpoint is of step {newest}" if newest else "there is no checkpoint yet"

    def _log(self) -> None:
        totals = self.steps.totals()
        metrics = {
            "loss": totals.nats / totals.lines if totals.lines else None,
            "learning_rate": float(self._state.optimizer.rate),
            **self._clock.metrics(),
            "gradient_norm": totals.norms / totals.taken if totals.taken else None,
        }
        if self._config.precision == "mixed_float16":
            metrics |= {"loss_scale": float(tf.identity(self._state.optimizer.scale)), "overflows": totals.overflows}
        self._write(metrics)
        self.steps.reset_totals()
        self._clock = Clock(self._config.batch_size)
        self._watch.before_steps(self._state.optimizer.weights)

    def _evaluate(self) -> None:
        self._evaluation.sync(self._state)
        results, metrics = self._evaluation.evaluate()
        self._watch.after_evaluation(results, self._charset, self._held_out)
        step = self.steps.number
        self._write(metrics)
        self._bar.update(step, f"CER {metrics['cer']:.2%}, {metrics['line_accuracy']:.1%} of lines correct", always=True)
        if self._journal:
            self._journal.draw(step, "lines", eval_model.draw(results, self._held_out, self._config.picture_font))
        if self._state.best.update(metrics) and self._devices.is_chief:
            if not self._workdir.has_checkpoint:  # best weights alone could not be resumed from
                self._save()
            self._workdir.keep_best(self._evaluation.model, step, metrics)

    def _save(self) -> None:
        step = self.steps.number
        if not self._state.usable(self._held_out):
            return
        self._state.check_finite()
        if self._devices.is_chief:
            self._workdir.save(step, self._config.keep_checkpoints, self._state.parts())
        self._saved = step


def _due(step: int, every: int, last: int) -> bool:
    """Returns whether what is done every so many steps, and after the last one, is due after this step."""
    return step % every == 0 or step == last


def abbreviate(names: Sequence[str]) -> str:
    """Returns the first few of some names, and how many more there are."""
    more = f" and {len(names) - _LOGGED_FILES} more" if len(names) > _LOGGED_FILES else ""
    return ", ".join(names[:_LOGGED_FILES]) + more
