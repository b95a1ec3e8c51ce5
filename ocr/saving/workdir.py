"""The folder of a training: its configuration, alphabet, checkpoints, best weights, and what its metrics say."""

import contextlib
import dataclasses
import json
import logging
import math
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ocr import charset as charsets
from ocr import config as configs
from ocr import keras_compat
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.data.dataset import Split
from ocr.data.mixture import Mixture
from ocr.model import networks
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

_LOG = logging.getLogger(__name__)


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      model: network with the best weights.
      charset: its alphabet.
      config: of the training.
      provenance: fingerprints of the alphabet and the data, and the version of Keras.
      metrics: of the best evaluation; empty if there was none.
    """

    model: keras.Model
    charset: Charset
    config: TrainConfig
    provenance: dict[str, str]
    metrics: dict[str, Any]


class Workdir:
    """The folder of a training: what it needs to resume, and its results.

    A checkpoint is two files, `ckpt-STEP.data-00000-of-00001` and `ckpt-STEP.index`; it exists once its index does. The best
    weights are those of the step that `best/metrics.json` names.

    Args:
      path: of the folder, which need not exist.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._newest, self._best = path / "checkpoints", path / "best"

    @property
    def has_training(self) -> bool:
        """Whether there is a training in the folder."""
        return (self.path / "config.json").exists()

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return bool(_steps(self._newest))

    @contextlib.contextmanager
    def begin(
        self, config: TrainConfig, charset: Charset, train: Mixture, held_out: Split, is_chief: bool = True
    ) -> Iterator[None]:
        """Prepares the folder for a new training, or checks that this one can resume; locks it meanwhile.

        Args:
          config: of the training.
          charset: its alphabet.
          train: data to train on.
          held_out: data to evaluate.
          is_chief: whether this worker writes for all; the others write nothing and take no lock.

        Raises:
          InputError: the folder holds checkpoints of another configuration, alphabet or data (every difference is named); or
            another process trains in it.
          IntegrityError: its checkpoints or its configuration are missing.
        """
        fingerprints = (charset.fingerprint, train.fingerprint, held_out.fingerprint)
        provenance = dict(zip(configs.FINGERPRINTS, fingerprints, strict=True)) | {"keras": keras_compat.MAJOR}
        if is_chief:
            for folder in (self.path, self._newest, self._best):
                files.make_folder(folder)
        with files.directory_lock(self.path) if is_chief else contextlib.nullcontext():
            if not self.has_checkpoint:
                if best := self.best():
                    raise IntegrityError(
                        f"{self._newest}: no checkpoint in it, though step {best['step']} was evaluated; restore it, or "
                        "choose a new --workdir"
                    )
            elif not self.has_training:
                raise IntegrityError(f"{self.path / 'config.json'}: missing, though there are checkpoints; restore it")
            else:
                saved, saved_provenance = configs.read(self.path / "config.json")
                different = configs.differences(saved, config)
                for name, given in provenance.items():
                    before = saved_provenance.get(name) or given
                    if before != given:
                        different.append(f"{name}: saved {before[:12]}, given {given[:12]}")
                if different:
                    raise InputError(f"--workdir={self.path}: has another configuration: {'; '.join(different)}")
                if config.init_from not in ("", saved.init_from):
                    _LOG.warning("--init_from=%s: ignored, since the training resumes from a checkpoint", config.init_from)
                config = dataclasses.replace(config, init_from=saved.init_from)
            if is_chief:
                files.write_text(self.path / "charset.txt", charset.file_text())
                configs.write(self.path / "config.json", config, provenance)
            yield

    def newest(self) -> int:
        """Returns the step of the newest checkpoint, 0 if there is none."""
        return max(_steps(self._newest), default=0)

    def load(self) -> Trained:
        """Loads the network with its best weights, or the newest weights if none have been evaluated yet.

        Raises:
          InputError: there is no training here, it has no checkpoint yet, or one of another Keras.
          IntegrityError: the alphabet is not the one it was trained with, or the weights are damaged.
        """
        if not self.has_training:
            raise InputError(f"{self.path}: no training in it (no config.json); ocr_train creates one")
        config, provenance = configs.read(self.path / "config.json")
        if (keras_major := provenance.get("keras", keras_compat.MAJOR)) != keras_compat.MAJOR:
            raise InputError(
                f"{self.path}: trained with Keras {keras_major}, whose checkpoints Keras {keras_compat.MAJOR} cannot read; "
                "run ocr_export where it was trained, and use that export"
            )
        charset = charsets.load_charset(self.path / "charset.txt", provenance["alphabet"])
        model = networks.build(config.model, charset.num_classes)
        if best := self.best():
            _restore(_prefix(self._best, best["step"]), {"model": model})
        elif not self.restore({"model": model}):
            raise InputError(f"{self.path}: no checkpoint yet; let ocr_train run until its first one")
        return Trained(model, charset, config, provenance, best)

    def write_report(self, report: dict[str, Any]) -> None:
        """Writes the report of the doctor, `doctor.json`."""
        files.write_json(self.path / "doctor.json", report)

    def restore(self, parts: dict[str, Any]) -> bool:
        """Restores the newest checkpoint that is not damaged.

        Args:
          parts: what `save` was given, or some of it.

        Returns:
          Whether there is a checkpoint.

        Raises:
          IntegrityError: there are checkpoints, but all are damaged.
        """
        steps = _steps(self._newest)
        for step in steps:
            try:
                _restore(_prefix(self._newest, step), parts)
                return True
            except IntegrityError as error:
                if step == steps[-1]:
                    raise
                _LOG.warning("%s; using the one before", error)
        return False

    def save(self, step: int, keep: int, parts: dict[str, Any]) -> None:
        """Saves a checkpoint, and removes old ones.

        Those of later steps are removed too: they are damaged, since the training would have resumed from them.

        Args:
          step: number of the step.
          keep: how many checkpoints to keep.
          parts: trackable objects by name.
        """
        _save(self._newest, step, parts)
        saved = _steps(self._newest)
        kept = [one for one in saved if one <= step][:keep]
        for other in {*saved} - {*kept}:
            _remove(self._newest, other)

    def best(self) -> dict[str, Any]:
        """Returns the metrics of the best evaluation: `step`, `cer` and others; empty if there was none.

        Raises:
          IntegrityError: the file is damaged.
        """
        path = self._best / "metrics.json"
        if not path.exists():
            return {}
        metrics = files.read_json(path)
        # eval_loss is None if no line can be aligned.
        numbers: list[Any] = (
            [v for k, v in metrics.items() if (k, v) != ("eval_loss", None)] if isinstance(metrics, dict) else [None]
        )
        if not all(type(v) in (int, float) and math.isfinite(v) for v in numbers) or not {"step", "cer"} <= metrics.keys():
            raise IntegrityError(f"{path}: damaged (no step, or a value that is not a number)")
        if type(metrics["step"]) is not int or metrics["step"] < 0:
            raise IntegrityError(f"{path}: damaged (step {metrics['step']})")
        return metrics

    def keep_best(self, model: keras.Model, step: int, metrics: dict[str, Any]) -> None:
        """Saves the weights and metrics of the best evaluation, unless better ones are there.

        A run that was killed may have left those of a later step.
        """
        if rank(self.best()) < rank(metrics):
            return
        _save(self._best, step, {"model": model})
        files.write_json(self._best / "metrics.json", {"step": step, **metrics})
        for other in _steps(self._best):
            if other != step:
                _remove(self._best, other)


