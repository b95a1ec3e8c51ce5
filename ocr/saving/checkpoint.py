"""Checkpoints of a folder: files `ckpt-STEP.data-00000-of-00001` and `ckpt-STEP.index`, which exist once the index does."""

import pathlib
import re
from typing import Any

import tensorflow as tf

from tfrecords import errors, files
from tfrecords.errors import IntegrityError


def steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps of a folder's checkpoints, the newest first."""
    names = (path.stem.removeprefix("ckpt-") for path in folder.glob("ckpt-*.index"))
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def save(folder: pathlib.Path, step: int, parts: dict[str, Any]) -> None:
    """Writes a checkpoint to a temporary folder and moves it here, its index last."""
    with files.temporary_directory(folder / ".partial") as staging:
        tf.train.Checkpoint(**parts).write(str(staging / _name(step)))
        for path in sorted(staging.iterdir()):  # "data" before "index"
            files.sync_file(path)
            path.rename(folder / path.name)
    files.sync_folder(folder)


def remove(folder: pathlib.Path, step: int) -> None:
    """Removes a checkpoint, its index first."""
    for path in sorted(folder.glob(f"ckpt-{step}.*"), reverse=True):
        path.unlink()


def restore(folder: pathlib.Path, step: int, parts: dict[str, Any]) -> None:
    """Restores trackable objects, by name, from a checkpoint.

    Raises:
      IntegrityError: it is damaged, or lacks some of the parts.
    """
    try:
        with files.no_wildcards(folder) as readable:
            status = tf.train.Checkpoint(**parts).read(str(readable / _name(step)))
            status.expect_partial().assert_existing_objects_matched()
    except (OSError, ValueError, IndexError, AssertionError, tf.errors.OpError) as error:
        cause = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", errors.first_line(error))  # internal names of TensorFlow
        raise IntegrityError(f"{folder / _name(step)}: damaged checkpoint ({files.own_path(cause, folder)})") from error


def _name(step: int) -> str:
    return f"ckpt-{step}"
