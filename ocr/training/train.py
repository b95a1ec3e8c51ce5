"""Trains a recogniser: sets up its parts, restores a checkpoint if there is one, and runs the loop."""

import contextlib
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from ocr import addons
from ocr import charset as charsets
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.data import dataset, mixture, pipeline, verify
from ocr.data.mixture import Mixture
from ocr.doctor.case import Case, build_case
from ocr.doctor.examine import examine
from ocr.doctor.watch import Watch
from ocr.evaluation import picture
from ocr.images import augment
from ocr.model import networks
from ocr.model.frame_objective import FrameObjective
from ocr.model.keep_objective import KeepObjective
from ocr.model.objective import Objective
from ocr.saving import metrics_file, warm_start
from ocr.saving.best import Best
from ocr.saving.warm_start import Origin
from ocr.saving.workdir import Workdir
from ocr.training import advice, devices, new_characters, optimizer, trainers
from ocr.training.devices import Devices
from ocr.training.eval_model import EvalModel
from ocr.training.journal import Journal
from ocr.training.run import Run, abbreviate
from ocr.training.state import State
from ocr.training.steps import Steps
from tfrecords.errors import InputError, IntegrityError

_LOG = logging.getLogger(__name__)

_LOCAL_PATHS = ("workdir", "charset", "init_from", "picture_font")  # may differ between workers


def train(config: TrainConfig, stop: Callable[[], bool] = lambda: False) -> dict:
    """Trains, or resumes a training if the workdir has a checkpoint.

    Args:
      config: of the training.
      stop: called every few steps; once it returns true, the training saves and returns.

    Returns:
      `cer`, `line_accuracy` and `best_step` of the best evaluation (None if there was none), `steps`, `seconds`; and
      `interrupted` if it was stopped, here or in another worker.

    Raises:
      InputError: the data, the alphabet or the workdir cannot be used, or workers were given different flags.
      IntegrityError: a shard or all checkpoints are damaged, the loss is not finite, the doctor has a definite finding and
        `override` is not set, or another worker was lost.
    """
    began = time.monotonic()
    picture.open_font(config.picture_font)  # a font that cannot be used is reported before anything is done
    _check_addons(config)
    used = _find_devices(config)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()

    frame = networks.network(config.model).frame
    data = mixture.mix(config.train_data, frame)
    held_out = dataset.find(config.eval_data, "eval")
    charset = _charset(config, data)
    for split in (*data.parts, held_out):
        split.check_writable_with(charset)
    _report_unfit(data.skipped, frame.width)

    workdir = Workdir(pathlib.Path(config.workdir))
    is_new = not workdir.has_checkpoint
    origin = warm_start.load(config.init_from, config.model) if config.init_from and (is_new or config.keep) else None
    with (
        workdir.begin(config, charset, data, held_out, used.is_chief, origin.fingerprint if origin else ""),
        verify.report_damage(*data.parts, held_out),
        _naming_lost_worker(used),
    ):
        _check_agreed(used, {**vars(config), "train_data": data.fingerprint, "eval_data": held_out.fingerprint})
        teacher = warm_start.teacher(charset, origin) if origin and config.keep else None
        model = _build_network(config, charset, used, origin if is_new else None)
        # Several workers would have to learn the same from all lines of each batch.
        if is_new and origin and teacher and used.workers == 1 and (new := warm_start.new_classes(charset, origin)):
            new_characters.learn(Objective(model), new, _training_batches(config, data, charset, used, 0), stop)
        state = _build_state(config, model, data.count, used, teacher)
        evaluation = EvalModel(
            networks.build(config.model, charset.num_classes),
            charset,
            pipeline.evaluation_batches(held_out, charset, config.batch_size, frame.height),
        )
        _restore(state, workdir, used)
        batches = _training_batches(config, data, charset, used, state.steps.number)

        evaluation.sync(state)
        case, levels = build_case(Objective(evaluation.model), charset, data, held_out, frame)
        watch = _examine(case, levels, config, workdir, used)
        if teacher:
            watch.remember(evaluation.read_with(teacher))
        if state.steps.number >= config.steps:
            _LOG.info("nothing to do: step %d is done, --steps=%d", state.steps.number, config.steps)

        with contextlib.ExitStack() as stack:
            journal = stack.enter_context(Journal(workdir.path, state.steps.number, levels)) if used.is_chief else None
            run = stack.enter_context(
                Run(
                    config,
                    workdir,
                    charset,
                    used,
                    state,
                    batches,
                    data.count / config.batch_size,
                    evaluation,
                    case.held_out[0],
                    watch,
                    journal,
                    stop,
                )
            )
            take_steps = trainers.fit if config.trainer == "keras" else trainers.loop
            take_steps(run)

    if used.is_chief and not run.stopped:
        metrics = (metrics_file.metric(workdir.path, name) for name in ("loss", "eval_loss"))
        if sentence := advice.advise(*metrics):
            _LOG.info("advice: %s", sentence)
    best = workdir.best()
    return {
        "cer": best.get("cer"),
        "line_accuracy": best.get("line_accuracy"),
        "best_step": best.get("step"),
        "steps": state.steps.number,
        "seconds": round(time.monotonic() - began, 1),
        **({"interrupted": True} if run.stopped else {}),
    }


