"""Reads images by the million on a cluster, with Apache Beam and an exported model."""

import glob
import hashlib
import json
import os
import pathlib
from typing import NamedTuple

import apache_beam as beam
import tensorflow as tf

from ocr import beam as engine
from ocr.data import pipeline as pipelines
from ocr.serving import predict, saved_model
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

_IMAGES_PER_PART = 2048
_SHARD = ".tfrecord"  # in the names of shards


class Part(NamedTuple):
    """A unit of work, which is written as a whole or not at all.

    Attributes:
      images: Image files, unless it is a shard.
      shard: A shard of records, or "".
      output: File for the predictions.
      bad: File for the images that cannot be read.
    """

    images: list[str]
    shard: str
    output: str
    bad: str


def run(model: pathlib.Path, pattern: str, output: str, beam_options: str) -> dict:
    """Reads image files, or the images of records.

    Predictions go to `OUTPUT-00000-of-00010.jsonl` and so on, a JSON object a line with `file`, `text` and `confidence`;
    images that cannot be read to `OUTPUT-bad-00000-of-00010.jsonl` with `file` and `reason`. A run that was interrupted
    resumes with the missing parts. The workers must see all files under the names given, and have this package installed.

    Args:
      model: An export.
      pattern: Glob of the files, with `*` and `**`; those with `.tfrecord` in their names are shards, the others images.
      output: Prefix of the output files.
      beam_options: Options of Beam, which must name a runner.

    Returns:
      `images`, `bad`, `parts`, and `parts_before`, the parts that an earlier run wrote.

    Raises:
      InputError: There is no model or no file, no runner is named, or the output is of another run.
      IntegrityError: The model, the plan or a shard is damaged; all other parts are read first.
    """
    pipeline = engine.pipeline(beam_options)
    version = saved_model.newest_version(model)
    matched = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    paths = sorted(path for path in matched if not pathlib.Path(path).is_dir())
    if not paths:
        raise InputError(f"--input={pattern}: matches no file")
    if not pathlib.Path(f"{output}-").parent.is_dir():
        raise InputError(f"--output={output}: no such folder")
    parts = _split_into_parts(paths, output)
    plan, plan_path = _plan(version, paths), pathlib.Path(f"{output}.plan.json")
    if plan_path.exists():
        _check_same_plan(plan, plan_path)
    missing = _missing(parts)
    if missing:
        saved_model.load(version)  # refuses a damaged model before anything is written
        files.write_json(plan_path, plan)
        with pipeline:
            _ = pipeline | beam.Create(missing) | "Spread" >> beam.Reshuffle() | beam.ParDo(_ReadPart(str(version)))
    if damaged := [part.shard for part in _missing(parts)]:
        raise IntegrityError(f"{', '.join(damaged)}: damaged")
    good, bad = (sum(_count_lines(getattr(part, kind)) for part in parts) for kind in ("output", "bad"))
    return {"images": good + bad, "bad": bad, "parts": len(parts), "parts_before": len(parts) - len(missing)}


def _missing(parts: list[Part]) -> list[Part]:
    return [part for part in parts if not pathlib.Path(part.output).exists()]


def _split_into_parts(paths: list[str], output: str) -> list[Part]:
    shards = [path for path in paths if _SHARD in pathlib.Path(path).name]
    images = sorted(set(paths) - set(shards))
    work: list[tuple[list[str], str]] = [([], shard) for shard in shards]
    work += [(images[start : start + _IMAGES_PER_PART], "") for start in range(0, len(images), _IMAGES_PER_PART)]
    names = [f"{number:05d}-of-{len(work):05d}.jsonl" for number in range(len(work))]
    return [Part(*each, f"{output}-{name}", f"{output}-bad-{name}") for each, name in zip(work, names, strict=True)]


def _plan(version: pathlib.Path, paths: list[str]) -> dict[str, str | int]:
    """Returns what identifies a run: its model and its files."""
    model = hashlib.sha256((version / "saved_model.pb").read_bytes()).hexdigest()
    names = hashlib.sha256(os.fsencode("\0".join(paths))).hexdigest()
    return {"model": model, "files": len(paths), "named": names}


def _check_same_plan(plan: dict[str, str | int], path: pathlib.Path) -> None:
    """Makes sure that an earlier run had the same model and files.

    Raises:
      InputError: It had not.
      IntegrityError: Its plan is damaged.
    """
    earlier = files.read_json(path)
    if earlier != plan:
        other = "another model" if earlier.get("model") != plan["model"] else "other files"
        raise InputError(f"{path}: that run was with {other}; give another --output, or delete its files")


class _ReadPart(beam.DoFn):
    """Reads parts and writes their output."""

    def __init__(self, version: str):
        self._version = version

    def setup(self) -> None:
        """Loads the model, once a worker."""
        self._read = saved_model.load(pathlib.Path(self._version))

    def process(self, part: Part) -> None:
        """Reads a part; a damaged shard has no output."""
        part = Part(*part)  # some runners make it a plain tuple
        if part.shard:
            images = ((name, image, "") for name, image in pipelines.shard_files(part.shard))
            predictions = predict.predict_images(self._read, images)
        else:
            predictions = predict.predict_files(self._read, part.images)
        good, bad = [], []
        try:
            for prediction in predictions:
                name = os.fsencode(prediction.path).decode("utf-8", "backslashreplace")
                if prediction.reason:
                    bad.append({"file": name, "reason": prediction.reason})
                else:
                    good.append({"file": name, "text": prediction.text, "confidence": round(prediction.confidence, 6)})
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
            return
        # The output comes last: once it exists, the part is complete.
        for path, rows in ((part.bad, bad), (part.output, good)):
            files.write_text(pathlib.Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _count_lines(path: str) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)
