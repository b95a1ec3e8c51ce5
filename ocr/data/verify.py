"""Compares records with their manifests, to the last byte."""

import pathlib

import tensorflow as tf

from ocr.data import dataset
from ocr.data.dataset import Split
from ocr.images import header
from ocr.progress import Progress
from tfrecords import integrity, manifest, schema
from tfrecords.errors import InputError, IntegrityError
from tfrecords.manifest import Tally


def verify(folder: pathlib.Path, images_too: bool = False) -> dict:
    """Checks every split of a folder: sizes, checksums, and all that its manifest counts.

    Args:
      folder: of records.
      images_too: whether to decode every image.

    Returns:
      `records`, `shards` and `splits`.

    Raises:
      InputError: there are no records in it.
      IntegrityError: something is damaged; the message names every shard that is.
    """
    there = manifest.splits(folder)
    if not there:
        raise InputError(f"{folder}: no records in it (no *.manifest.json)")
    wrong: list[str] = []
    splits = []
    for path in there.values():
        try:
            splits.append(Split(folder, manifest.load(path)))
        except IntegrityError as error:
            wrong.append(str(error))
    records = sum(lines.manifest.records for lines in splits)
    with Progress("verifying", records, "records") as bar:
        done = 0
        for lines in splits:
            found, done = _split(lines, images_too, bar, done)
            wrong += found
    if wrong:
        raise IntegrityError(f"{len(wrong)} faults: {'; '.join(wrong)}" if len(wrong) > 1 else wrong[0])
    shards = sum(len(lines.manifest.shards) for lines in splits)
    return {"records": records, "shards": shards, "splits": sorted(there)}


def _split(lines: Split, images_too: bool, bar: Progress, done: int) -> tuple[list[str], int]:
    """Returns what is wrong with a split, and how many records are done after it."""
    told = lines.manifest
    wrong = integrity.misplaced_shards(lines.folder, told)
    tally = Tally()
    for shard in told.shards:
        path = lines.folder / shard.file
        if not any(fault.startswith(f"{path}:") for fault in wrong):
            if fault := dataset.damage(path, shard, told, images_too):
                wrong.append(fault)
            elif not wrong:
                try:
                    _count(path, tally)
                except (tf.errors.OpError, ValueError, ZeroDivisionError):
                    wrong.append(dataset.damage(path, shard, told) or f"{path}: holds what is no record")
        done += shard.records
        bar.update(done)
    counted = tally.fields()
    uncounted = [what for what in ("characters", "lengths", "widths") if counted[what] != getattr(told, what)]
    if not wrong and uncounted:
        wrong.append(f"{lines.folder / told.file}: its {', '.join(uncounted)} are not those of its records")
    return wrong, done


def _count(path: pathlib.Path, tally: Tally) -> None:
    """Counts a shard's records again."""
    for batch in tf.data.TFRecordDataset(str(path)).batch(1024).map(schema.parse):
        rows = zip(*(batch[key].numpy().tolist() for key in ("text", "height", "width")), strict=True)
        for text, height, width in rows:
            tally.add(text.decode("utf-8", "replace"), header.scaled_width(height, width))
