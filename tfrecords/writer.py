"""Writes the shards of a split to a staging folder, and publishes them once all are complete."""

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
from tfrecords.shards import FRAMING_BYTES, Shard, describe

SHARD_BYTES = 128 * 2**20  # of a shard, about
_PROGRESS = "progress.json"  # lists the finished shards


class SplitWriter:
    """Takes records and rejects in order, and counts them; used as a context manager.

    If the block ends before `finish`, its finished shards stay in a hidden staging folder. A later writer with `resume`
    continues after them; one without removes them.

    Args:
      folder: folder of the split, made if it does not exist.
      name: name of the data set.
      split: name of this part of it.
      charset_txt: text of the alphabet's file, which all splits of a folder share.
      num_shards: number of shards to spread `positions` over, or 0 for a new shard every 128 MiB.
      positions: number of positions that `add` may be given.
      provenance: the inputs and settings that determine the records, by name; `resume` requires the same.
      resume: whether to continue an interrupted run after its last finished shard, and accept a split that is finished.

    Attributes:
      manifest: manifest of the split once it is finished, else None.
      position: position of the first record that is still missing; 0 unless resumed.
      tally: counts of what was added.
      caller_state: strings that the caller needs back on `resume`.
      first_reject: first row that was added to the file of rejects.

    Raises:
      InputError: the folder already holds the split, or splits of another alphabet; another process is writing the split; or
        the interrupted run had another provenance.
      IntegrityError: the files of the interrupted run have changed since.
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
        self.caller_state: list[str] = []
        self.first_reject = ""
        self._check_free()
        self._exit_stack = contextlib.ExitStack()
        self._shards: list[Shard] = []
        self._writer: tf.io.TFRecordWriter | None = None
        self._bytes = 0

    def __enter__(self) -> "SplitWriter":
        with contextlib.ExitStack() as stack:
            if not self.manifest:
                self._staging.mkdir(exist_ok=True)
            if self._staging.exists():
                stack.enter_context(files.directory_lock(self._staging))
            if self._resume and not self.manifest and (self._staging / self._manifest_file).exists():
                self._check_provenance(manifests.load(self._staging / self._manifest_file).provenance)
                self._publish()
            if not self.manifest:
                if not (self._resume and self._load_progress()):
                    for leftover in self._staging.iterdir():  # of an interrupted run
                        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
                self._rejects = open(self._staging / self._rejects_file, "a", encoding="utf-8", newline="\n")
                stack.callback(self._rejects.close)
            self._exit_stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._exit_stack:
            if self._writer is not None:
                self._writer.close()
            if self.manifest or not (self._staging / _PROGRESS).exists():
                shutil.rmtree(self._staging, ignore_errors=True)

    def _check_free(self) -> None:
        if path := splits(self._folder).get(self._split):
            if not self._resume or path.name != self._manifest_file:
                raise InputError(f"{path}: split {self._split} is already there; choose another --split or --output")
            self.manifest = manifests.load(path)
            self._check_provenance(self.manifest.provenance)
        self._check_charset()

    def _check_charset(self) -> None:
        charset = self._folder / "charset.txt"
        if charset.exists() and charset.read_bytes() != self._charset_txt.encode("utf-8"):
            raise InputError(f"{charset}: another alphabet than the one given; use another --output")

    def _check_provenance(self, saved: Mapping[str, Any]) -> None:
        differences = [
            f"{key}: saved {saved.get(key)}, given {given}"
            for key, given in {**dict.fromkeys(saved), **self._provenance}.items()
            if saved.get(key) != given
        ]
        if differences:
            raise InputError(
                f"--resume: {self._folder}: split {self._split} was made with other settings: {'; '.join(differences)}"
            )

    def add(self, serialized: bytes, position: int, text: str, width: int, reencoded_from: str = "") -> None:
        """Appends one record.

        Args:
          serialized: the record.
          position: position of the record, which counts up from 0 and skips rejected lines.
          text: text of the line, for the tally.
          width: scaled width in pixels, for the tally.
          reencoded_from: format that the image was re-encoded from, for the tally; empty if it was not.
        """
        if self._num_shards:
            target = position * self._num_shards // self._positions
            while self._current < target:
                self._next_shard(position)
        elif self._bytes and self._bytes + len(serialized) > SHARD_BYTES:
            self._next_shard(position)
        if self._writer is None:
            self._writer = tf.io.TFRecordWriter(str(self.path(self._current)))
        self._writer.write(serialized)
        self._bytes += len(serialized) + FRAMING_BYTES
        self.tally.add(text, width, reencoded_from)

    def reject(self, row: str, reason: str) -> None:
        """Appends a row, which ends with a line feed, to the file of rejects."""
        self._rejects.write(row)
        self.first_reject = self.first_reject or row
        self.tally.rejects[reason] += 1

    def adopt(self, shard: Shard, counts: dict[str, Any], rejects: list[str]) -> None:
        """Adds a finished shard that another process wrote to `path(index)`.

        Args:
          shard: the next shard in order.
          counts: counts of its records and rejects, as `Tally.fields` returns them.
          rejects: rows of the file of rejects, each of which ends with a line feed.
        """
        self._shards.append(shard)
        self.tally.add_fields(counts)
        self._rejects.writelines(rejects)
        self.first_reject = self.first_reject or "".join(rejects[:1])

    def finish(self, **fields: Any) -> Manifest:
        """Publishes the split, the manifest last: a split without one is unfinished.

        Args:
          **fields: fields of the manifest, except name, split, shards, provenance and counts.

        Returns:
          The manifest, as written.
        """
        if not self._num_shards or self._current < self._num_shards:
            while self._current + 1 < self._num_shards:
                self._next_shard(self._positions)
            self._close_shard()
        self._rejects.close()
        files.sync_file(self._staging / self._rejects_file)
        files.write_text(self._staging / "charset.txt", self._charset_txt)
        count = len(self._shards)
        renamed = tuple(
            dataclasses.replace(shard, file=f"{self._stem}.tfrecord-{index:05d}-of-{count:05d}")
            for index, shard in enumerate(self._shards)
        )
        fields |= self.tally.fields()
        fields |= {"name": self._name, "split": self._split, "provenance": self._provenance}
        Manifest(shards=renamed, **fields).write(self._staging)
        return self._publish()

    @property
    def _current(self) -> int:
        """Index of the shard that is being written."""
        return len(self._shards)

    def path(self, index: int) -> pathlib.Path:
        """Returns where a shard is written, before it gets its final name."""
        return self._staging / f"{index:05d}"

    def _close_shard(self) -> None:
        path = self.path(self._current)
        if self._writer is None:
            path.touch()  # no record fell into this shard
        else:
            self._writer.close()
            self._writer = None
        files.sync_file(path)
        self._shards.append(describe(path, path.name))
        self._bytes = 0

    def _next_shard(self, position: int) -> None:
        """Closes a shard, and saves what it takes to resume from `position`."""
        self._close_shard()
        self._rejects.flush()
        os.fsync(self._rejects.fileno())
        state = {
            "made_of": self._provenance,
            "position": position,
            "rejects_bytes": self._rejects.tell(),
            "shards": [dataclasses.asdict(shard) for shard in self._shards],
            "counts": self.tally.fields(),
            "kept": self.caller_state,
        }
        files.write_json(self._staging / _PROGRESS, state)

    def _load_progress(self) -> bool:
        """Restores the state of an interrupted run; returns whether there is one."""
        path = self._staging / _PROGRESS
        if not path.exists():
            return False
        try:
            state = files.read_json(path)
            provenance, counts = dict(state["made_of"]), state["counts"]
            self.position, self.caller_state = int(state["position"]), list(state["kept"])
            shards = [manifests.read_shard(shard) for shard in state["shards"]]
            rejects_bytes = int(state["rejects_bytes"])
            self.tally.add_fields(counts)
            if self.tally.lines != self.position or not shards:
                raise ValueError(f"{self.tally.lines} lines, and position {self.position}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{path}: damaged ({error!r:.200}); start over without --resume") from error
        self._check_provenance(provenance)
        self._shards = shards
        rejects = self._staging / self._rejects_file
        complete = {self.path(index).name for index in range(self._current)} | {path.name, rejects.name}
        for leftover in self._staging.iterdir():
            if leftover.name not in complete:
                leftover.unlink()
        if not rejects.exists() or rejects.stat().st_size < rejects_bytes:
            raise IntegrityError(f"{rejects}: changed since the interrupted run; start over without --resume")
        os.truncate(rejects, rejects_bytes)
        for index, shard in enumerate(self._shards):
            if not self.path(index).exists() or describe(self.path(index), shard.file) != shard:
                raise IntegrityError(f"{self.path(index)}: changed since the interrupted run; start over without --resume")
        return True

    def _publish(self) -> Manifest:
        """Moves the complete files to their final names; if interrupted, it can be repeated."""
        manifest = manifests.load(self._staging / self._manifest_file)
        with files.directory_lock(self._folder, wait=True):
            existing = splits(self._folder)
            if self._split in existing:  # another process may have finished it in between
                raise InputError(f"{existing[self._split]}: split {self._split} is already there")
            self._check_charset()
            tfds_files = tfds.contents(self._name, [*map(manifests.load, existing.values()), manifest])
            shard_files = [shard.file for shard in manifest.shards]
            for path in self._folder.glob(f"{self._stem}.tfrecord-*"):  # of a run that was killed while it published
                if path.name not in shard_files:
                    path.unlink()
            for name, content in tfds_files.items():
                files.write_json(self._staging / name, content)
            moves = [(f"{index:05d}", file) for index, file in enumerate(shard_files)]
            moves += [(name, name) for name in (self._rejects_file, "charset.txt", *tfds_files, self._manifest_file)]
            for staged, final in moves:
                if (self._staging / staged).exists():
                    (self._staging / staged).rename(self._folder / final)
        files.sync_folder(self._folder)
        self.manifest = manifest
        return manifest