def _check_addons(config: TrainConfig) -> None:
    """Checks that TensorFlow Addons can be used if the configuration needs it.

    Raises:
      InputError: it cannot.
    """
    if config.optimizer.startswith(addons.PREFIX):
        name, _ = addons.parse_optimizer(config.optimizer)
        addons.check_usable(f"--optimizer={config.optimizer}", addons.OPTIMIZERS[name][0])
    if config.augmenter == "tfa":
        addons.check_usable("--augmenter=tfa", "ours, which cuts no holes,")


def _find_devices(config: TrainConfig) -> Devices:
    """Finds the devices to train on.

    Raises:
      InputError: there are fewer, or they cannot share a batch, the trainer or the optimizer.
    """
    used = devices.find(config.strategy, config.replicas)
    if config.batch_size < used.replicas:
        raise InputError(f"--batch_size={config.batch_size}: must be at least 1 for each of {used.replicas} replicas")
    if config.trainer == "keras" and used.replicas > 1:
        raise InputError(f"--trainer=keras: uses one device, not {used.replicas}; --trainer=loop uses all")
    if config.optimizer.startswith(addons.PREFIX) and used.replicas > 1:
        raise InputError(f"--optimizer={config.optimizer}: uses one device, not {used.replicas}")
    return used


def _charset(config: TrainConfig, data: Mixture) -> Charset:
    """Returns the alphabet of the configuration, or else the one that the records were packed with.

    Raises:
      InputError: the records were packed with different alphabets.
    """
    if config.charset:
        return charsets.charset_by_name(config.charset)
    if len({split.manifest.charset for split in data.parts}) > 1:
        raise InputError(f"--train_data={config.train_data}: packed with different alphabets; choose one with --charset")
    split = data.parts[0]
    return charsets.load_charset(split.folder / "charset.txt", split.manifest.charset)


def _report_unfit(names: Sequence[str], pixels_per_frame: int) -> None:
    if names:
        _LOG.warning(
            "%d lines are too long for frames of %d pixels and skipped: %s", len(names), pixels_per_frame, abbreviate(names)
        )


