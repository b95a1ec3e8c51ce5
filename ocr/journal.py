"""What a training writes down while it runs: `metrics.jsonl`, and the same figures for TensorBoard."""

import json
import pathlib

import tensorflow as tf

from tfrecords import files


class Journal:
    """Appends lines of figures; used as a context.

    Args:
      workdir: where `metrics.jsonl` and the events go.
      step: that the training goes on from; lines of later steps, of a run that was cut off, are dropped.
    """

    def __init__(self, workdir: pathlib.Path, step: int):
        self._path = workdir / "metrics.jsonl"
        if self._path.exists():
            files.write_text(self._path, "".join(line for line in _whole_lines(self._path) if json.loads(line)["step"] <= step))
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115  # closed in __exit__
        self._events = tf.summary.create_file_writer(str(workdir / "events"))

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._events.close()

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Writes one line."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()
        with self._events.as_default():
            for name, value in figures.items():
                _scalar(name, value, step)


def _scalar(name: str, value: float, step: int) -> None:
    """Writes what tf.summary.scalar writes; that function needs the tensorboard package, which writing does not."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(name, tf.constant(value, tf.float32), step, metadata)


def _whole_lines(path: pathlib.Path) -> list[str]:
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("}\n")]
