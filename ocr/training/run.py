"""What goes on around the steps of a training, whoever takes them: logging, evaluation, checkpoints, and the doctor's watch."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from PIL import Image

from ocr import keras_compat
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.data import pipeline
from ocr.data.dataset import Split
from ocr.data.mixture import Mixture
from ocr.doctor import examine
from ocr.doctor.case import Case, build_case
from ocr.doctor.watch import Watch
from ocr.evaluation import evaluate, metrics, picture
from ocr.evaluation.metrics import LineResult
from ocr.images import augment
from ocr.model import frozen, networks
from ocr.model.frame_objective import FrameObjective
from ocr.model.objective import Objective
from ocr.model.recogniser import Recogniser
from ocr.progress import Progress
from ocr.saving import warm_start
from ocr.saving.workdir import Best, Workdir, rank
from ocr.training import optimizer
from ocr.training.devices import Devices
from ocr.training.journal import Clock, Journal
from ocr.training.steps import SkippedSteps, Steps
from tfrecords.errors import InputError, IntegrityError

INNER = 10  # steps at most between two looks at the clock and at the wish to stop
_NAMED = 5  # lines, in the log
_OF_A_MACHINE = ("workdir", "charset", "init_from", "picture_font")  # paths, which may differ from one to the next
_SHOWN = 10  # lines in TensorBoard's picture


class Run:
    """A training under way, used as a context: it begins where the newest checkpoint is, and saves when the block ends well.

    Args:
      config: of the training.
      workdir: that was begun.
      charset: of the labels.
      data: to train on.
      held_out: to evaluate.
      devices: to train on.
      stop: asked every few steps; once it is true, the training is to end.

    Attributes:
      steps: which take them.
      batches: to train on, without end.
      stopped: whether it ended because it was asked to, here or in another worker.

    Raises:
      InputError: workers were given different things.
      IntegrityError: the doctor found why the training must fail, and `override` is not set; or the checkpoints are damaged.
    """

    def __init__(
        self,
        config: TrainConfig,
        workdir: Workdir,
        charset: Charset,
        data: Mixture,
        held_out: Split,
        devices: Devices,
        stop: Callable[[], bool],
    ):
        self._config, self._workdir, self._charset, self._devices, self._stop = config, workdir, charset, devices, stop
        self._epoch = data.count / config.batch_size  # in steps
        self.stopped = False
        _check_agreed(devices, {**vars(config), "train_data": data.fingerprint, "eval_data": held_out.fingerprint})
        keras.utils.set_random_seed(config.seed)
        with devices.strategy.scope():
            synchronized = config.sync_batch_norm and devices.replicas > 1
            self._model = networks.build(config.model, charset.num_classes, config.precision, synchronized)
            if config.init_from and not workdir.has_checkpoint:
                shared = warm_start.take_weights(self._model, charset, config.init_from)
                print(
                    f"first weights: those of {config.init_from}, for {shared} of {charset.blank} characters", file=sys.stderr
                )
            self._optimizer = optimizer.build(config, self._model, data.count)
        self.steps = Steps(
            FrameObjective(self._model, config.frame_loss) if config.frame_loss else Objective(self._model),
            self._optimizer,
            devices,
            config.batch_size,
            timed=not config.deterministic,
        )
        # What is evaluated, and kept as the best, is a network of its own, just as it will be exported.
        self._eval_model = networks.build(config.model, charset.num_classes)
        self._best = Best()
        self._parts = {
            "model": self._model,
            "randomness": keras_compat.randomness(self._model),
            "optimizer": self._optimizer.state,
            "steps": self.steps.state,
            "best": self._best.state,
        }
        if workdir.restore(self._parts):
            print(f"going on from step {self.steps.number}", file=sys.stderr)
        self._saved = self.steps.number
        if devices.differing({"step": self._saved}):
            raise InputError(
                f"--workdir={config.workdir}: this worker would go on from step {self._saved}, another one would not: it has "
                "to be one folder that all workers see"
            )

        pixels_per_frame = networks.network(config.model).pixels_per_frame
        self.batches = pipeline.training_batches(
            data,
            charset,
            config.batch_size,
            config.seed,
            self._saved,
            share=(devices.worker, devices.workers),
            augment=augment.augmenter(config.augment, config.augmenter == "tfa"),
            middles=config.frame_loss > 0.0,
        )
        if config.frame_loss and not any(bool(tf.reduce_any(batch["middles"] >= 0)) for batch in self.batches.take(1)):
            raise InputError(
                f"--frame_loss={config.frame_loss:g}: the lines of --train_data={config.train_data} do not tell where their "
                "characters are, as those do that render_lines --tfrecords draws"
            )
        self._held_out = pipeline.evaluation_batches(held_out, charset, config.batch_size)
        self._evaluator = evaluate.Evaluator(Recogniser(self._eval_model, charset))
        self._sync_eval_weights()
        case, self._levels = build_case(Objective(self._eval_model), charset, data, held_out, pixels_per_frame)
        self._looked_at = case.held_out[0]
        self._watch = self._examine(case)
        if self._saved >= config.steps:
            print(f"nothing to do: step {self._saved} is done, --steps={config.steps} asks for no more", file=sys.stderr)

    def __enter__(self) -> "Run":
        self._journal = Journal(self._workdir.path, self.steps.number, self._levels) if self._devices.is_chief else None
        self._bar = Progress(self._devices.log_prefix("training"), self._config.steps, "steps", self.steps.number).__enter__()
        self._clock = Clock(self._config.batch_size)
        self._watch.before_steps(self._optimizer.weights)
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                if self._clock.steps:  # asked to stop
                    self._log()
                if self.steps.number > self._saved:
                    self._save()
                if not self._usable():
                    raise IntegrityError(f"after step {self.steps.number} the network gives no numbers: {self._last_saved()}")
        finally:
            self._bar.__exit__(*error)
            if self._journal:
                self._journal.close()

    @property
    def remaining(self) -> int:
        """How many steps are still to be taken; 0 once the training is to end."""
        patience = self._config.patience
        no_better = patience > 0 and self._best.evals_since_best >= patience
        stops, ends = self._devices.total(float(self._stop()), float(no_better))  # one worker's wish is all workers'
        left = max(self._config.steps - self.steps.number, 0)
        self.stopped = stops > 0 and left > 0
        return 0 if stops or ends else left

    @property
    def steps_until_due(self) -> int:
        """How many steps may be taken before `after_steps` has to be told."""
        intervals = (self._config.log_every, self._config.eval_every, self._config.checkpoint_every)
        step = self.steps.number
        return min(INNER, self._config.steps - step, *(every - step % every for every in intervals))

    def after_steps(self, count: int, waited: float) -> None:
        """Is told of steps: logs, evaluates and saves where that is due.

        Args:
          count: of steps.
          waited: seconds spent waiting for input, or NaN where that is not known.

        Raises:
          IntegrityError: too many steps in a row have failed, or the weights are not finite.
        """
        step, sums, failures = self.steps.number, self.steps.totals(), self.steps.skipped()
        self._clock.add(count, waited)
        loss = sums.nats / sums.lines if sums.lines else math.nan
        rate = float(self._optimizer.rate)
        self._watch.after_steps(step, count, loss, rate, self._optimizer.weights)
        if failures.steps:
            self._report_skipped(failures)
        batch = step % self._epoch
        self._bar.update(
            step,
            f"epoch {int(step / self._epoch)}, batch {int(batch)}/{math.ceil(self._epoch)}, time {self._clock.a_step:.3f}s, "
            f"loss {loss:.3f}, learn_rate {rate:.3g}",
        )
        if self._due(self._config.log_every):
            self._log()
        evaluation = self._due(self._config.eval_every)
        checkpoint = self._due(self._config.checkpoint_every) or step > self._saved + self._config.checkpoint_every
        if (evaluation or checkpoint) and not self._usable():
            print(f"step {step}: the network gives no numbers, so nothing is evaluated or saved", file=sys.stderr)
        elif evaluation:
            self._evaluate()
        if checkpoint:
            self._save()
        self._clock.restart()

    def _write(self, figures: dict[str, Any]) -> None:
        if self._journal:
            self._journal.write(self.steps.number, figures)

    def _due(self, every: int) -> bool:
        return self.steps.number % every == 0 or self.steps.number == self._config.steps

    def _report_skipped(self, failures: SkippedSteps) -> None:
        """Names the lines of steps that failed.

        Raises:
          IntegrityError: there are too many in a row.
        """
        numbers = ", ".join(map(str, failures.steps))
        self._write({"left_out": failures.steps, "files": failures.files})
        print(
            f"step {numbers}: the loss or a gradient is not finite, nothing was changed; its lines are those of "
            f"{abbreviate(failures.files)} (all of them in metrics.jsonl)",
            file=sys.stderr,
        )
        if failures.row > self._config.bad_steps:
            raise IntegrityError(
                f"the loss or a gradient was not finite in {failures.row} steps in a row, up to step {failures.steps[-1]} "
                f"(--bad_steps={self._config.bad_steps}); {self._last_saved()}"
            )

    def _last_saved(self) -> str:
        newest = self._workdir.newest()
        return f"the last good checkpoint is of step {newest}" if newest else "there is no checkpoint yet"

    def _log(self) -> None:
        sums = self.steps.totals()
        figures = {
            "loss": sums.nats / sums.lines if sums.lines else None,
            "learning_rate": float(self._optimizer.rate),
            **self._clock.figures(),
            "gradient_norm": sums.norms / sums.taken if sums.taken else None,
        }
        if self._config.precision == "mixed_float16":
            figures |= {"loss_scale": float(tf.identity(self._optimizer.scale)), "overflows": sums.overflows}
        self._write(figures)
        self.steps.reset_totals()
        self._clock = Clock(self._config.batch_size)
        self._watch.before_steps(self._optimizer.weights)

    def _sync_eval_weights(self) -> None:
        """Gives the reader the weights, as an export will have them."""
        sources = self._optimizer.averaged + networks.statistics(self._model)
        for target, source in zip(
            networks.weights(self._eval_model) + networks.statistics(self._eval_model), sources, strict=True
        ):
            target.assign(frozen.rounded(source))

    def _evaluate(self) -> None:
        self._sync_eval_weights()
        results, loss = self._evaluator(self._held_out)
        measured = metrics.measures(results)
        figures = {"eval_loss": loss, "cer": measured["cer"], "line_accuracy": measured["line_accuracy"]}
        self._watch.after_evaluation(results, self._charset, self._looked_at)
        step = self.steps.number
        self._write(figures)
        told = f"CER {figures['cer']:.2%}, {figures['line_accuracy']:.1%} of lines whole"
        self._bar.update(step, told, always=True)
        if self._journal:
            self._journal.draw(step, "lines", self._picture(results[:_SHOWN]))
        improved = self._best.judge(figures)
        # The best there may be of later steps, of a run that was cut off.
        if improved and self._devices.is_chief and not rank(self._workdir.best()) < rank(figures):
            if not self._workdir.has_checkpoint:  # what is best must not be all there is
                self._save()
            self._workdir.keep_best(self._eval_model, step, figures)

    def _picture(self, results: Sequence[LineResult]) -> bytes:
        """Draws the first lines that are evaluated, what was read, and what it should be where it is not."""
        batch = self._looked_at
        rows = []
        for read, pixels, width in zip(results, batch["pixels"].numpy(), batch["width"].numpy(), strict=False):
            note = "" if read.text == read.truth else read.truth
            rows.append((Image.fromarray(pixels[:, :width]), read.text, note))
        return picture.draw(rows, self._config.picture_font)

    def _save(self) -> None:
        step = self.steps.number
        if not self._usable():
            return
        self._check_finite()
        if self._devices.is_chief:
            self._workdir.save(step, self._config.keep_checkpoints, self._parts)
        self._saved = step

    def _usable(self) -> bool:
        """Says whether the weights can be gone on with: a step may have failed for its lines alone."""
        if not self.steps.failing:
            return True
        batch = self._looked_at
        logits, _ = networks.logits(self._model, batch["pixels"], batch["width"], training=False)
        return bool(tf.reduce_all(tf.math.is_finite(logits)))

    def _check_finite(self) -> None:
        """Makes sure that what is to be saved can be gone on with.

        Raises:
          IntegrityError: a weight is not finite; its layer is named.
        """
        for weight in self._model.weights:
            if not bool(tf.reduce_all(tf.math.is_finite(tf.cast(weight, tf.float32)))):
                raise IntegrityError(f"the weights {keras_compat.path(weight)} are not finite after step {self.steps.number}")

    def _examine(self, case: Case) -> Watch:
        """Has the doctor look at everything before the first step.

        Returns:
          Who looks on from then.

        Raises:
          IntegrityError: it found why the training must fail, and `override` is not set.
        """
        levels = self._levels
        print(f"levels of the loss: {', '.join(f'{name} {level:.1f}' for name, level in levels.items())}", file=sys.stderr)
        assert case.objective is not None
        keep = self._workdir.write_report if self._devices.is_chief else lambda _: None
        watch = Watch(case.objective, levels, self._config.learning_rate, examine.examine(case), keep)
        definite = [str(finding) for finding in watch.findings if finding.definite]
        if definite and not self._config.override:
            raise IntegrityError(f"doctor: {' '.join(definite)} (--override trains all the same)")
        for finding in watch.findings:
            print(f"doctor: {finding}", file=sys.stderr)
        return watch


def _check_agreed(devices: Devices, told: dict[str, Any]) -> None:
    """Makes sure that all workers were given the same, wherever things lie on their machines.

    Raises:
      InputError: they were not; every field is named.
    """
    common = {name: value for name, value in told.items() if name not in _OF_A_MACHINE}
    if different := devices.differing(common):
        each = "; ".join(f"{name}: {common[name]} here" for name in different)
        raise InputError(f"TF_CONFIG: the workers were given different things: {each}")


def abbreviate(files: Sequence[str]) -> str:
    """Names the first few of some lines, and counts the others."""
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return ", ".join(files[:_NAMED]) + more
