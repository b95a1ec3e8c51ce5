"""Finds a split in a folder, and reads it block by block, comparing each block with the manifest."""

import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords import integrity, manifest, shards
from tfrecords.errors import InputError, IntegrityError
from tfrecords.manifest import Manifest

_BUFFER_BYTES = 2**18  # read at a time


def find(spec: str, prefer: str) -> tuple[pathlib.Path, Manifest]:
    """Finds the split that a flag names.

    Args:
      spec: `DIR`, or `DIR@split`.
      prefer: the split to take if `spec` names none and the folder has several.

    Returns:
      The folder and the split's manifest.

    Raises:
      InputError: there is no such folder or split, or there are several and none of them is preferred.
      IntegrityError: a shard is missing or has another size than the manifest says.
    """
    name, at, split = spec.rpartition("@")
    folder = pathlib.Path(name if at else spec)
    if at and not folder.is_dir() and pathlib.Path(spec).is_dir():  # a folder with an @ in its name
        folder, at = pathlib.Path(spec), ""
    paths = manifest.splits(folder)
    if not paths:
        raise InputError(f"{folder}: no records in it (no *.manifest.json); make_tfrecords writes them")
    wanted = split if at else prefer if prefer in paths else next(iter(paths)) if len(paths) == 1 else None
    if wanted not in paths:
        raise InputError(f"{spec}: has the splits {', '.join(paths)}; name one as {folder}@{next(iter(paths))}")
    loaded = manifest.load(paths[wanted])
    if faults := integrity.misplaced_shards(folder, loaded):
        raise IntegrityError(faults[0])
    return folder, loaded


class Blocks(NamedTuple):
    """The blocks of a split in order, K of them: where they are, and what the manifest says of each.

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


def blocks(folder: pathlib.Path, split: Manifest) -> Blocks:
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
      table: the blocks of the split.
      chosen: int64[M], the numbers of the blocks to read, at least one.

    Returns:
      string[R], the serialized records of these blocks in order.

    Raises:
      tf.errors.OpError: a record is damaged, or a block has changed since it was written.
    """
    paths, offsets, counts, expected = (tf.gather(column, chosen) for column in table[1:])
    files = tf.gather(tf.constant(table.paths), paths)

    def block(path: tf.Tensor, offset: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
        # The public data set cannot begin in the middle of a file; the operation under it can.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=path[tf.newaxis],
            compression_type="",
            buffer_size=tf.constant(_BUFFER_BYTES, tf.int64),
            byte_offsets=offset[tf.newaxis],
        )
        return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(count)

    total = tf.reduce_sum(counts)
    records = tf.data.Dataset.from_tensor_slices((files, offsets, counts)).flat_map(block).batch(total).get_single_element()
    with tf.control_dependencies([tf.debugging.assert_equal(tf.size(records, tf.int64), total, "a shard has too few records")]):
        owners = tf.repeat(tf.range(tf.size(chosen)), counts)
    actual = tf.math.segment_sum(shards.checks(records), owners)
    with tf.control_dependencies([tf.debugging.assert_equal(actual, expected, "a shard is not the one in its manifest")]):
        return tf.identity(records)


def records(folder: pathlib.Path, split: Manifest) -> tf.data.Dataset:
    """Returns the serialized records of a split in the order they were written.

    Returns:
      A data set of string[R], the records of one block each. It raises what `read` does.
    """
    table = blocks(folder, split)
    count = len(table.shard)
    return tf.data.Dataset.range(count).map(lambda block: read(table, block[tf.newaxis]), tf.data.AUTOTUNE)
