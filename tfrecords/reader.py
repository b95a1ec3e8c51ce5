"""Finds a split in a folder, and reads it block by block, each compared with what the manifest says of it."""

import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords import manifest, shards
from tfrecords.errors import InputError, IntegrityError

_BUFFER = 2**18  # bytes read at a time


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
    if wrong := misplaced(folder, found):
        raise IntegrityError(wrong[0])
    return folder, found


def misplaced(folder: pathlib.Path, split: manifest.Manifest) -> list[str]:
    """Returns what is wrong with a split that can be told without reading it: shards that are missing, too many, or of another
    size than the manifest says."""
    wrong = []
    for shard in split.shards:
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            has = "is missing" if size is None else f"has {size} bytes"
            wrong.append(f"{path}: {has}, its manifest says {shard.bytes} bytes")
    listed = {shard.file for shard in split.shards}
    there = sorted(folder.glob(f"{split.name}-{split.split}.tfrecord-*"))
    return wrong + [f"{path}: is not in the manifest {split.file}" for path in there if path.name not in listed]


class Blocks(NamedTuple):
    """Where the blocks of a split are, in order, and what the manifest says of them.

    Attributes:
      paths: of the shards.
      shard: int64[K], the index of each block's shard.
      offset: int64[K], in bytes.
      records: int64[K], how many each holds.
      check: int64[K], the sum of its records' checksums.
    """

    paths: list[str]
    shard: np.ndarray
    offset: np.ndarray
    records: np.ndarray
    check: np.ndarray


def blocks(folder: pathlib.Path, split: manifest.Manifest) -> Blocks:
    """Returns the blocks of a split."""
    rows = [
        (index, offset, min(shards.BLOCK, shard.records - block * shards.BLOCK), check)
        for index, shard in enumerate(split.shards)
        for block, (offset, check) in enumerate(zip(shard.offsets, shard.checks, strict=True))
    ]
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return Blocks([str(folder / shard.file) for shard in split.shards], *columns)


def read(table: Blocks, chosen: tf.Tensor) -> tf.Tensor:
    """Reads some blocks, in the graph of a data set.

    Args:
      table: of the split.
      chosen: int64[M], at least one.

    Returns:
      string[R], the serialized records of these blocks in order.

    Raises:
      tf.errors.OpError: a record is damaged, or a block does not hold what it held when it was written.
    """
    paths, offsets, counts, sums = (tf.gather(column, chosen) for column in table[1:])
    files = tf.gather(tf.constant(table.paths), paths)

    def block(path: tf.Tensor, offset: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
        # The public data set cannot begin in the middle of a file; the operation under it can.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=path[tf.newaxis],
            compression_type="",
            buffer_size=tf.constant(_BUFFER, tf.int64),
            byte_offsets=offset[tf.newaxis],
        )
        return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(count)

    total = tf.reduce_sum(counts)
    records = tf.data.Dataset.from_tensor_slices((files, offsets, counts)).flat_map(block).batch(total).get_single_element()
    with tf.control_dependencies([tf.debugging.assert_equal(tf.size(records, tf.int64), total, "a shard has too few records")]):
        owners = tf.repeat(tf.range(tf.size(chosen)), counts)
    found = tf.math.segment_sum(shards.checks(records), owners)
    with tf.control_dependencies([tf.debugging.assert_equal(found, sums, "a shard is not the one in its manifest")]):
        return tf.identity(records)


def records(folder: pathlib.Path, split: manifest.Manifest) -> tf.data.Dataset:
    """Returns the serialized records of a split in the order they were written, string[R] at a time, the records of a block
    each; for what they raise see `read`."""
    table = blocks(folder, split)
    count = len(table.shard)
    return tf.data.Dataset.range(count).map(lambda block: read(table, block[tf.newaxis]), tf.data.AUTOTUNE)