def _prefix(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f"ckpt-{step}"


def _steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps of a folder's checkpoints, the newest first."""
    names = (path.stem.removeprefix("ckpt-") for path in folder.glob("ckpt-*.index"))
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _save(folder: pathlib.Path, step: int, parts: dict[str, Any]) -> None:
    """Writes a checkpoint to a temporary folder and moves it here, its index last."""
    with files.temporary_directory(folder / ".partial") as staging:
        tf.train.Checkpoint(**parts).write(str(_prefix(staging, step)))
        for path in sorted(staging.iterdir()):  # "data" before "index"
            files.sync_file(path)
            path.rename(folder / path.name)
    files.sync_folder(folder)


def _remove(folder: pathlib.Path, step: int) -> None:
    """Removes a checkpoint, its index first."""
    for path in sorted(folder.glob(f"ckpt-{step}.*"), reverse=True):
        path.unlink()


def _restore(prefix: pathlib.Path, parts: dict[str, Any]) -> None:
    """Restores parts from a checkpoint.

    Raises:
      IntegrityError: it is damaged, or lacks some of the parts.
    """
    try:
        with files.no_wildcards(prefix.parent) as folder:
            status = tf.train.Checkpoint(**parts).read(str(folder / prefix.name))
            status.expect_partial().assert_existing_objects_matched()
    except (OSError, ValueError, IndexError, AssertionError, tf.errors.OpError) as error:
        cause = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", str(error).splitlines()[0])  # internal names of TensorFlow
        raise IntegrityError(f"{prefix}: damaged checkpoint ({cause})") from error


class Best:
    """The best evaluation so far, as a checkpoint stores it.

    Attributes:
      state: what a checkpoint holds.
    """

    def __init__(self) -> None:
        initial = {"cer": math.inf, "eval_loss": math.inf, "poorer": 0.0}
        self.state = {name: tf.Variable(tf.constant(value, tf.float64), trainable=False) for name, value in initial.items()}

    @property
    def evals_since_best(self) -> int:
        """Number of evaluations since the best one."""
        return int(self.state["poorer"])

    def update(self, metrics: dict[str, Any]) -> bool:
        """Takes an evaluation into account; returns whether it is better than all before."""
        new = rank(metrics)
        if new < (float(self.state["cer"]), float(self.state["eval_loss"])):
            for name, value in zip(self.state, (*new, 0.0), strict=True):
                self.state[name].assign(value)
            return True
        self.state["poorer"].assign_add(1.0)
        return False


def rank(metrics: dict[str, Any]) -> tuple[float, float]:
    """Returns what evaluations are compared by, lower is better: CER, then the loss; infinite where unknown."""
    cer, loss = (metrics.get(name) for name in ("cer", "eval_loss"))
    return math.inf if cer is None else cer, math.inf if loss is None else loss


def losses(workdir: pathlib.Path) -> dict[int, float]:
    """Returns the training losses by step.

    Raises:
      IntegrityError: a line of `metrics.jsonl` is damaged.
    """
    path = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics_until(sys.maxsize, path)] if path.exists() else []
    return {line["step"]: line["loss"] for line in lines if line.get("loss") is not None}


def metrics_until(step: int, path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a `metrics.jsonl` up to a step, without one that was cut off while it was written.

    Raises:
      IntegrityError: a line is damaged.
    """
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.endswith("\n") and json.loads(line, parse_constant=_reject)["step"] <= step:
                    yield line
            except (ValueError, TypeError, KeyError) as error:
                raise IntegrityError(f"{path}: line {number}: damaged ({error})") from error


def _reject(constant: str) -> None:
    raise ValueError(f"{constant} in it")
