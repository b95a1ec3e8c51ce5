"""Labels files: one line per image, `name id id ...` or `name<TAB>text`. Text is never normalised or guessed at."""

import array
import dataclasses
import functools
import hashlib
import logging
import os
import pathlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ocr.charset import Charset, strip_blanks
from ocr.data import label_format as label_formats
from ocr.data.label_format import IDS, TEXT
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
_LOG = logging.getLogger(__name__)
_MAX_LINE_BYTES = 2**20
_CHUNK_LINES, _MAX_CHUNK_BYTES = 256, 2**22
MAX_PATH_BYTES = 4096  # that the system takes; a longer one would only take time


class Reject(Exception):
    """A line that cannot be packed; `reason` is one of REASONS, and `detail` says what exactly is wrong."""

    def __init__(self, reason: str, detail: str, name: str = ""):
        super().__init__(reason, detail)
        self.reason, self.detail, self.name = reason, detail, name


class Line(NamedTuple):
    """A line of a labels file.

    Attributes:
      number: of the line, from 1.
      content: the line's bytes without its end.
      end: where the next line begins, in bytes.
    """

    number: int
    content: bytes
    end: int = 0


class Chunk(NamedTuple):
    """Consecutive lines of a labels file.

    Attributes:
      first: number of the first line, from 1.
      offset: where that line begins, in bytes.
      bytes: size of all the lines.
    """

    first: int
    offset: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class LabelsIndex:
    """Facts about a whole labels file that are needed before its lines are parsed.

    Attributes:
      count: number of lines.
      label_format: `ids` or `text`.
      sha256: of the file.
      chunks: all lines, in order.
      repeated: the names of images that occur more than once, each with the image's own name: `a/./b.png` and `a/b.png` are
        one image.
    """

    count: int
    label_format: str
    sha256: str
    chunks: tuple[Chunk, ...]
    repeated: Mapping[str, str]


