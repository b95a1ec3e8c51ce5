"""Labels files: one line an image, `name id id ...` or `name<TAB>text`, both taken as they are or rejected with a reason."""

import array
import dataclasses
import hashlib
import pathlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ocr.charset import Charset, describe
from tfrecords.errors import InputError

REASONS = (
    "bad_line",
    "missing_file",
    "outside_images",
    "undecodable",
    "too_large",
    "empty_label",
    "id_out_of_range",
    "not_in_charset",
    "too_long",
    "duplicate_name",
)
IDS, TEXT = "ids", "text"
_MOST_OF_LINE = 2**20  # bytes
_PIECE, _MOST_OF_PIECE = 256, 2**22  # lines, bytes


class Reject(Exception):
    """A line that is left out, with one of REASONS and what exactly is wrong."""

    def __init__(self, reason: str, detail: str, name: str = ""):
        super().__init__(reason, detail)
        self.reason, self.detail, self.name = reason, detail, name


class Line(NamedTuple):
    """A line of a labels file: its number from 1, its bytes without their end, and where the next one begins."""

    number: int
    content: bytes
    end: int = 0


class Piece(NamedTuple):
    """Some lines of a labels file that follow each other: number of the first from 1, where they begin, how many bytes."""

    first: int
    offset: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a labels file is, before its lines are looked at one by one.

    Attributes:
      count: of its lines.
      label_format: `ids` or `text`.
      sha256: of the file.
      pieces: all of it, in order.
      repeated: the names that come more than once.
    """

    count: int
    label_format: str
    sha256: str
    pieces: tuple[Piece, ...]
    repeated: frozenset[str]


def survey(path: pathlib.Path, label_format: str) -> Survey:
    """Looks through a labels file; the format is decided once, where `label_format` is `auto`.

    Eight bytes a line are kept in memory meanwhile.

    Raises:
      InputError: no such file, or there is nothing in it.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file, and it is read twice; save the labels to a file")
    hashes = array.array("q")
    pieces: list[Piece] = []
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            whole = Piece(1, 0, file.tell())
            first = next((line.content for line in read(path, whole) if line.content), b"")
            if label_format == "auto":
                label_format = TEXT if b"\t" in first else IDS
        begin = end = count = before = 0
        for line in read(path, whole):
            if count - before == _PIECE or end - begin > _MOST_OF_PIECE:
                pieces.append(Piece(before + 1, begin, end - begin))
                begin, before = end, count
            count, end = count + 1, line.end
            hashes.append(hash(_name(line.content, label_format)))
        pieces.append(Piece(before + 1, begin, end - begin))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not first:
        raise InputError(f"{path}: has no labels in it")
    again = _twice(np.frombuffer(hashes, np.int64))
    names = Counter(name for line in read(path, whole) if again and hash(name := _name(line.content, label_format)) in again)
    repeated = frozenset(name.decode("utf-8", "replace") for name, times in names.items() if times > 1)
    return Survey(count, label_format, digest, tuple(pieces), repeated)


def read(path: pathlib.Path, piece: Piece) -> Iterator[Line]:
    """Yields the lines of a piece of a labels file; they end at a line feed alone. Of one that is too long only the beginning
    is kept, a byte more than is allowed."""
    number, place, end = piece.first, piece.offset, piece.offset + piece.bytes
    with open(path, "rb") as file:
        file.seek(place)
        while place < end and (content := file.readline(_MOST_OF_LINE + 2)):
            kept, place = content, place + len(content)
            while not content.endswith(b"\n") and (content := file.readline(_MOST_OF_LINE)):
                place += len(content)
            kept = kept.removesuffix(b"\n").removesuffix(b"\r")
            yield Line(number, kept.removeprefix(b"\xef\xbb\xbf") if number == 1 else kept, place)
            number += 1


def _name(content: bytes, label_format: str) -> bytes:
    """Returns the name that a line begins with, if it does."""
    if label_format == TEXT:
        return content.partition(b"\t")[0]
    return next(iter(content.split(None, 1)), b"")


def _twice(hashes: np.ndarray) -> set[int]:
    """Returns those that are there more than once."""
    in_order = np.sort(hashes)
    return set(in_order[1:][in_order[1:] == in_order[:-1]].tolist())


def parse(line: Line, label_format: str, charset: Charset) -> tuple[str, str]:
    """Returns a line's image name and text.

    Raises:
      Reject: `bad_line`, `empty_label`, `id_out_of_range` or `not_in_charset`.
    """
    if len(line.content) > _MOST_OF_LINE:
        raise Reject("bad_line", f"longer than {_MOST_OF_LINE} bytes")
    try:
        content = line.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Reject("bad_line", f"not UTF-8 at byte {error.start}") from error
    if not content:
        raise Reject("bad_line", "empty")
    if label_format == TEXT:
        name, tab, text = content.partition("\t")
        if not tab:
            raise Reject("bad_line", f"no tab in {content[:40]!r}")
        ids = []
    else:
        name, *ids = [part.decode("utf-8") for part in line.content.split()] or [""]
        text = ""
    if not name or "\0" in name:
        raise Reject("bad_line", f"no file can be named {name!r}", name)
    if label_format == IDS:
        text = "".join(_character(token, name, charset) for token in ids)
    if not text:
        raise Reject("empty_label", "no text", name)
    if lacking := charset.missing(text):
        raise Reject("not_in_charset", describe(lacking), name)
    return name, text


def _character(token: str, name: str, charset: Charset) -> str:
    """Returns the character of an id, which counts from 1."""
    if not re.fullmatch("-?[0-9]+", token):
        raise Reject("bad_line", f"{token[:40]!r} is no id", name)
    if len(token) > 18 or not 1 <= int(token) < charset.num_classes:
        raise Reject("id_out_of_range", f"{token[:40]}; ids are 1 to {charset.num_classes - 1}", name)
    return charset.characters[int(token) - 1]
