"""Labels files: one line an image, `name id id ...` or `name<TAB>text`, both taken as they are or rejected with a reason."""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Iterator

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


class Reject(Exception):
    """A line that is left out, with one of REASONS and what exactly is wrong."""

    def __init__(self, reason: str, detail: str, name: str = ""):
        super().__init__(reason, detail)
        self.reason, self.detail, self.name = reason, detail, name


@dataclasses.dataclass(frozen=True)
class Line:
    number: int  # in its file, from 1
    content: bytes


def read(path: pathlib.Path) -> Iterator[Line]:
    """Yields the lines of a labels file; they end at a line feed alone."""
    with open(path, "rb") as file:
        for number, content in enumerate(file, 1):
            content = content.removesuffix(b"\n").removesuffix(b"\r")
            yield Line(number, content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content)


def survey(path: pathlib.Path, label_format: str) -> tuple[int, str]:
    """Returns how many lines a labels file has, and its format, decided once where `label_format` is `auto`.

    Raises:
      InputError: no such file, or there is nothing in it.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file, and it is read twice; save the labels to a file")
    try:
        first, count = b"", 0
        for line in read(path):
            count += 1
            first = first or line.content
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not first:
        raise InputError(f"{path}: has no labels in it")
    if label_format == "auto":
        label_format = TEXT if b"\t" in first else IDS
    return count, label_format


def parse(line: Line, label_format: str, charset: Charset) -> tuple[str, str]:
    """Returns a line's image name and text.

    Raises:
      Reject: `bad_line`, `empty_label`, `id_out_of_range` or `not_in_charset`.
    """
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
        name, *ids = content.split() or [""]
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


def repeats(text: str) -> int:
    """Returns how many characters equal the one before: CTC needs a blank frame between such two."""
    return sum(a == b for a, b in itertools.pairwise(text))