@contextlib.contextmanager
def _naming_lost_worker(used: Devices) -> Iterator[None]:
    """Says what to do when another worker was lost.

    Raises:
      IntegrityError: it was.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if used.workers == 1:
            raise
        raise IntegrityError(
            f"worker {used.worker} of {used.workers} has lost another worker; restart all of them, and they resume from the "
            "newest checkpoint"
        ) from error


def _check_agreed(used: Devices, given: Mapping[str, Any]) -> None:
    """Checks that all workers were given the same flags and data, wherever these are on their machines.

    Raises:
      InputError: they were not; every field is named.
    """
    common = {name: value for name, value in given.items() if name not in _LOCAL_PATHS}
    if different := used.differing(common):
        each = "; ".join(f"{name}: {common[name]} here" for name in different)
        raise InputError(f"TF_CONFIG: the workers were given different flags: {each}")


def _build_network(config: TrainConfig, charset: Charset, used: Devices, origin: Origin | None) -> keras.Model:
    """Builds the network with its initial values, those of `origin` if given."""
    keras.utils.set_random_seed(config.seed)
    with used.strategy.scope():
        synchronized = config.sync_batch_norm and used.replicas > 1
        model = networks.build(config.model, charset.num_classes, config.precision, synchronized)
        if origin:
            shared = warm_start.take_weights(model, charset, origin)
            _LOG.info("initial weights: from %s, for %d of %d characters", config.init_from, shared, charset.blank)
    return model


def _build_state(config: TrainConfig, model: keras.Model, lines: int, used: Devices, teacher: keras.Model | None) -> State:
    """Builds optimizer and steps of a network with its initial values.

    Args:
      config: of the training.
      model: the network.
      lines: size of an epoch.
      used: devices to train on.
      teacher: network whose outputs are to be kept, if any.
    """
    with used.strategy.scope():
        its_optimizer = optimizer.build(config, model, lines)
    objective = Objective(model)
    if config.frame_loss:
        objective = FrameObjective(model, config.frame_loss)
    elif teacher:
        objective = KeepObjective(model, teacher, config.keep)
    steps = Steps(objective, its_optimizer, used, config.batch_size, timed=not config.deterministic)
    return State(model, its_optimizer, steps, Best())


def _restore(state: State, workdir: Workdir, used: Devices) -> None:
    """Restores the newest checkpoint, if there is one.

    Raises:
      InputError: workers see different checkpoints.
      IntegrityError: all checkpoints are damaged.
    """
    if workdir.restore(state.parts()):
        _LOG.info("resuming from step %d", state.steps.number)
    if used.differing({"step": state.steps.number}):
        raise InputError(
            f"--workdir={workdir.path}: this worker would resume from step {state.steps.number}, another one would not: it "
            "must be one folder that all workers see"
        )


def _training_batches(config: TrainConfig, data: Mixture, charset: Charset, used: Devices, step: int) -> tf.data.Dataset:
    """Returns the batches of a training from a step on.

    Raises:
      InputError: a frame loss needs the characters' middles, which the records do not have.
    """
    batches = pipeline.training_batches(
        data,
        charset,
        config.batch_size,
        config.seed,
        step,
        share=(used.worker, used.workers),
        augment=augment.augmenter(config.augment, config.augmenter == "tfa", narrow=not config.frame_loss),
        middles=config.frame_loss > 0.0,
    )
    if config.frame_loss and not any(bool(tf.reduce_any(batch["middles"] >= 0)) for batch in batches.take(1)):
        raise InputError(
            f"--frame_loss={config.frame_loss:g}: the records of --train_data={config.train_data} lack the positions of "
            "characters, which render_lines --tfrecords writes"
        )
    return batches


def _examine(case: Case, levels: Mapping[str, float], config: TrainConfig, workdir: Workdir, used: Devices) -> Watch:
    """Lets the doctor examine everything before the first step.

    Returns:
      The doctor's watch over the steps.

    Raises:
      IntegrityError: there is a definite finding, and `override` is not set.
    """
    _LOG.info("levels of the loss: %s", ", ".join(f"{name} {level:.1f}" for name, level in levels.items()))
    assert case.objective is not None
    write_report = workdir.write_report if used.is_chief else lambda _: None
    watch = Watch(case.objective, levels, config.learning_rate, examine(case), write_report)
    definite = [str(finding) for finding in watch.findings if finding.definite]
    if definite and not config.override:
        raise IntegrityError(f"doctor: {' '.join(definite)} (--override trains all the same)")
    for finding in watch.findings:
        _LOG.warning("doctor: %s", finding)
    return watch
