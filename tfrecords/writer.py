"""Writes the shards of one split aside, and moves them into the folder when all is whole."""

import contextlib
import hashlib
import pathlib

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
      InputError: the folder holds the split already, or others of another alphabet; or another process is writing it.
    """

    def __init__(
        self, folder: pathlib.Path, name: str, split: str, charset_txt: str, num_shards: int = 0, positions: int = 0
    ) -> None:
        files.make_folder(folder)
        self._charset_txt = charset_txt
        self._folder, self._name, self._split, self._stem = folder, name, split, f"{name}-{split}"
        self._check_free()
        self._num_shards, self._positions = num_shards, positions
        self._aside = folder
        self._held = contextlib.ExitStack()
        self._paths: list[pathlib.Path] = []
        self._counts: list[int] = []
        self._writer: tf.io.TFRecordWriter | None = None
        self._bytes = 0

    def __enter__(self) -> "SplitWriter":
        self._aside = self._held.enter_context(files.scratch(self._folder / f".{self._stem}.partial"))
        return self

    def __exit__(self, *_: object) -> None:
        self._close_shard()
        self._held.close()

    def _check_free(self) -> None:
        if self._split in (there := splits(self._folder)):
            raise InputError(f"{there[self._split]}: split {self._split} is already there; choose another --split or --output")
        charset = self._folder / "charset.txt"
        if charset.exists() and charset.read_bytes() != self._charset_txt.encode("utf-8"):
            raise InputError(f"{charset}: another alphabet than the one given; use another --output")

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
        """Moves everything into the folder, the manifest last: a split without one is unfinished.

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
        files.write_text(self._aside / f"{self._stem}.rejects.tsv", rejects_tsv)
        files.write_text(self._aside / "charset.txt", self._charset_txt)
        manifest = Manifest(name=self._name, split=self._split, shards=tuple(shards), **fields)
        manifest.write(self._aside)
        with files.only_us(self._folder, wait=True):
            self._check_free()  # another process may have finished one in between
            for left in self._folder.glob(f"{self._stem}.tfrecord-*"):  # by a run that was killed while it moved them
                left.unlink()
            for path, shard in zip(self._paths, shards, strict=True):
                path.rename(self._folder / shard.file)
            for name in (f"{self._stem}.rejects.tsv", "charset.txt", manifest.file):
                (self._aside / name).rename(self._folder / name)
        files.sync_folder(self._folder)
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
