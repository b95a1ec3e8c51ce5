"""Writes the shards of one split aside, and moves them into the folder when all is whole."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfrecords import files, tfds
from tfrecords import manifest as manifests
from tfrecords.errors import InputError, IntegrityError
from tfrecords.manifest import Manifest, Tally, splits
from tfrecords.shards import AROUND, Shard, describe

SHARD_BYTES = 128 * 2**20
_PROGRESS = "progress.json"  # of the finished shards


class SplitWriter:
    """Takes records and rejects in order, and counts them; used as a context.

    Whatever ends the block before `finish` leaves the finished shards aside, in a hidden folder, if there are any; `resume`
    takes them up there, and without it they are removed.

    Args:
      folder: where the split goes; made if need be.
      name: of the data set.
      split: of this part of it.
      charset_txt: text of the alphabet's file, which all splits of a folder share.
      num_shards: how many shards to spread `positions` over, or 0 for a new one every 128 MiB.
      positions: how many positions `add` may be given.
      made_of: names all that decides what is written; `resume` goes on with nothing that was made of something else.
      resume: whether to go on where a run that was ended had its last finished shard, or takes a finished split as it is.

    Attributes:
      manifest: of the split once it is finished, else None.
      position: from which on records are wanted; 0 but for `resume`.
      tally: counts what was added.
      kept: names that whoever calls wants back with `resume`.
      first_reject: the first row of the file of rejects that was added.

    Raises:
      InputError: the folder holds the split already, or others of another alphabet; or another process is writing it; or what
        is there was made of something else.
      IntegrityError: what `resume` is to go on with is not as it was left.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        name: str,
        split: str,
        charset_txt: str,
        num_shards: int = 0,
        positions: int = 0,
        provenance: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        tfds.check_split(split)
        files.make_folder(folder)
        self._charset_txt = charset_txt
        self._folder, self._name, self._split, self._stem = folder, name, split, f"{name}-{split}"
        self._staging = folder / f".{self._stem}.partial"
        self._manifest_file, self._rejects_file = f"{self._stem}{manifests.SUFFIX}", f"{self._stem}.rejects.tsv"
        self._num_shards, self._positions = num_shards, positions
        self._provenance, self._resume = dict(provenance or {}), resume
        self.manifest: Manifest | None = None
        self.position = 0
        self.tally = Tally()
        self.kept: list[str] = []
        self.first_reject = ""
        self._check_free()
        self._held = contextlib.ExitStack()
        self._shards: list[Shard] = []
        self._writer: tf.io.TFRecordWriter | None = None
        self._bytes = 0

    def __enter__(self) -> "SplitWriter":
        with contextlib.ExitStack() as held:
            if not self.manifest:
                self._staging.mkdir(exist_ok=True)
            if self._staging.exists():
                held.enter_context(files.directory_lock(self._staging))
            if self._resume and not self.manifest and (self._staging / self._manifest_file).exists():
                self._check_provenance(manifests.load(self._staging / self._manifest_file).made_of)
                self._move_in()
            if not self.manifest:
                if not (self._resume and self._go_on()):
                    for left in self._staging.iterdir():  # by a run that was ended
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
                self._rejects = open(self._staging / self._rejects_file, "a", encoding="utf-8", newline="\n")
                held.callback(self._rejects.close)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._held:
            if self._writer is not None:
                self._writer.close()
            if self.manifest or not (self._staging / _PROGRESS).exists():
                shutil.rmtree(self._staging, ignore_errors=True)

    def _check_free(self) -> None:
        if self._split in (there := splits(self._folder)):
            path = there[self._split]
            if not self._resume or path.name != self._manifest_file:
                raise InputError(f"{path}: split {self._split} is already there; choose another --split or --output")
            self.manifest = manifests.load(path)
            self._check_provenance(self.manifest.made_of)
        self._check_charset()

    def _check_charset(self) -> None:
        charset = self._folder / "charset.txt"
        if charset.exists() and charset.read_bytes() != self._charset_txt.encode("utf-8"):
            raise InputError(f"{charset}: another alphabet than the one given; use another --output")

    def _check_provenance(self, was: Mapping[str, Any]) -> None:
        if different := [
            f"{key}: saved {was.get(key)}, given {now}" for key, now in self._provenance.items() if was.get(key) != now
        ]:
            raise InputError(
                f"--resume: {self._folder}: split {self._split} was made of something else: {'; '.join(different)}"
            )

    def add(self, serialized: bytes, position: int, text: str, width: int) -> None:
        """Appends one record.

        Args:
          serialized: the record.
          position: counts up from 0 and may leave gaps, where lines are rejected.
          text: of the line, for the tally.
          width: scaled, in pixels, for the tally.
        """
        if self._num_shards:
            wanted = position * self._num_shards // self._positions
            while self._open < wanted:
                self._next_shard(position)
        elif self._bytes and self._bytes + len(serialized) > SHARD_BYTES:
            self._next_shard(position)
        if self._writer is None:
            self._writer = tf.io.TFRecordWriter(str(self.path(self._open)))
        self._writer.write(serialized)
        self._bytes += len(serialized) + AROUND
        self.tally.add(text, width)

    def reject(self, row: str, reason: str) -> None:
        """Appends a row to the file of rejects, its end of line included."""
        self._rejects.write(row)
        self.first_reject = self.first_reject or row
        self.tally.rejects[reason] += 1

    def adopt(self, shard: Shard, counts: dict[str, Any], rejects: list[str]) -> None:
        """Takes a finished shard that somebody else has written to `path` of its number.

        Args:
          shard: the next one in order.
          counts: of its records and rejects, as `Tally.fields` has them.
          rejects: rows of the file of rejects, their ends of line included.
        """
        self._shards.append(shard)
        self.tally.add_fields(counts)
        self._rejects.writelines(rejects)
        self.first_reject = self.first_reject or "".join(rejects[:1])

    def finish(self, **fields: Any) -> Manifest:
        """Moves everything into the folder, the manifest last: a split without one is unfinished.

        Args:
          **fields: the manifest's fields but name, split, shards and counts.

        Returns:
          The manifest, as written.
        """
        if not self._num_shards or self._open < self._num_shards:
            while self._open + 1 < self._num_shards:
                self._next_shard(self._positions)
            self._close_shard()
        self._rejects.close()
        files.sync_file(self._staging / self._rejects_file)
        files.write_text(self._staging / "charset.txt", self._charset_txt)
        count = len(self._shards)
        named = tuple(
            dataclasses.replace(shard, file=f"{self._stem}.tfrecord-{index:05d}-of-{count:05d}")
            for index, shard in enumerate(self._shards)
        )
        fields |= self.tally.fields()
        Manifest(name=self._name, split=self._split, shards=named, made_of=self._provenance, **fields).write(self._staging)
        return self._move_in()

    @property
    def _open(self) -> int:
        """The number of the shard that is written to."""
        return len(self._shards)

    def path(self, index: int) -> pathlib.Path:
        """Where a shard is written, before it is moved to its final name."""
        return self._staging / f"{index:05d}"

    def _close_shard(self) -> None:
        path = self.path(self._open)
        if self._writer is None:
            path.touch()  # not a line for it
        else:
            self._writer.close()
            self._writer = None
        files.sync_file(path)
        self._shards.append(describe(path, path.name))
        self._bytes = 0

    def _next_shard(self, position: int) -> None:
        """Closes a shard, and notes what it takes to go on from `position`."""
        self._close_shard()
        self._rejects.flush()
        os.fsync(self._rejects.fileno())
        state = {
            "made_of": self._provenance,
            "position": position,
            "rejects_bytes": self._rejects.tell(),
            "shards": [dataclasses.asdict(shard) for shard in self._shards],
            "counts": self.tally.fields(),
            "kept": self.kept,
        }
        files.write_json(self._staging / _PROGRESS, state)

    def _go_on(self) -> bool:
        """Takes up what a run that was ended has left; says whether there is anything."""
        path = self._staging / _PROGRESS
        if not path.exists():
            return False
        try:
            state = files.read_json(path)
            provenance, counts = dict(state["made_of"]), state["counts"]
            self.position, self.kept = int(state["position"]), list(state["kept"])
            shards = [manifests.read_shard(shard) for shard in state["shards"]]
            rejects_bytes = int(state["rejects_bytes"])
            self.tally.add_fields(counts)
            if self.tally.lines != self.position or not shards:
                raise ValueError(f"{self.tally.lines} lines, and position {self.position}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{path}: damaged ({error!r:.200}); start afresh without --resume") from error
        self._check_provenance(provenance)
        self._shards = shards
        rejects = self._staging / self._rejects_file
        whole = {self.path(index).name for index in range(self._open)} | {path.name, rejects.name}
        for left in self._staging.iterdir():
            if left.name not in whole:
                left.unlink()
        if not rejects.exists() or rejects.stat().st_size < rejects_bytes:
            raise IntegrityError(f"{rejects}: not as it was left; start afresh without --resume")
        os.truncate(rejects, rejects_bytes)
        for index, shard in enumerate(self._shards):
            if not self.path(index).exists() or describe(self.path(index), shard.file) != shard:
                raise IntegrityError(f"{self.path(index)}: not as it was left; start afresh without --resume")
        return True

    def _move_in(self) -> Manifest:
        """Moves what is whole to its final names; begun and not ended, it can be done again."""
        made = manifests.load(self._staging / self._manifest_file)
        with files.directory_lock(self._folder, wait=True):
            there = splits(self._folder)
            if self._split in there:  # another process may have finished one in between
                raise InputError(f"{there[self._split]}: split {self._split} is already there")
            self._check_charset()
            described = tfds.contents(self._name, [*map(manifests.load, there.values()), made])
            ours = {shard.file for shard in made.shards}
            for left in self._folder.glob(f"{self._stem}.tfrecord-*"):  # by a run that was killed while it moved them
                if left.name not in ours:
                    left.unlink()
            pairs = [(f"{index:05d}", shard.file) for index, shard in enumerate(made.shards)]
            for name, content in described.items():
                files.write_json(self._staging / name, content)
            beside = (self._rejects_file, "charset.txt", *described, self._manifest_file)
            for staging, final in [*pairs, *((name, name) for name in beside)]:
                if (self._staging / staging).exists():
                    (self._staging / staging).rename(self._folder / final)
        files.sync_folder(self._folder)
        self.manifest = made
        return made
