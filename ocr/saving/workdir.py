"""The folder of a training: its configuration, alphabet, checkpoints and best weights."""

import contextlib
import dataclasses
import logging
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from ocr import charset as charsets
from ocr import config as configs
from ocr import keras_compat
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.data.dataset import Split
from ocr.data.mixture import Mixture
from ocr.model import networks
from ocr.saving import checkpoint
from ocr.saving.best import rank
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

_LOG = logging.getLogger(__name__)


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      model: network with the best weights.
      charset: its alphabet.
      config: of the training.
      provenance: fingerprints of the alphabet, the data and the weights that it started from, and the version of Keras.
      metrics: of the best evaluation; empty if there was none.
    """

    model: keras.Model
    charset: Charset
    config: TrainConfig
    provenance: dict[str, str]
    metrics: dict[str, Any]


class Workdir:
    """The folder of a training: what it needs to resume, and its results.

    The best weights are those of the step that `best/metrics.json` names.

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
        return bool(checkpoint.steps(self._newest))

    @contextlib.contextmanager
    def begin(
        self,
        config: TrainConfig,
        charset: Charset,
        train: Mixture,
        held_out: Split,
        is_chief: bool = True,
        origin: str = "",
    ) -> Iterator[None]:
        """Prepares the folder for a new training, or checks that this one can resume; locks it meanwhile.

        Args:
          config: of the training.
          charset: its alphabet.
          train: data to train on.
          held_out: data to evaluate.
          is_chief: whether this worker writes for all; the others write nothing and take no lock.
          origin: fingerprint of the weights that the training starts from, empty if they are random or not loaded again.

        Raises:
          InputError: the folder holds checkpoints of another configuration, alphabet or data (every difference is named); or
            another process trains in it.
          IntegrityError: its checkpoints or its configuration are missing.
        """
        fingerprints = (charset.fingerprint, train.fingerprint, held_out.fingerprint)
        provenance = dict(zip(configs.FINGERPRINTS, fingerprints, strict=True)) | {"keras": keras_compat.MAJOR}
        provenance |= {"init_from": origin} if origin else {}
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
                provenance = saved_provenance | provenance
            if is_chief:
                files.write_text(self.path / "charset.txt", charset.file_text())
                configs.write(self.path / "config.json", config, provenance)
            yield

    def newest(self) -> int:
        """Returns the step of the newest checkpoint, 0 if there is none."""
        return max(checkpoint.steps(self._newest), default=0)

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
            checkpoint.restore(self._best, best["step"], {"model": model})
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
        steps = checkpoint.steps(self._newest)
        for step in steps:
            try:
                checkpoint.restore(self._newest, step, parts)
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
        checkpoint.save(self._newest, step, parts)
        saved = checkpoint.steps(self._newest)
        kept = [one for one in saved if one <= step][:keep]
        for other in {*saved} - {*kept}:
            checkpoint.remove(self._newest, other)

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
        numbers: list[Any] = [v for k, v in metrics.items() if (k, v) != ("eval_loss", None)]
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
        checkpoint.save(self._best, step, {"model": model})
        files.write_json(self._best / "metrics.json", {"step": step, **metrics})
        for other in checkpoint.steps(self._best):
            if other != step:
                checkpoint.remove(self._best, other)
