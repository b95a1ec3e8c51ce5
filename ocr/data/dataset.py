"""A split of records on disk: what a training, an evaluation or the doctor reads."""

import dataclasses
import hashlib
import pathlib

from ocr.charset import Charset, describe
from tfrecords import reader, schema
from tfrecords.errors import InputError
from tfrecords.manifest import Manifest


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a folder of records."""

    folder: pathlib.Path
    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        """Identifies the records, wherever they are stored."""
        digests = "".join(shard.sha256 for shard in self.manifest.shards)
        return hashlib.sha256(digests.encode("ascii")).hexdigest()

    def check_writable_with(self, charset: Charset) -> None:
        """Checks that an alphabet has every character of the texts.

        Raises:
          InputError: it lacks a character, which the message names.
        """
        if lacking := charset.missing(self.manifest.characters):
            raise InputError(f"{self.folder}: the alphabet lacks {describe(lacking)} of split {self.manifest.split}")

    def check_line_height(self, height: int) -> None:
        """Checks that a network can take lines that are stored as raw pixels; those that are stored as files are scaled.

        Raises:
          InputError: they have another height.
        """
        if self.manifest.image_format == schema.RAW and self.manifest.height != height:
            raise InputError(
                f"{self.folder}: split {self.manifest.split} has raw pixels of lines {self.manifest.height} high, the network "
                f"takes {height}: convert the images with --image_format=keep or --height={height}"
            )


def find(spec: str, prefer: str) -> Split:
    """Finds the split that a flag names.

    Args:
      spec: `DIR`, or `DIR@split`.
      prefer: the split to take if `spec` names none and the folder has several.

    Raises:
      InputError: there is no such split, or it has no lines.
      IntegrityError: a shard is missing or has another size than the manifest says.
    """
    split = Split(*reader.find(spec, prefer))
    if not split.manifest.records:
        raise InputError(f"{spec}: split {split.manifest.split} has no lines")
    return split
