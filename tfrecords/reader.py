"""Finds a split in a folder, and makes sure that its shards are the ones its manifest describes."""

import pathlib

import tensorflow as tf

from tfrecords import manifest
from tfrecords.errors import InputError, IntegrityError


def find(spec: str, prefer: str) -> tuple[pathlib.Path, manifest.Manifest]:
    """Finds the split that a flag names.

    Args:
      spec: `DIR`, or `DIR@split`.
      prefer: the split to take of a folder that has several and names none.

    Returns:
      The folder and the split's manifest.

    Raises:
      InputError: no such folder or split, or more than one and none of them preferred.
      IntegrityError: a shard is missing or has another size than the manifest says.
    """
    name, at, split = spec.rpartition("@")
    folder = pathlib.Path(name if at else spec)
    if at and not folder.is_dir() and pathlib.Path(spec).is_dir():  # a folder with an @ in its name
        folder, at = pathlib.Path(spec), ""
    there = manifest.splits(folder)
    if not there:
        raise InputError(f"{folder}: no records in it (no *.manifest.json); make_tfrecords writes them")
    wanted = split if at else prefer if prefer in there else next(iter(there)) if len(there) == 1 else None
    if wanted not in there:
        raise InputError(f"{spec}: has the splits {', '.join(there)}; name one as {folder}@{next(iter(there))}")
    found = manifest.load(there[wanted])
    for shard in found.shards:
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            has = "is missing" if size is None else f"has {size} bytes"
            raise IntegrityError(f"{path}: {has}, its manifest says {shard.bytes} bytes")
    return folder, found


def records(folder: pathlib.Path, split: manifest.Manifest) -> tf.data.Dataset:
    """Returns the serialized records of a split, string scalars in the order they were written."""
    return tf.data.TFRecordDataset([str(folder / shard.file) for shard in split.shards])