def index(
    path: pathlib.Path, label_format: str, images: pathlib.Path, charset: Charset, integers_are_ids: bool = False
) -> LabelsIndex:
    """Indexes a labels file, which takes eight bytes of memory a line, and logs what is remarkable about it.

    An empty line at the end of the file does not count.

    Args:
      path: of the file.
      label_format: `ids`, `text`, or `auto`: see `label_format.choose`.
      images: the folder of the images.
      charset: the alphabet of the labels.
      integers_are_ids: whether integers are never texts, as in the data of chinese_ocr.

    Raises:
      InputError: the file does not exist, is empty, or is not a regular file; or its format is not certain.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file, and it is read twice; save the labels to a file")
    hashes = array.array("q")
    chunks: list[Chunk] = []
    own_name = _OwnNames(images)
    odd: Counter[str] = Counter()
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(max(size - 3, 0))
            tail = file.read()
            everything = Chunk(1, 0, size - (2 if tail == b"\n\r\n" else tail.endswith(b"\n\n")))
        if not any(line.content for line in read(path, everything)):
            raise InputError(f"{path}: has no labels in it")
        if label_format == "auto":
            lines = ((line.number, line.content) for line in read(path, everything))
            label_format = label_formats.choose(path, lines, charset, integers_are_ids)
        begin = end = count = before = 0
        for line in read(path, everything):
            if count - before == _CHUNK_LINES or end - begin > _MAX_CHUNK_BYTES:
                chunks.append(Chunk(before + 1, begin, end - begin))
                begin, before = end, count
            count, end = count + 1, line.end
            hashes.append(hash(own_name(_name(line.content, label_format))))
            if label_format == TEXT:
                odd.update(_oddities(line.content))
        chunks.append(Chunk(before + 1, begin, end - begin))
        suspects = _repeated_values(np.frombuffer(hashes, np.int64))
        names: dict[bytes, set[bytes]] = {}
        times: Counter[bytes] = Counter()
        for line in read(path, everything) if suspects else ():
            name = _name(line.content, label_format)
            if hash(own := own_name(name)) in suspects:
                names.setdefault(own, set()).add(name)
                times[own] += 1
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    for oddity, number in odd.items():
        _LOG.warning("%s: %d %s", path, number, oddity)
    repeated = {
        name.decode("utf-8", "replace"): own.decode("utf-8", "replace")
        for own, spellings in names.items()
        for name in spellings
        if times[own] > 1
    }
    return LabelsIndex(count, label_format, digest, tuple(chunks), repeated)


def read(path: pathlib.Path, chunk: Chunk) -> Iterator[Line]:
    """Yields the lines of a chunk of a labels file, which end at line feeds alone.

    Of a line that is too long only the beginning is returned, one byte more than is allowed.
    """
    number, position, end = chunk.first, chunk.offset, chunk.offset + chunk.bytes
    with open(path, "rb") as file:
        file.seek(position)
        while position < end and (part := file.readline(_MAX_LINE_BYTES + 2)):
            content, position = part, position + len(part)
            while not part.endswith(b"\n") and (part := file.readline(_MAX_LINE_BYTES)):
                position += len(part)
            content = content.removesuffix(b"\n").removesuffix(b"\r")
            yield Line(number, content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content, position)
            number += 1


def _name(content: bytes, label_format: str) -> bytes:
    """Returns the image name that a line begins with; may be empty."""
    if label_format == TEXT:
        return content.partition(b"\t")[0]
    return next(iter(content.split(None, 1)), b"")


def _oddities(content: bytes) -> Iterator[str]:
    """Yields what is odd about the text of a line `name<TAB>text`, though it is packed as it is."""
    encoded = content.partition(b"\t")[2]
    if encoded.isascii() and encoded == encoded.strip():
        return
    text = encoded.decode("utf-8", "replace")
    if text != strip_blanks(text):
        yield "texts begin or end with a blank, which is part of the label"
    if not unicodedata.is_normalized("NFC", text):
        yield "texts are not composed (NFC), and stay so: a letter and its accent are two characters"


class _OwnNames:
    """Gives an image one name, however the path to it is written: relative to the folder, without links to folders in it."""

    def __init__(self, images: pathlib.Path):
        self._images = pathlib.Path(os.path.realpath(images))
        self._folder = functools.lru_cache(4096)(self._real_folder)

    def __call__(self, name: bytes) -> bytes:
        if b"/" not in name or len(name) > MAX_PATH_BYTES:
            return name
        folder, _, base = name.rpartition(b"/")
        return self._folder(folder or b"/") + base

    def _real_folder(self, folder: bytes) -> bytes:
        try:
            real = os.path.realpath(self._images / os.fsdecode(folder))
        except ValueError:  # a zero byte: there is no such file
            return folder + b"/"
        return os.fsencode(f"{real}/".removeprefix(f"{self._images}/"))


def _repeated_values(hashes: np.ndarray) -> set[int]:
    """Returns the values that occur more than once."""
    ordered = np.sort(hashes)
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def parse(line: Line, label_format: str, charset: Charset) -> tuple[str, str]:
    """Returns a line's image name and text.

    Raises:
      Reject: `bad_line`, `empty_label`, `id_out_of_range` or `not_in_charset`.
    """
    if len(line.content) > _MAX_LINE_BYTES:
        raise Reject("bad_line", f"longer than {_MAX_LINE_BYTES} bytes")
    try:
        content = line.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Reject("bad_line", f"not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    if not content:
        raise Reject("bad_line", "empty")
    if label_format == TEXT:
        name, tab, text = content.partition("\t")
        if not tab:
            raise Reject("bad_line", label_formats.explain_missing_tab(content))
        ids = []
    else:
        name, *ids = [part.decode("utf-8") for part in line.content.split()] or [""]
        text = ""
    if not name or "\0" in name:
        raise Reject("bad_line", f"no file can be named {name!r}", name)
    if label_format == IDS:
        text = "".join(_character(token, name, charset) for token in ids)
    if not text:
        raise Reject("empty_label", "no text" if label_format == TEXT else "no ids", name)
    if lacking := charset.missing(text):
        raise Reject("not_in_charset", charset.describe_missing(text) + _hint(text, lacking), name)
    return name, text


def _hint(text: str, lacking: str) -> str:
    """Says what a text may be that has characters which the alphabet lacks."""
    if "\r" in lacking:
        return "; lines must end with line feeds"
    if "\t" in lacking:
        return "; the line has more than one tab"
    return "; if these are ids, give --label_format=ids" if lacking == " " and re.fullmatch("[0-9 ]+", text) else ""


def _character(token: str, name: str, charset: Charset) -> str:
    """Returns the character of an id; ids count from 1."""
    if not re.fullmatch("-?[0-9]+", token):
        raise Reject("bad_line", f"{token[:40]!r} is not an id; names with a blank, and texts, need a tab after the name", name)
    if len(token) > 18 or not 1 <= int(token) < charset.num_classes:
        raise Reject("id_out_of_range", f"{token[:40]}; ids are 1 to {charset.num_classes - 1}", name)
    return charset.characters[int(token) - 1]
