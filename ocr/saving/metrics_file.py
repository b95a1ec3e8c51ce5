"""What a training has written to `metrics.jsonl`, one JSON object on each line."""

import json
import pathlib
import sys
from collections.abc import Iterator

from tfrecords.errors import IntegrityError


def metric(workdir: pathlib.Path, name: str) -> dict[int, float]:
    """Returns the values of a metric by step.

    Raises:
      IntegrityError: a line of `metrics.jsonl` is damaged.
    """
    path = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in lines_until(sys.maxsize, path)] if path.exists() else []
    return {line["step"]: line[name] for line in lines if line.get(name) is not None}


def lines_until(step: int, path: pathlib.Path) -> Iterator[str]:
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
