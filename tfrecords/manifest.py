"""What a split holds: its shards with sizes and checksums, and how often each character, length and width occurs."""

import dataclasses
import pathlib
import re
from collections import Counter
from typing import Any, get_origin

from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

_SUFFIX = ".manifest.json"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Shard:
    file: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Describes one finished split of a folder of records.

    Attributes:
      name: of the data set.
      split: `train`, `eval`, ...
      charset: fingerprint of the alphabet that the labels were checked with.
      image_format: `keep`, `png` or `raw`.
      pixels_per_frame: every line fits a model whose frames are this wide (pixels of scaled width).
      shards: in order.
      rejects: how many lines were rejected, by reason.
      characters: how often each character occurs in the texts.
      lengths: how many lines have each length, in characters.
      widths: how many lines have each scaled width, in pixels.
      dummy: None, or how the random images and labels were drawn.
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
    dummy: dict[str, int] | None = None

    @property
    def records(self) -> int:
        return sum(shard.records for shard in self.shards)

    @property
    def file(self) -> str:
        """Its own name in its folder."""
        return f"{self.name}-{self.split}{_SUFFIX}"

    def write(self, folder: pathlib.Path) -> None:
        files.write_json(folder / self.file, {"version": _VERSION, **dataclasses.asdict(self)})


class Tally:
    """Counts what the manifest tells of the records, while they pass."""

    def __init__(self) -> None:
        self.characters: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.widths: Counter[int] = Counter()
        self.rejects: Counter[str] = Counter()

    def add(self, text: str, scaled_width: int) -> None:
        self.characters.update(text)
        self.lengths[len(text)] += 1
        self.widths[scaled_width] += 1

    def fields(self) -> dict[str, dict]:
        """Returns the manifest's four fields of counts, in a fixed order."""
        return {key: dict(sorted(getattr(self, key).items())) for key in ("characters", "lengths", "widths", "rejects")}


def load(path: pathlib.Path) -> Manifest:
    """Reads a manifest.

    Raises:
      IntegrityError: it is not one that this version writes.
    """

    try:
        fields: dict[str, Any] = files.read_json(path)
        if fields.pop("version") != _VERSION:
            raise ValueError("another version's manifest")
        shards = tuple(Shard(**shard) for shard in fields.pop("shards"))
        lengths, widths = ({int(key): value for key, value in fields.pop(name).items()} for name in ("lengths", "widths"))
        manifest = Manifest(shards=shards, lengths=lengths, widths=widths, **fields)
        _check_types(manifest)
        if not re.fullmatch(r"\w+", manifest.name + manifest.split, re.ASCII):
            raise ValueError(f"named {manifest.name!r} {manifest.split!r}")
        for shard in shards:
            _check_types(shard)
            if not re.fullmatch(rf"{manifest.name}-{manifest.split}\.tfrecord-\d+-of-\d+", shard.file, re.ASCII):
                raise ValueError(f"a shard named {shard.file!r}")
            if not re.fullmatch("[0-9a-f]{64}", shard.sha256):
                raise ValueError(f"a sha256 {shard.sha256!r:.80}")
        if len({shard.file for shard in shards}) < len(shards):
            raise ValueError("a shard twice")
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path}: damaged manifest ({error})") from error


def _check_types(described: Shard | Manifest) -> None:
    """Raises ValueError where a field is not of its type, or a count below 0."""
    for field in dataclasses.fields(described):
        value = getattr(described, field.name)
        counts = list(value.values()) if isinstance(value, dict) else [value] if isinstance(value, int) else []
        wanted: Any = (dict, type(None)) if field.name == "dummy" else get_origin(field.type) or field.type
        if not isinstance(value, wanted) or not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"{field.name} is {value!r:.40}")


def splits(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the manifests in a folder, by split.

    Raises:
      InputError: there is no such folder, or two data sets in it have the same split.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        match = re.fullmatch(r"\w+-(\w+)", path.name.removesuffix(_SUFFIX))
        if match is None:
            continue
        if match[1] in found:
            raise InputError(f"{path}: split {match[1]} is also in {found[match[1]].name}; keep one data set a folder")
        found[match[1]] = path
    return found
