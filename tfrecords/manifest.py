"""What a split holds: its shards with sizes and checksums, and counts of characters, text lengths and line widths."""

import dataclasses
import pathlib
import re
from collections import Counter
from typing import Any, get_origin

from tfrecords import files
from tfrecords.errors import InputError, IntegrityError
from tfrecords.shards import BLOCK, Shard

SUFFIX = ".manifest.json"
_COUNTS = ("characters", "lengths", "widths", "rejects", "reencoded")
_VERSION = 2
_KEYS = {"provenance": "made_of"}  # of fields that have another name in the file
_BATCH = 4096  # records that are counted at a time


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Describes one finished split of a folder of records.

    Attributes:
      name: name of the data set.
      split: `train`, `eval`, ...
      charset: fingerprint of the alphabet that the labels were checked against.
      image_format: `keep`, `png` or `raw`.
      pixels_per_frame: every line fits a network whose frames are this wide, in pixels of scaled width.
      shards: the shards, in order.
      rejects: how many lines were rejected, by reason.
      characters: how often each character occurs in the texts.
      lengths: how many lines have each length, in characters.
      widths: how many lines have each scaled width, in pixels.
      provenance: the inputs and settings that determine the records, by name; `made_of` in the file.
      dummy: for dummy data the parameters it was drawn with, else None.
      height: of the lines in pixels, if their image format is `raw`.
      reencoded: how many images were in a format that TensorFlow does not decode, and were re-encoded as PNG, by format.
    """

    name: str
    split: str
    charset: str
    image_format: str
    pixels_per_frame: int
    shards: tuple[Shard, ...]
    rejects: dict[str, int]
    characters: dict[str, int]
    lengths: dict[int, int]
    widths: dict[int, int]
    provenance: dict[str, str | int]
    dummy: dict[str, int] | None = None
    height: int = 32
    reencoded: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def records(self) -> int:
        """Number of records in all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def file(self) -> str:
        """Name of the manifest's file."""
        return f"{self.name}-{self.split}{SUFFIX}"

    @property
    def summary(self) -> dict[str, Any]:
        """Counts of `records`, `rejects` and `shards`; `reasons`: the rejects by reason; `reencoded`, if any were."""
        counts = {"records": self.records, "rejects": sum(self.rejects.values()), "shards": len(self.shards)}
        return {**counts, "reasons": self.rejects, **({"reencoded": self.reencoded} if self.reencoded else {})}

    def write(self, folder: pathlib.Path) -> None:
        """Writes the manifest's file."""
        fields = {_KEYS.get(name, name): value for name, value in dataclasses.asdict(self).items()}
        files.write_json(folder / self.file, {"version": _VERSION, **fields})


class Tally:
    """Counts characters, lengths, widths, rejects and re-encoded images for a manifest, record by record."""

    def __init__(self) -> None:
        self.rejects: Counter[str] = Counter()
        self.reencoded: Counter[str] = Counter()
        self._characters: Counter[str] = Counter()
        self._lengths: Counter[int] = Counter()
        self._widths: Counter[int] = Counter()
        self._texts: list[str] = []  # not yet counted: counting many at a time is faster
        self._scaled_widths: list[int] = []

    def add(self, text: str, scaled_width: int, reencoded_from: str = "") -> None:
        """Counts one record; the width is in pixels, and `reencoded_from` the format that Pillow re-encoded, if it did."""
        if reencoded_from:
            self.reencoded[reencoded_from] += 1
        self._texts.append(text)
        self._scaled_widths.append(scaled_width)
        if len(self._texts) == _BATCH:
            self._count()

    @property
    def lines(self) -> int:
        """Number of records and rejects together."""
        self._count()
        return sum(self._lengths.values()) + sum(self.rejects.values())

    def fields(self) -> dict[str, dict[Any, int]]:
        """Returns the manifest's fields of counts, in a fixed order."""
        self._count()
        counts: tuple[Counter[Any], ...] = (self._characters, self._lengths, self._widths, self.rejects, self.reencoded)
        return {key: dict(sorted(count.items())) for key, count in zip(_COUNTS, counts, strict=True)}

    def add_fields(self, counts: dict[str, Any]) -> None:
        """Adds the `fields` of another tally, which may have been through JSON, where keys are text."""
        self._characters.update(counts["characters"])
        self._lengths.update({int(length): count for length, count in counts["lengths"].items()})
        self._widths.update({int(width): count for width, count in counts["widths"].items()})
        self.rejects.update(counts["rejects"])
        self.reencoded.update(counts.get("reencoded", {}))  # lacking in what an earlier version interrupted

    def _count(self) -> None:
        self._characters.update("".join(self._texts))
        self._lengths.update(map(len, self._texts))
        self._widths.update(self._scaled_widths)
        self._texts, self._scaled_widths = [], []


