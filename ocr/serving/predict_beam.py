"""Reads images by the million on an engine of many machines, Apache Beam, with an exported model."""

import glob
import hashlib
import json
import os
import pathlib
from typing import NamedTuple

import apache_beam as beam
import tensorflow as tf

from ocr import beam as engine
from ocr.data import pipeline as inputs
from ocr.serving import predict, saved_model
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

_IMAGES = 2048  # of a part
_SHARD = ".tfrecord"  # in the name of a file of records


class Part(NamedTuple):
    """A piece of work, which is done or not.

    Attributes:
      images: files of images.
      shard: a file of records in their place, or nothing.
      output: file for what is read.
      bad: file for what cannot be read.
    """

    images: list[str]
    shard: str
    output: str
    bad: str


def run(model: pathlib.Path, pattern: str, output: str, beam_options: str) -> dict:
    """Reads image files, or the images of records.

    What is read goes to `OUTPUT-00000-of-00010.jsonl` and so on, a JSON object a line with `file`, `text` and `confidence`;
    what cannot be read to `OUTPUT-bad-00000-of-00010.jsonl` with `file` and `reason`. A run that was ended goes on with the
    parts that are not there. The machines must see all files under the names given, and have this package installed.

    Args:
      model: an export.
      pattern: of the files, with `*` and `**`; those with `.tfrecord` in their names are records, the others images.
      output: what the names of the output begin with.
      beam_options: of Beam, a runner among them.

    Returns:
      `images`, `bad`, `parts`, and `parts_before`, those that were there already.

    Raises:
      InputError: there is no model or no file, no runner is named, or the output is of another run.
      IntegrityError: the model, the plan or a file of records is damaged; all other parts are read then.
    """
    pipeline = engine.pipeline(beam_options)
    version = saved_model.newest_version(model)
    saved_model.load(version)
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if not pathlib.Path(path).is_dir())
    if not paths:
        raise InputError(f"--input={pattern}: matches no file")
    if not pathlib.Path(f"{output}-").parent.is_dir():
        raise InputError(f"--output={output}: no such folder")
    parts = _parts(paths, output)
    _begin(pathlib.Path(f"{output}.plan.json"), version, paths)
    left = [part for part in parts if not pathlib.Path(part.output).exists()]
    if left:
        with pipeline:
            _ = pipeline | beam.Create(left) | "Spread" >> beam.Reshuffle() | beam.ParDo(_Read(str(version)))
    if damaged := [part.shard for part in parts if not pathlib.Path(part.output).exists()]:
        raise IntegrityError(f"{', '.join(damaged)}: damaged")
    good, bad = (sum(_lines(getattr(part, kind)) for part in parts) for kind in ("output", "bad"))
    return {"images": good + bad, "bad": bad, "parts": len(parts), "parts_before": len(parts) - len(left)}


def _parts(paths: list[str], output: str) -> list[Part]:
    shards = [path for path in paths if _SHARD in pathlib.Path(path).name]
    images = sorted(set(paths) - set(shards))
    work: list[tuple[list[str], str]] = [([], shard) for shard in shards]
    work += [(images[start : start + _IMAGES], "") for start in range(0, len(images), _IMAGES)]
    names = [f"{number:05d}-of-{len(work):05d}.jsonl" for number in range(len(work))]
    return [Part(*each, f"{output}-{name}", f"{output}-bad-{name}") for each, name in zip(work, names, strict=True)]


def _begin(plan: pathlib.Path, version: pathlib.Path, paths: list[str]) -> None:
    """Writes down what is read with what, or makes sure that it is what was begun.

    Raises:
      InputError: it is not.
    """
    model = hashlib.sha256((version / "saved_model.pb").read_bytes()).hexdigest()
    told = {"model": model, "files": len(paths), "named": hashlib.sha256(os.fsencode("\0".join(paths))).hexdigest()}
    if not plan.exists():
        files.write_json(plan, told)
    elif not isinstance(before := files.read_json(plan), dict):
        raise IntegrityError(f"{plan}: damaged")
    elif before != told:
        what = "another model" if before.get("model") != model else "other files"
        raise InputError(f"{plan}: what was begun there was with {what}; give another --output, or take its files away")


class _Read(beam.DoFn):
    """Reads parts."""

    def __init__(self, version: str):
        self._version = version

    def setup(self) -> None:
        self._read = saved_model.load(pathlib.Path(self._version))

    def process(self, part: Part) -> None:
        part = Part(*part)
        if part.shard:
            images = ((name, file, "") for name, file in inputs.shard_files(part.shard))
            found = predict.predict_images(self._read, images)
        else:
            found = predict.predict_files(self._read, part.images)
        good, bad = [], []
        try:
            for answer in found:
                name = os.fsencode(answer.path).decode("utf-8", "backslashreplace")
                if answer.reason:
                    bad.append({"file": name, "reason": answer.reason})
                else:
                    good.append({"file": name, "text": answer.text, "confidence": round(answer.confidence, 6)})
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
            return  # which leaves the part undone
        for path, rows in ((part.bad, bad), (part.output, good)):  # the output last: when it is there, all is
            files.write_text(pathlib.Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _lines(path: str) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)
