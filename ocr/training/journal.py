"""What a training writes down while it runs: `metrics.jsonl`, and the same figures for TensorBoard."""

import json
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tfrecords import files
from tfrecords.errors import IntegrityError


class Journal:
    """Appends lines of figures.

    Args:
      workdir: where `metrics.jsonl` and the events go.
      step: that the training goes on from; lines of later steps, of a run that was cut off, are dropped.
      levels: of the loss; TensorBoard draws them beside it, each as a run of its own.
    """

    def __init__(self, workdir: pathlib.Path, step: int, levels: Mapping[str, float]):
        files.make_folder(workdir / "events")
        self._path = workdir / "metrics.jsonl"
        if self._path.exists():
            files.write_text(self._path, "".join(_lines_until(step, self._path)))
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115  # closed in __exit__
        self._events = tf.summary.create_file_writer(str(workdir / "events"))
        self._levels = {tf.summary.create_file_writer(str(workdir / "events" / name)): levels[name] for name in levels}

    def close(self) -> None:
        self._file.close()
        for events in (self._events, *self._levels):
            events.close()

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Writes one line; a figure that there is none of is None."""
        self._file.write(json.dumps({"step": step, **figures}, allow_nan=False) + "\n")
        self._file.flush()
        with self._events.as_default():
            for name, value in figures.items():
                if isinstance(value, int | float):
                    _scalar(name, value, step)
        if "loss" in figures:
            for events, level in self._levels.items():
                with events.as_default():
                    _scalar("loss", level, step)

    def draw(self, step: int, name: str, picture: bytes) -> None:
        """Shows a PNG file in TensorBoard: what tf.summary.image writes, which needs the tensorboard package."""
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "images"
        width, height = (str(int.from_bytes(picture[at : at + 4], "big")) for at in (16, 20))
        with self._events.as_default():
            tf.summary.write(name, tf.constant([width.encode(), height.encode(), picture]), step, metadata)
            self._events.flush()


def losses(workdir: pathlib.Path) -> dict[int, float]:
    """Returns the training losses by step.

    Raises:
      IntegrityError: a line is none of ours.
    """
    path = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in _lines_until(sys.maxsize, path)] if path.exists() else []
    return {line["step"]: line["loss"] for line in lines if line.get("loss") is not None}


def _scalar(name: str, value: float, step: int) -> None:
    """Writes what tf.summary.scalar writes; that function needs the tensorboard package, which writing does not."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(name, tf.constant(value, tf.float32), step, metadata)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} in it")


def _lines_until(step: int, path: pathlib.Path) -> Iterator[str]:
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