def load(path: pathlib.Path) -> Manifest:
    """Reads a manifest.

    Raises:
      IntegrityError: it is damaged, or of another version.
    """
    try:
        fields: dict[str, Any] = files.read_json(path)
        if fields.pop("version") != _VERSION:
            raise ValueError("another version's manifest")
        shards = tuple(read_shard(shard) for shard in fields.pop("shards"))
        lengths, widths = ({int(key): value for key, value in fields.pop(name).items()} for name in ("lengths", "widths"))
        renamed = {name: fields.pop(key) for name, key in _KEYS.items()}
        manifest = Manifest(shards=shards, lengths=lengths, widths=widths, **renamed, **fields)
        _check_types(manifest)
        if not re.fullmatch(r"\w+", manifest.name + manifest.split, re.ASCII):
            raise ValueError(f"named {manifest.name!r} {manifest.split!r}")
        for shard in shards:
            if not re.fullmatch(rf"{manifest.name}-{manifest.split}\.tfrecord-\d+-of-\d+", shard.file, re.ASCII):
                raise ValueError(f"a shard named {shard.file!r}")
        if len({shard.file for shard in shards}) < len(shards):
            raise ValueError("a shard twice")
        if manifest.dummy is not None and not {"num_classes", "max_label_length"} <= manifest.dummy.keys():
            raise ValueError(f"dummy is {manifest.dummy}")
        for name in ("lengths", "widths"):
            if min(getattr(manifest, name), default=1) < 1:
                raise ValueError(f"{name} of 0")
            if (counted := sum(getattr(manifest, name).values())) != manifest.records:
                raise ValueError(f"{manifest.records} records, and {name} of {counted}")
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path}: damaged manifest ({error})") from error


def read_shard(fields: dict[str, Any]) -> Shard:
    """Returns the shard that a JSON object describes.

    Raises:
      ValueError: a value is out of range or inconsistent.
      TypeError: a field is missing or unknown.
    """
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    shard = Shard(**values)
    _check_types(shard)
    if not re.fullmatch("[0-9a-f]{64}", shard.sha256):
        raise ValueError(f"a sha256 {shard.sha256!r:.80}")
    if not len(shard.offsets) == len(shard.checks) == -(-shard.records // BLOCK):
        raise ValueError(f"{shard.records} records in {len(shard.offsets)} blocks")
    return shard


def _check_types(described: Shard | Manifest) -> None:
    """Raises ValueError if a field is not of its type, or a count is negative."""
    for field in dataclasses.fields(described):
        value = getattr(described, field.name)
        counts: list[Any] = [value] if isinstance(value, int) else []
        if (isinstance(value, dict) and field.name != "provenance") or (
            isinstance(value, tuple) and isinstance(described, Shard)
        ):
            counts = list(value.values()) if isinstance(value, dict) else list(value)
        expected: Any = (dict, type(None)) if field.name == "dummy" else get_origin(field.type) or field.type
        if not isinstance(value, expected) or not all(type(count) is int and 0 <= count < 2**62 for count in counts):
            raise ValueError(f"{field.name} is {value!r:.40}")


def splits(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the paths of the manifests in a folder, by split.

    Raises:
      InputError: there is no such folder, or two data sets in it have the same split.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths: dict[str, pathlib.Path] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        match = re.fullmatch(r"\w+-(\w+)", path.name.removesuffix(SUFFIX))
        if match is None:
            continue
        if match[1] in paths:
            raise InputError(f"{path}: split {match[1]} is also in {paths[match[1]].name}; keep one data set per folder")
        paths[match[1]] = path
    return paths
