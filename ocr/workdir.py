"""The folder of a training: its configuration, alphabet, checkpoints and best weights."""

import json
import pathlib
from typing import Any

import keras
import tensorflow as tf

from ocr import charset as charsets
from ocr import config as configs
from ocr import models
from ocr.charset import Charset
from ocr.config import TrainConfig
from ocr.inputs import Lines
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError


class Workdir:
    """Where a training keeps what it needs to go on, and what it is good for."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    @property
    def begun(self) -> bool:
        return (self.path / "config.json").exists()

    def begin(self, config: TrainConfig, charset: Charset, train: Lines, held_out: Lines) -> None:
        """Makes the folder ready, or makes sure that it can be gone on with.

        Raises:
          InputError: it holds a training of another configuration, alphabet or data; every difference is named.
        """
        made_of = {"alphabet": charset.fingerprint, "train_data": train.fingerprint, "eval_data": held_out.fingerprint}
        if self.begun:
            saved, was_made_of = configs.read(self.path / "config.json")
            different = configs.differences(saved, config)
            for name, fingerprint in made_of.items():
                if (was := was_made_of.get(name, "none")) != fingerprint:
                    different.append(f"{name}: saved {was[:12]}, given {fingerprint[:12]}")
            if different:
                raise InputError(f"--workdir={self.path}: was made with another configuration: {'; '.join(different)}")
        files.make_folder(self.path)
        files.write_text(self.path / "charset.txt", charset.file_text())
        configs.write(self.path / "config.json", config, made_of)

    def load(self) -> tuple[keras.Model, Charset, TrainConfig]:
        """Returns the network with its best weights, or the newest where none has been evaluated yet.

        Raises:
          InputError: there is no training here, or no checkpoint yet.
          IntegrityError: the alphabet is not the one it was trained with.
        """
        if not self.begun:
            raise InputError(f"{self.path}: no training in it (no config.json); ocr_train makes one")
        config, made_of = configs.read(self.path / "config.json")
        charset = charsets.saved(self.path / "charset.txt", made_of["alphabet"])
        newest = tf.train.latest_checkpoint(self.path / "best") or tf.train.latest_checkpoint(self.path / "checkpoints")
        if newest is None:
            raise InputError(f"{self.path}: no checkpoint in it yet; let ocr_train run until its first")
        model = models.build(config.model, charset.num_classes)
        restore(newest, model=model)
        return model, charset, config

    def checkpoints(self, keep: int, **parts: Any) -> tf.train.CheckpointManager:
        """Restores the newest checkpoint, if there is one, and returns the keeper of those to come.

        Raises:
          IntegrityError: it is damaged.
        """
        manager = tf.train.CheckpointManager(tf.train.Checkpoint(**parts), self.path / "checkpoints", max_to_keep=keep)
        if manager.latest_checkpoint:
            restore(manager.latest_checkpoint, **parts)
        return manager

    def best(self) -> dict[str, float]:
        """Returns the figures of the best evaluation so far, or none."""
        path = self.path / "best" / "metrics.json"
        try:
            return json.loads(path.read_text("utf-8")) if path.exists() else {}
        except ValueError as error:
            raise IntegrityError(f"{path}: damaged ({error})") from error

    def keep_best(self, model: keras.Model, step: int, figures: dict[str, float]) -> None:
        """Saves the weights and figures of the best evaluation."""
        manager = tf.train.CheckpointManager(tf.train.Checkpoint(model=model), self.path / "best", max_to_keep=1)
        manager.save(checkpoint_number=step)
        files.write_json(self.path / "best" / "metrics.json", {"step": step, **figures})


def restore(path: str, **parts: Any) -> None:
    """Restores what a checkpoint holds of the parts.

    Raises:
      IntegrityError: it is damaged, or lacks some of them.
    """
    try:
        tf.train.Checkpoint(**parts).restore(path).expect_partial().assert_existing_objects_matched()
    except (OSError, ValueError, IndexError, AssertionError, tf.errors.OpError) as error:
        raise IntegrityError(f"{path}: damaged checkpoint ({str(error).splitlines()[0]})") from error
