"""Writes the shards of one split aside, and moves them into the folder when all is whole."""

import hashlib
import pathlib
import shutil

import tensorflow as tf

from tfrecords import files
from tfrecords.errors import InputError
from tfrecords.manifest import Manifest, Shard, splits

SHARD_BYTES = 128 * 2**20


class SplitWriter:
    """Takes records in order; used as a context, it leaves no trace unless `finish` was called.

    Args:
      folder: where the split goes; made if need be.
      name: of the data set.
      split: of this part of it.
      charset_txt: text of the alphabet's file, which all splits of a folder share.
      num_shards: how many shards to spread `positions` over, or 0 for a new one every 128 MiB.
      positions: how many positions `add` may be given.

    Raises:
      InputError: the folder holds the split already, or others of another alphabet.
    """

    def __init__(
        self, folder: pathlib.Path, name: str, split: str, charset_txt: str, num_shards: int = 0, positions: int = 0
    ) -> None:
        files.make_folder(folder)
        if split in (there := splits(folder)):
            raise InputError(f"{there[split]}: split {split} is already there; choose another --split or --output")
        self._charset = folder / "charset.txt"
        if self._charset.exists() and self._charset.read_bytes() != charset_txt.encode("utf-8"):
            raise InputError(f"{self._charset}: another alphabet than the one given; use another --output")
        self._charset_txt = charset_txt
        self._folder, self._stem = folder, f"{name}-{split}"
        self._num_shards, self._positions = num_shards, positions
        self._aside = folder / f".{self._stem}.partial"
        self._paths: list[pathlib.Path] = []
        self._counts: list[int] = []
        self._writer: tf.io.TFRecordWriter | None = None
        self._bytes = 0

    def __enter__(self) -> "SplitWriter":
        shutil.rmtree(self._aside, ignore_errors=True)  # what a killed run left
        self._aside.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self._close_shard()
        shutil.rmtree(self._aside, ignore_errors=True)

    def add(self, serialized: bytes, position: int) -> None:
        """Appends one record; `position` counts up from 0 and may leave gaps (rejected lines)."""
        if self._num_shards:
            wanted = position * self._num_shards // self._positions
            while len(self._paths) <= wanted:
                self._open_shard()
        elif self._writer is None or self._bytes + len(serialized) > SHARD_BYTES:
            self._open_shard()
        assert self._writer is not None
        self._writer.write(serialized)
        self._bytes += len(serialized) + 16  # length, its checksum, the data's checksum
        self._counts[-1] += 1

    def finish(self, rejects_tsv: str, **fields) -> Manifest:
        """Renames the shards in, then the manifest: a split without one is unfinished.

        Args:
          rejects_tsv: text of the file of rejects.
          **fields: the manifest's fields but name, split and shards.

        Returns:
          The manifest, as written.
        """
        while len(self._paths) < self._num_shards:
            self._open_shard()
        self._close_shard()
        shards = []
        for index, (path, count) in enumerate(zip(self._paths, self._counts, strict=True)):
            files.sync_file(path)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            final = f"{self._stem}.tfrecord-{index:05d}-of-{len(self._paths):05d}"
            shards.append(Shard(final, count, path.stat().st_size, digest))
        for path, shard in zip(self._paths, shards, strict=True):
            path.rename(self._folder / shard.file)
        name, _, split = self._stem.rpartition("-")
        files.write_text(self._folder / f"{self._stem}.rejects.tsv", rejects_tsv)
        files.write_text(self._charset, self._charset_txt)
        manifest = Manifest(name=name, split=split, shards=tuple(shards), **fields)
        manifest.write(self._folder)
        return manifest

    def _open_shard(self) -> None:
        self._close_shard()
        self._paths.append(self._aside / f"{len(self._paths):05d}")
        self._counts.append(0)
        self._writer = tf.io.TFRecordWriter(str(self._paths[-1]))
        self._bytes = 0

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
