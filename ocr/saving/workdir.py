"""The folder of a training: its configuration, alphabet, checkpoints and best weights."""

import contextlib
import dataclasses
import json
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
from ocr.data.dataset import Mixture, Split
from ocr.model import networks
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError


class Trained(NamedTuple):
    """What a training has come to: the network, and what it is told of."""

    model: keras.Model
    charset: Charset
    config: TrainConfig
    provenance: dict[str, str]
    metrics: dict[str, Any]


class Workdir:
    """Where a training keeps what it needs to go on, and what it is good for.

    A checkpoint is two files, `ckpt-STEP.data-00000-of-00001` and `ckpt-STEP.index`; it is one once its index is there. The
    best evaluation is one once `best/metrics.json` names its step.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._newest, self._best = path / "checkpoints", path / "best"

    @property
    def begun(self) -> bool:
        return (self.path / "config.json").exists()

    @property
    def has_checkpoint(self) -> bool:
        return bool(_steps(self._newest))

    @contextlib.contextmanager
    def begin(
        self, config: TrainConfig, charset: Charset, train: Mixture, held_out: Split, is_chief: bool = True
    ) -> Iterator[None]:
        """Makes the folder ready, or makes sure that it can be gone on with; no other process trains in it meanwhile.

        With `is_chief` false nothing is written, and nobody is kept out: of several workers one writes.

        Raises:
          InputError: it holds checkpoints of another configuration, alphabet or data, every difference named; or another
            process trains in it.
          IntegrityError: its checkpoints are gone.
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
                        f"{self._newest}: no checkpoint in it, though step {best['step']} was evaluated; put it back, or "
                        "name a new --workdir"
                    )
            elif not self.begun:
                raise IntegrityError(f"{self.path / 'config.json'}: gone, though there are checkpoints; put it back")
            else:
                saved, was_provenance = configs.read(self.path / "config.json")
                different = configs.differences(saved, config)
                for name, fingerprint in provenance.items():
                    was = was_provenance.get(name) or fingerprint
                    if was != fingerprint:
                        different.append(f"{name}: saved {was[:12]}, given {fingerprint[:12]}")
                if different:
                    raise InputError(f"--workdir={self.path}: was made with another configuration: {'; '.join(different)}")
                if config.init_from not in ("", saved.init_from):
                    print(f"--init_from={config.init_from}: not looked at, for this goes on with a training", file=sys.stderr)
                config = dataclasses.replace(config, init_from=saved.init_from)
            if is_chief:
                files.write_text(self.path / "charset.txt", charset.file_text())
                configs.write(self.path / "config.json", config, provenance)
            yield

    def newest(self) -> int:
        """Returns the step of the newest checkpoint, 0 where there is none."""
        return max(_steps(self._newest), default=0)

    def load(self) -> Trained:
        """Returns the network with its best weights, or the newest where none has been evaluated yet.

        Raises:
          InputError: there is no training here, no checkpoint yet, or one of another Keras.
          IntegrityError: the alphabet is not the one it was trained with, or the weights are damaged.
        """
        if not self.begun:
            raise InputError(f"{self.path}: no training in it (no config.json); ocr_train makes one")
        config, provenance = configs.read(self.path / "config.json")
        if (theirs := provenance.get("keras", keras_compat.MAJOR)) != keras_compat.MAJOR:
            raise InputError(
                f"{self.path}: trained with Keras {theirs}, whose checkpoints Keras {keras_compat.MAJOR} cannot read; "
                "run ocr_export where it was trained, and take that export"
            )
        charset = charsets.load_charset(self.path / "charset.txt", provenance["alphabet"])
        model = networks.build(config.model, charset.num_classes)
        if best := self.best():
            _restore(_prefix(self._best, best["step"]), {"model": model})
        elif not self.restore({"model": model}):
            raise InputError(f"{self.path}: no checkpoint in it yet; let ocr_train run until its first")
        return Trained(model, charset, config, provenance, best)

    def write_report(self, report: dict[str, Any]) -> None:
        """Writes what the doctor found."""
        files.write_json(self.path / "doctor.json", report)

    def restore(self, parts: dict[str, Any]) -> bool:
        """Gives the parts what the newest whole checkpoint holds of them; says whether there is one.

        Raises:
          IntegrityError: there are checkpoints, and all are damaged.
        """
        steps = _steps(self._newest)
        for step in steps:
            try:
                _restore(_prefix(self._newest, step), parts)
                return True
            except IntegrityError as error:
                if step == steps[-1]:
                    raise
                print(f"{error}; taking the one before", file=sys.stderr)
        return False

    def save(self, step: int, keep: int, parts: dict[str, Any]) -> None:
        """Saves a checkpoint and drops the oldest, and any of a later step: it was damaged, else it had been restored."""
        _save(self._newest, step, parts)
        there = _steps(self._newest)
        upto = [one for one in there if one <= step]
        for old in {*there} - {*upto[:keep]}:
            _drop(self._newest, old)

    def best(self) -> dict[str, Any]:
        """Returns the figures of the best evaluation so far, `step`, `cer` and others, or none.

        Raises:
          IntegrityError: they are damaged.
        """
        path = self._best / "metrics.json"
        if not path.exists():
            return {}
        figures = files.read_json(path)
        # There is no eval_loss where no line can be aligned.
        numbers: list[Any] = (
            [v for k, v in figures.items() if (k, v) != ("eval_loss", None)] if isinstance(figures, dict) else [None]
        )
        if not all(type(v) in (int, float) and math.isfinite(v) for v in numbers) or not {"step", "cer"} <= figures.keys():
            raise IntegrityError(f"{path}: damaged (no step, or figures that are none)")
        if type(figures["step"]) is not int or figures["step"] < 0:
            raise IntegrityError(f"{path}: damaged (step {figures['step']})")
        return figures

    def keep_best(self, model: keras.Model, step: int, figures: dict[str, Any]) -> None:
        """Saves the weights and figures of the best evaluation in place of those there."""
        _save(self._best, step, {"model": model})
        files.write_json(self._best / "metrics.json", {"step": step, **figures})
        for old in _steps(self._best):
            if old != step:
                _drop(self._best, old)


