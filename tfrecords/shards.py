"""One file of records: how many, where each block of them begins, and checksums that tell whether they still are the same."""

import dataclasses
import hashlib
import pathlib

import tensorflow as tf

from tfrecords.errors import IntegrityError

BLOCK = 128  # records between two places where reading may begin
_HEADER, _FOOTER = 12, 4  # bytes around a record: its length and that number's checksum; the data's checksum
_CHECK = 2**44  # so that the sum over a block is a whole number in every JSON reader


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished file.

    Attributes:
      file: its name.
      records: how many it holds.
      bytes: its size.
      sha256: of all of it, 64 hexadecimal digits.
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
    return tf.strings.to_hash_bucket_fast(records, _CHECK)


def describe(path: pathlib.Path, file: str) -> Shard:
    """Reads a file of records from end to end.

    Args:
      path: where it lies.
      file: the name that it has or is to have.

    Raises:
      IntegrityError: it is cut short within a record; the record is named, counting from 1.
    """
    digest = hashlib.sha256()
    size = path.stat().st_size
    records = place = 0
    offsets, sums = [], []
    with open(path, "rb", buffering=2**20) as stream:
        header = stream.read(_HEADER)
        while header:
            block: list[bytes] = []
            read: list[bytes] = []
            offsets.append(place)
            while header and len(block) < BLOCK:
                length = int.from_bytes(header[:8], "little")
                end = place + _HEADER + length + _FOOTER
                if len(header) < _HEADER or end > size:
                    raise IntegrityError(f"{path}: damaged, record {records + 1} is cut short at byte {size}")
                content, footer = stream.read(length), stream.read(_FOOTER)
                block.append(content)
                read += [header, content, footer]
                header, place = stream.read(_HEADER), end
                records += 1
            digest.update(b"".join(read))
            sums.append(int(tf.reduce_sum(checks(tf.constant(block)))))
    return Shard(file, records, size, digest.hexdigest(), tuple(offsets), tuple(sums))
