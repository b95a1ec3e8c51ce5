"""What a training records while it runs: `metrics.jsonl`, and the same metrics for TensorBoard."""

import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ocr.saving import metrics_file
from tfrecords import files


class Clock:
    """Measures speed and input wait since the last training line of the journal.

    Args:
      batch_size: lines of a step.

    Attributes:
      steps: number of steps measured.
      step_s: seconds a step, over the last steps added.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size, self.steps = batch_size, 0
        self._used_s = self._waited_s = self.step_s = 0.0
        self._since = time.monotonic()

    def add(self, steps: int, waited_s: float) -> None:
        """Adds the steps since `restart`, and the seconds of them spent waiting for input."""
        used_s = time.monotonic() - self._since
        self.steps += steps
        self._used_s += used_s
        self._waited_s += waited_s
        self.step_s = used_s / steps

    def restart(self) -> None:
        """Starts measuring the next steps: evaluations and checkpoints do not count."""
        self._since = time.monotonic()

    def metrics(self) -> dict[str, float | None]:
        """Returns lines per second, and the share of time spent waiting for input, None if unknown."""
        return {
            "lines_per_second": self.steps * self._batch_size / self._used_s,
            "input_wait": None if math.isnan(self._waited_s) else self._waited_s / self._used_s,
        }


class Journal:
    """Appends metrics to `metrics.jsonl` and to TensorBoard's events.

    Args:
      workdir: folder of both.
      step: at which the training starts or resumes; lines of later steps, left by a run that was killed, are dropped.
      levels: reference levels of the loss; TensorBoard shows each as a run of its own.
    """

    def __init__(self, workdir: pathlib.Path, step: int, levels: Mapping[str, float]):
        files.make_folder(workdir / "events")
        self._path = workdir / "metrics.jsonl"
        if self._path.exists():
            files.write_text(self._path, "".join(metrics_file.lines_until(step, self._path)))
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115  # closed in __exit__
        self._events = tf.summary.create_file_writer(str(workdir / "events"))
        self._levels = {tf.summary.create_file_writer(str(workdir / "events" / name)): levels[name] for name in levels}

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        for events in (self._events, *self._levels):
            events.close()

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        """Writes one line; unknown values are None."""
        self._file.write(json.dumps({"step": step, **metrics}, allow_nan=False) + "\n")
        self._file.flush()
        with self._events.as_default():
            for name, value in metrics.items():
                if isinstance(value, int | float):
                    _scalar(name, value, step)
        if "loss" in metrics:
            for events, level in self._levels.items():
                with events.as_default():
                    _scalar("loss", level, step)

    def draw(self, step: int, name: str, picture: bytes) -> None:
        """Shows a PNG file in TensorBoard. It writes what tf.summary.image does, which needs the tensorboard package."""
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "images"
        width, height = (str(int.from_bytes(picture[at : at + 4], "big")) for at in (16, 20))  # in its header
        with self._events.as_default():
            tf.summary.write(name, tf.constant([width.encode(), height.encode(), picture]), step, metadata)
            self._events.flush()


def _scalar(name: str, value: float, step: int) -> None:
    """Writes what tf.summary.scalar does, which needs the tensorboard package."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(name, tf.constant(value, tf.float32), step, metadata)
