"""Integrity of records: whether shards are what their manifest says, and whether every record can be read.

`tfrecords.integrity` compares the bytes; this module also looks inside the records.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator

import tensorflow as tf

from ocr.charset import describe
from ocr.data.dataset import Split
from ocr.images import header, record_images
from ocr.progress import Progress
from tfrecords import integrity, manifest, schema, shards
from tfrecords.errors import InputError, IntegrityError
from tfrecords.manifest import Manifest, Tally


def verify(folder: pathlib.Path, images_too: bool = False) -> dict:
    """Checks every split of a folder: sizes, checksums, and all that its manifest counts.

    Args:
      folder: of records.
      images_too: whether to decode every image.

    Returns:
      `records`, `shards` and `splits`.

    Raises:
      InputError: there are no records in the folder.
      IntegrityError: something is damaged; the message names every damaged shard.
    """
    paths = manifest.splits(folder)
    if not paths:
        raise InputError(f"{folder}: no records in it (no *.manifest.json)")
    faults: list[str] = []
    splits = []
    for path in paths.values():
        try:
            splits.append(Split(folder, manifest.load(path)))
        except IntegrityError as error:
            faults.append(str(error))
    records = sum(split.manifest.records for split in splits)
    with Progress("verifying", records, "records") as bar:
        done = 0
        for split in splits:
            split_faults, done = _verify_split(split, images_too, bar, done)
            faults += split_faults
    if faults:
        raise IntegrityError(f"{len(faults)} faults: {'; '.join(faults)}" if len(faults) > 1 else faults[0])
    return {"records": records, "shards": sum(len(split.manifest.shards) for split in splits), "splits": sorted(paths)}


def _verify_split(split: Split, images_too: bool, bar: Progress, done: int) -> tuple[list[str], int]:
    """Returns the faults of a split, and `done` plus the number of its records."""
    faults = integrity.misplaced_shards(split.folder, split.manifest)
    tally = Tally()
    for shard in split.manifest.shards:
        path = split.folder / shard.file
        if not any(fault.startswith(f"{path}:") for fault in faults):
            if fault := _shard_fault(path, shard, split.manifest, images_too):
                faults.append(fault)
            elif not faults:
                try:
                    _count_records(path, tally)
                except (tf.errors.OpError, ValueError, ZeroDivisionError):
                    fault = _shard_fault(path, shard, split.manifest)
                    faults.append(fault or f"{path}: holds something that is not a record")
        done += shard.records
        bar.update(done)
    counts = tally.fields()
    different = [field for field in ("characters", "lengths", "widths") if counts[field] != getattr(split.manifest, field)]
    if not faults and different:
        faults.append(f"{split.folder / split.manifest.file}: its {', '.join(different)} are not those of its records")
    return faults, done


def _count_records(path: pathlib.Path, tally: Tally) -> None:
    """Adds the records of a shard to a tally."""
    for batch in tf.data.TFRecordDataset(str(path)).batch(1024).map(schema.parse):
        rows = zip(*(batch[key].numpy().tolist() for key in ("text", "height", "width")), strict=True)
        for text, height, width in rows:
            tally.add(text.decode("utf-8", "replace"), header.scaled_width(height, width))


@contextlib.contextmanager
def report_damage(*splits: Split) -> Iterator[None]:
    """Replaces TensorFlow's error about a bad record by one that names the shard and the record.

    Raises:
      IntegrityError: a record of one of the splits cannot be read.
    """
    try:
        yield
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        for split in splits:
            for shard in split.manifest.shards:
                if fault := _shard_fault(split.folder / shard.file, shard, split.manifest):
                    raise IntegrityError(fault) from error
        raise


def _shard_fault(path: pathlib.Path, shard: shards.Shard, split: Manifest, images_too: bool = True) -> str:
    """Returns what is wrong with a shard, or an empty text.

    Args:
      path: of the shard's file.
      shard: its entry in the manifest.
      split: the manifest.
      images_too: whether to decode every image.
    """
    if fault := integrity.shard_damage(path, shard):
        return fault
    if not images_too:
        return ""
    count = 0
    for batch in tf.data.TFRecordDataset(str(path)).batch(shards.BLOCK):
        if _records_fault(batch, split):  # finds out which record it is
            for number, serialized in enumerate(batch, count + 1):
                if fault := _records_fault(serialized[tf.newaxis], split):
                    return f"{path}: record {number}: {fault}"
        count += len(batch)
    return ""


def _records_fault(serialized: tf.Tensor, split: Manifest) -> str:
    """Returns what is wrong with some records, string[R], or an empty text."""
    try:
        record = schema.parse(serialized)
        text = b"".join(record["text"].numpy()).decode("utf-8")
        if lacking := "".join(sorted(set(text) - split.characters.keys())):
            return f"its text has {describe(lacking)}, which its manifest does not list"
        _decode(record, split.height, split.image_format == schema.RAW)
    except UnicodeDecodeError:
        return "its text is not UTF-8, or it is not a record"
    except tf.errors.OpError as error:
        cause = re.search(r"\n([^\n]+)\n\s*\[\[", str(error)) or re.search(r"(.*)", str(error))
        return f"cannot be read ({cause[1][:200] if cause else ''})"
    return ""


@tf.function(reduce_retracing=True, autograph=False)
def _decode(record: dict[str, tf.Tensor], line_height: int, only_raw: bool) -> tf.Tensor:
    return record_images.read(record, line_height, only_raw)[0]
