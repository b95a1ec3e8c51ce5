"""One file of records: how many it holds, where each block of them begins, and checksums that detect changes."""

import concurrent.futures
import dataclasses
import hashlib
import pathlib
import re

import numpy as np
import tensorflow as tf

from tfrecords.errors import IntegrityError

BLOCK = 128  # records between two places where reading may begin
FRAMING_BYTES = 16  # of each record in a file: its length and two checksums
_READ_BYTES = 2**22  # at a time
_CHECK_BUCKETS = 2**44  # so that the sum over a block is exact in every JSON reader


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished file.

    Attributes:
      file: its name.
      records: how many it holds.
      bytes: its size.
      sha256: of the whole file, 64 hexadecimal digits.
      offsets: where each block of 128 records begins, in bytes; the last block may have fewer records.
      checks: the sum of `checks` over the records of each block.
    """

    file: str
    records: int
    bytes: int
    sha256: str
    offsets: tuple[int, ...]
    checks: tuple[int, ...]


def checks(records: tf.Tensor) -> tf.Tensor:
    """Returns a checksum of each record (farmhash): string[R] -> int64[R]."""
    return tf.strings.to_hash_bucket_fast(records, _CHECK_BUCKETS)


def describe(path: pathlib.Path, file: str) -> Shard:
    """Reads a file of records from end to end.

    Args:
      path: where the file is.
      file: its name, or the name it will get.

    Raises:
      IntegrityError: a record in it is damaged or cut short.
    """
    size = path.stat().st_size
    lengths = counts = sums = np.zeros(0, np.int64)
    with open(path, "rb") as stream, concurrent.futures.ThreadPoolExecutor(1) as executor:
        digest = executor.submit(hashlib.file_digest, stream, "sha256")
        try:
            if size:
                lengths, counts, sums = (column.numpy() for column in _measure_blocks(str(path)))
        except tf.errors.OpError as error:
            cause = re.search(r"(corrupted|truncated) record at \d+", str(error))
            raise IntegrityError(f"{path}: damaged ({cause[0] if cause else type(error).__name__})") from error
        offsets = np.cumsum(lengths) - lengths
        return Shard(file, int(counts.sum()), size, digest.result().hexdigest(), tuple(offsets.tolist()), tuple(sums.tolist()))


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _measure_blocks(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the length in bytes, the number of records and the checksum of each block of a file that is not empty."""

    def measure(block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        count = tf.size(block, tf.int64)
        length = tf.reduce_sum(tf.cast(tf.strings.length(block), tf.int64)) + FRAMING_BYTES * count
        return length, count, tf.reduce_sum(checks(block))

    records = tf.data.TFRecordDataset(path, buffer_size=_READ_BYTES)
    return records.batch(BLOCK).map(measure).batch(tf.int64.max).get_single_element()