def _prefix(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f"ckpt-{step}"


def _steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps of a folder's checkpoints, the newest first."""
    names = (path.stem.removeprefix("ckpt-") for path in folder.glob("ckpt-*.index"))
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _save(folder: pathlib.Path, step: int, parts: dict[str, Any]) -> None:
    """Writes a checkpoint aside and moves it in, its index last."""
    with files.temporary_directory(folder / ".partial") as staging:
        tf.train.Checkpoint(**parts).write(str(_prefix(staging, step)))
        for path in sorted(staging.iterdir()):  # "data" before "index"
            files.sync_file(path)
            path.rename(folder / path.name)
    files.sync_folder(folder)


def _drop(folder: pathlib.Path, step: int) -> None:
    """Removes a checkpoint, its index first."""
    for path in sorted(folder.glob(f"ckpt-{step}.*"), reverse=True):
        path.unlink()


def _restore(prefix: pathlib.Path, parts: dict[str, Any]) -> None:
    """Restores what a checkpoint holds of the parts.

    Raises:
      IntegrityError: it is damaged, or lacks some of them.
    """
    try:
        tf.train.Checkpoint(**parts).read(str(prefix)).expect_partial().assert_existing_objects_matched()
    except (OSError, ValueError, IndexError, AssertionError, tf.errors.OpError) as error:
        cause = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", str(error).splitlines()[0])  # the insides of TensorFlow
        raise IntegrityError(f"{prefix}: damaged checkpoint ({cause})") from error


class Best:
    """What the evaluations up to now have come to."""

    def __init__(self) -> None:
        kinds = {"cer": math.inf, "eval_loss": math.inf, "poorer": 0.0}
        self.state = {name: tf.Variable(tf.constant(value, tf.float64), trainable=False) for name, value in kinds.items()}

    @property
    def evals_since_best(self) -> int:
        """How many evaluations there were since the best one."""
        return int(self.state["poorer"])

    def judge(self, figures: dict[str, Any]) -> bool:
        """Says whether an evaluation is better than all before."""
        new = rank(figures)
        if new < (float(self.state["cer"]), float(self.state["eval_loss"])):
            for name, value in zip(self.state, (*new, 0.0), strict=True):
                self.state[name].assign(value)
            return True
        self.state["poorer"].assign_add(1.0)
        return False


def rank(figures: dict[str, Any]) -> tuple[float, float]:
    """Returns what evaluations are compared by, the least the best: CER; the loss, where there is one, between equals."""
    cer, loss = (figures.get(name) for name in ("cer", "eval_loss"))
    return math.inf if cer is None else cer, math.inf if loss is None else loss


def losses(workdir: pathlib.Path) -> dict[int, float]:
    """Returns the training losses by step.

    Raises:
      IntegrityError: a line is none of ours.
    """
    path = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics_until(sys.maxsize, path)] if path.exists() else []
    return {line["step"]: line["loss"] for line in lines if line.get("loss") is not None}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} in it")


def metrics_until(step: int, path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a journal up to a step; one that was cut off as it was written is left out.

    Raises:
      IntegrityError: a line is none of ours.
    """
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.endswith("\n") and json.loads(line, parse_constant=_refuse)["step"] <= step:
                    yield line
            except (ValueError, TypeError, KeyError) as error:
                raise IntegrityError(f"{path}: line {number}: damaged ({error})") from error
