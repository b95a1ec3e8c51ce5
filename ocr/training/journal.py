"""What a training writes down while it runs: `metrics.jsonl`, and the same figures for TensorBoard."""

import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ocr.saving import workdir as workdirs
from tfrecords import files


class Clock:
    """The time since the last training line of the journal."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size, self.steps = batch_size, 0
        self._used = self._waited = self.a_step = 0.0
        self._since = time.monotonic()

    def add(self, steps: int, waited: float) -> None:
        """Counts steps; so many seconds of them were spent waiting for input."""
        used = time.monotonic() - self._since
        self.steps += steps
        self._used += used
        self._waited += waited
        self.a_step = used / steps

    def restart(self) -> None:
        """Leaves out what has passed since: an evaluation is no training time."""
        self._since = time.monotonic()

    def figures(self) -> dict[str, float | None]:
        return {
            "lines_per_second": self.steps * self._batch_size / self._used,
            "input_wait": None if math.isnan(self._waited) else self._waited / self._used,
        }


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
            files.write_text(self._path, "".join(workdirs.metrics_until(step, self._path)))
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


def _scalar(name: str, value: float, step: int) -> None:
    """Writes what tf.summary.scalar writes; that function needs the tensorboard package, which writing does not."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(name, tf.constant(value, tf.float32), step, metadata)
