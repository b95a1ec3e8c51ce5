"""The two trainers: a loop of our own, compiled whole, and Keras's `fit`; both train the same, step by step."""

import contextlib
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from ocr import addons
from ocr import charset as charsets
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.data import dataset, mixture, verify
from ocr.data.mixture import Mixture
from ocr.evaluation import picture
from ocr.model import networks
from ocr.saving.workdir import Workdir
from ocr.training import devices
from ocr.training.devices import Devices
from ocr.training.run import Run, abbreviate
from ocr.training.steps import Steps
from tfrecords.errors import InputError, IntegrityError


def train(config: TrainConfig, stop: Callable[[], bool] = lambda: False) -> dict:
    """Trains, or goes on training where the workdir holds a checkpoint.

    Args:
      config: what to train, on what.
      stop: asked every few steps; once it is true, the training saves and returns.

    Returns:
      `cer`, `line_accuracy` and `best_step` of the best evaluation (None where there was none), `steps`, `seconds`; and
      `interrupted` if it was stopped, here or in another worker.

    Raises:
      InputError: the data, the alphabet or the workdir cannot be used.
      IntegrityError: a shard is damaged, the loss is not finite, or another worker has left.
    """
    begun = time.monotonic()
    picture.open_font(config.picture_font)
    _check_addons(config)
    found = _devices(config)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    pixels_per_frame = networks.network(config.model).pixels_per_frame
    data = mixture.mix(config.train_data, pixels_per_frame)
    held_out = dataset.find(config.eval_data, "eval")
    charset = _charset(config, data)
    for lines in (*data.parts, held_out):
        lines.check_writable_with(charset)
    _report_unfit(data.skipped, pixels_per_frame)

    workdir = Workdir(pathlib.Path(config.workdir))
    with (
        workdir.begin(config, charset, data, held_out, found.is_chief),
        verify.report_damage(*data.parts, held_out),
        _naming_loss_of_workers(found),
    ):
        run = Run(config, workdir, charset, data, held_out, found, stop)
        with run:
            TRAINERS[config.trainer](run)
    best = workdir.best()
    interrupted = {"interrupted": True} if run.stopped else {}
    return {
        "cer": best.get("cer"),
        "line_accuracy": best.get("line_accuracy"),
        "best_step": best.get("step"),
        "steps": run.steps.number,
        "seconds": round(time.monotonic() - begun, 1),
        **interrupted,
    }


def _check_addons(config: TrainConfig) -> None:
    """Makes sure that TensorFlow Addons can be used where a configuration asks for it.

    Raises:
      InputError: it cannot.
    """
    if config.optimizer.startswith(addons.PREFIX):
        name, _ = addons.parse_optimizer(config.optimizer)
        addons.check_usable(f"--optimizer={config.optimizer}", addons.OPTIMIZERS[name][0])
    if config.augmenter == "tfa":
        addons.check_usable("--augmenter=tfa", "ours, which cuts no holes")


def _devices(config: TrainConfig) -> Devices:
    """Takes hold of the devices that a configuration asks for.

    Raises:
      InputError: there are no such, or they cannot share a batch.
    """
    found = devices.find(config.strategy, config.replicas)
    if config.batch_size < found.replicas:
        raise InputError(f"--batch_size={config.batch_size}: must be at least 1 for each of {found.replicas} replicas")
    if config.trainer == "keras" and found.replicas > 1:
        raise InputError(f"--trainer=keras: takes one device, not {found.replicas}; --trainer=loop takes them")
    if config.optimizer.startswith(addons.PREFIX) and found.replicas > 1:
        raise InputError(f"--optimizer={config.optimizer}: takes one device, not {found.replicas}")
    return found


@contextlib.contextmanager
def _naming_loss_of_workers(devices: Devices) -> Iterator[None]:
    """Turns TensorFlow's word that the others cannot be reached into ours.

    Raises:
      IntegrityError: they cannot.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if devices.workers == 1:
            raise
        raise IntegrityError(
            f"worker {devices.worker} of {devices.workers} has lost another one; start all of them again, and they go on from "
            "the newest checkpoint"
        ) from error


def _charset(config: TrainConfig, data: Mixture) -> Charset:
    """Returns the alphabet that was asked for, or the one that the records were packed with.

    Raises:
      InputError: the sets of lines were packed with different ones.
    """
    if config.charset:
        return charsets.charset_by_name(config.charset)
    if len({lines.manifest.charset for lines in data.parts}) > 1:
        raise InputError(f"--train_data={config.train_data}: packed with different alphabets; choose one with --charset")
    lines = data.parts[0]
    return charsets.load_charset(lines.folder / "charset.txt", lines.manifest.charset)


def _report_unfit(names: Sequence[str], pixels_per_frame: int) -> None:
    """Names the lines that training leaves out."""
    if names:
        print(
            f"{len(names)} lines are too long for frames of {pixels_per_frame} pixels and left out: {abbreviate(names)}",
            file=sys.stderr,
        )


def _loop(run: Run) -> None:
    """Takes a few steps at a time inside one `tf.function`."""
    iterator = iter(run.batches)
    while run.remaining:
        count = run.steps_until_due
        run.steps.run(iterator, tf.constant(count, tf.int64))
        run.after_steps(count, run.steps.waited())


def _fit(run: Run) -> None:
    """Lets Keras's `fit` take the same steps."""
    if not (steps := run.remaining):
        return
    fitted = _StepModel(run.steps)
    fitted.compile(jit_compile=False)
    fitted.fit(run.batches, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[StepCallback(run)])


class _StepModel(keras.Model):
    """Steps as `fit` wants them."""

    def __init__(self, steps: Steps):
        super().__init__(name="fitted")
        self._steps = steps
        self.built = True

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"step": self._steps.step(batch)}


class StepCallback(keras.callbacks.Callback):
    """Tells a run of the steps that `fit` takes."""

    def __init__(self, run: Run):
        super().__init__()
        self._run, self._count, self._steps_until_due = run, 0, run.steps_until_due

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._count += 1
        if self._count == self._steps_until_due:
            self._run.after_steps(self._count, waited=math.nan)
            self._count, self._steps_until_due = 0, self._run.steps_until_due
            self.model.stop_training = not self._run.remaining


TRAINERS: dict[str, Callable[[Run], None]] = {"loop": _loop, "keras": _fit}
