"""Labels files: one line per image, `name id id ...` or `name<TAB>text`. Text is never normalised or guessed at."""

import functools
import hashlib
import logging
import pathlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from ocr.charset import Charset, strip_blanks
from ocr.data import label_format as label_formats
from ocr.data import line_index
from ocr.data.label_format import IDS, TEXT
from ocr.data.line_index import Chunk, LabelsIndex, Line
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
    "no_text",
    "bad_polygon",
    "dropped",
)
_LOG = logging.getLogger(__name__)
MAX_LINE_BYTES = 2**20


class Reject(Exception):
    """A line that cannot be packed; `reason` is one of REASONS, and `detail` says what exactly is wrong."""

    def __init__(self, reason: str, detail: str, name: str = ""):
        super().__init__(reason, detail)
        self.reason, self.detail, self.name = reason, detail, name


def index(
    path: pathlib.Path, label_format: str, images: pathlib.Path, charset: Charset, integers_are_ids: bool = False
) -> LabelsIndex:
    """Indexes a labels file, and logs what is remarkable about it.

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
    odd: Counter[str] = Counter()

    def lines() -> Iterator[Line]:
        odd.clear()
        for line in read(path, whole):
            if label_format == TEXT:
                odd.update(oddities(line.content.partition(b"\t")[2]))
            yield line

    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole = everything(path)
        if not any(line.content for line in read(path, whole)):
            raise InputError(f"{path}: has no labels in it")
        if label_format == "auto":
            contents = ((line.number, line.content) for line in read(path, whole))
            label_format = label_formats.choose(path, contents, charset, integers_are_ids)
        name_of = functools.partial(_name, label_format=label_format)
        built = line_index.build(path, str(path), label_format, digest, images, lines, name_of)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    warn_of_oddities(str(path), odd)
    return built


def everything(path: pathlib.Path) -> Chunk:
    """Returns the chunk of all lines of a file; an empty line at its end does not count."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 3, 0))
        tail = file.read()
    return Chunk(1, 0, size - (2 if tail == b"\n\r\n" else tail.endswith(b"\n\n")))


def warn_of_oddities(title: str, odd: Counter[str]) -> None:
    """Logs how many texts of a source are odd, and in which way."""
    for oddity, number in odd.items():
        _LOG.warning("%s: %d %s", title, number, oddity)


def read(path: pathlib.Path, chunk: Chunk) -> Iterator[Line]:
    """Yields the lines of a chunk of a labels file, which end at line feeds alone.

    Of a line that is too long only the beginning is returned, one byte more than is allowed.
    """
    number, position, end = chunk.first, chunk.offset, chunk.offset + chunk.bytes
    with open(path, "rb") as file:
        file.seek(position)
        while position < end and (part := file.readline(MAX_LINE_BYTES + 2)):
            content, position = part, position + len(part)
            while not part.endswith(b"\n") and (part := file.readline(MAX_LINE_BYTES)):
                position += len(part)
            content = content.removesuffix(b"\n").removesuffix(b"\r")
            yield Line(number, content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content, position)
            number += 1


def _name(content: bytes, label_format: str) -> bytes:
    """Returns the image name that a line begins with; may be empty."""
    if label_format == TEXT:
        return content.partition(b"\t")[0]
    return next(iter(content.split(None, 1)), b"")


def oddities(encoded: bytes) -> Iterator[str]:
    """Yields what is odd about a text in UTF-8, though it is packed as it is."""
    if encoded.isascii() and encoded == encoded.strip():
        return
    text = encoded.decode("utf-8", "replace")
    if text != strip_blanks(text):
        yield "texts begin or end with a blank, which is part of the label"
    if not unicodedata.is_normalized("NFC", text):
        yield "texts are not composed (NFC), and stay so: a letter and its accent are two characters"


def parse(line: Line, label_format: str, charset: Charset) -> tuple[str, str]:
    """Returns a line's image name and text, which may have characters that the alphabet lacks: see `check_text`.

    Raises:
      Reject: `bad_line`, `empty_label` or `id_out_of_range`.
    """
    if len(line.content) > MAX_LINE_BYTES:
        raise Reject("bad_line", f"longer than {MAX_LINE_BYTES} bytes")
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
    return name, text


def check_text(text: str, charset: Charset) -> None:
    """Checks the text of a line.

    Raises:
      Reject: `empty_label` or `not_in_charset`.
    """
    if not text:
        raise Reject("empty_label", "no text")
    if lacking := charset.missing(text):
        raise Reject("not_in_charset", charset.describe_missing(text) + _hint(text, lacking))


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
