"""Reads every line of a split with a network that was trained without it: by cross-fitting."""

import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Callable, Iterator

from ocr import config as configs
from ocr.data import dataset, verify
from ocr.data.dataset import Split
from ocr.evaluation import audit
from ocr.evaluation.metrics import LineResult
from ocr.images import header
from ocr.saving.workdir import Workdir
from ocr.training import train
from tfrecords import reader, schema
from tfrecords.errors import InputError
from tfrecords.writer import SplitWriter

_LOG = logging.getLogger(__name__)


def read(workdir: pathlib.Path, split: Split, folds: int, folder: pathlib.Path, stop: Callable[[], bool]) -> list[LineResult]:
    """Divides a split into folds, and reads each with a network that is trained on the others.

    The networks are trained as another one was. A line's fold is a hash of its name.

    Args:
      workdir: of that training.
      split: the lines.
      folds: their number, at least 2.
      folder: for the records and the training of each fold; what is there already is not done again.
      stop: see `train.train`.

    Returns:
      The result of each line in order, with its `log_probability`; fewer if it was stopped.

    Raises:
      InputError: there is no training in `workdir`, or a fold has no line.
      IntegrityError: something is damaged.
    """
    if not Workdir(workdir).has_training:
        raise InputError(
            f"--folds={folds}: --model={workdir} must be the workdir of a training, which is repeated on each fold"
        )
    config, _ = configs.read(workdir / "config.json")
    results: dict[int, LineResult] = {}
    # All before the first training: a fold without a line is then known at once.
    numbers = [_divide(split, fold, folds, folder / f"records{fold}") for fold in range(folds)]
    for fold, own in enumerate(numbers):
        records, run = folder / f"records{fold}", folder / f"run{fold}"
        _LOG.info("fold %d of %d: %d lines are read by a network trained on the others", fold + 1, folds, len(own))
        data, charset = str(records), str(workdir / "charset.txt")
        fold_config = dataclasses.replace(config, train_data=data, eval_data=data, charset=charset, workdir=str(run))
        train.train(fold_config, stop)
        if stop():
            break
        lines = audit.read(audit.open_model(run), dataset.find(data, "eval"))
        results |= dict(zip(own, lines, strict=True))
    return [results[number] for number in sorted(results)]


def _divide(split: Split, fold: int, folds: int, folder: pathlib.Path) -> list[int]:
    """Writes a fold of a split as `eval`, and the others as `train`; returns the numbers of the lines of the fold."""
    provenance = {"records": split.fingerprint, "fold": fold, "folds": folds}
    charset_txt = (split.folder / "charset.txt").read_text("utf-8")
    own: list[int] = []
    for part in ("train", "eval"):
        with SplitWriter(folder, "lines", part, charset_txt, provenance=provenance, resume=True) as writer:
            position = 0
            for number, (name, serialized, text, width) in enumerate(_records(split)):
                digest = hashlib.sha256(name).digest()
                if (int.from_bytes(digest[:8]) % folds == fold) != (part == "eval"):
                    continue
                if part == "eval":
                    own.append(number)
                if not writer.manifest and position >= writer.position:
                    writer.add(serialized, position, text, width)
                position += 1
            if not position:
                raise InputError(f"--folds={folds}: {split.folder} has too few lines")
            if not writer.manifest:
                manifest = split.manifest
                writer.finish(
                    charset=manifest.charset,
                    image_format=manifest.image_format,
                    pixels_per_frame=manifest.pixels_per_frame,
                    height=manifest.height,
                )
    return own


def _records(split: Split) -> Iterator[tuple[bytes, bytes, str, int]]:
    """Yields the name, the serialized record, the text and the scaled width of each line."""
    with verify.report_damage(split):
        for block in reader.records(split.folder, split.manifest):
            parsed = schema.parse(block)
            columns = (parsed[key].numpy().tolist() for key in ("filename", "text", "height", "width"))
            for serialized, name, text, height, width in zip(block.numpy().tolist(), *columns, strict=True):
                yield name, serialized, text.decode(), header.scaled_width(height, width)
