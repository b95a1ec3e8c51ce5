"""Lists of images and texts in one file: PaddleOCR's, docTR's labels.json, and tables with a header (CSV, TSV)."""

import csv
import itertools
import json
import logging
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from ocr.charset import Charset
from ocr.data import entries, labels
from ocr.data.entries import Entry
from ocr.data.labels import Reject
from ocr.data.line_index import LabelsIndex
from tfrecords import files
from tfrecords.errors import InputError

_MAX_BYTES = 2**30  # of a JSON file, which is read as a whole
NAME_COLUMNS = ("file", "filename", "file_name", "image", "path", "image_path", "img")
TEXT_COLUMNS = ("text", "label", "transcription", "ground_truth")
_LOG = logging.getLogger(__name__)


def lines(index: LabelsIndex, charset: Charset) -> Iterator[Entry]:
    """Yields an entry for each line of a labels file, with the number of the line."""
    for line in itertools.chain.from_iterable(labels.read(index.path, chunk) for chunk in index.chunks):
        try:
            yield Entry(line.number, *labels.parse(line, index.label_format, charset))
        except Reject as reject:
            yield entries.rejected(line.number, "", reject)


def paddle(path: pathlib.Path) -> Iterator[Entry]:
    """Yields an entry for each image of lines `image<TAB>text` or `["image", "image"]<TAB>text`, numbered by images."""
    numbers = itertools.count(1)
    for line in labels.read(path, labels.everything(path)):
        encoded, tab, text = line.content.partition(b"\t")
        names = [encoded.decode("utf-8", "surrogateescape")]
        try:
            if len(line.content) > labels.MAX_LINE_BYTES:
                raise Reject("bad_line", f"line {line.number} is longer than {labels.MAX_LINE_BYTES} bytes", names[0][:40])
            if not tab:
                raise Reject("bad_line", f"no tab in line {line.number}")
            names = is_list(encoded) or names
        except Reject as reject:
            yield entries.rejected(next(numbers), names[0], reject)
            continue
        for name in names:
            yield Entry(next(numbers), name, text.decode("utf-8", "surrogateescape"), group=names[0])


def is_list(encoded: bytes) -> list[str]:
    """Returns the names in a JSON list of them; an empty list if this is none."""
    try:
        names = json.loads(encoded.decode("utf-8")) if encoded.startswith(b"[") else []
    except (ValueError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def doctr(path: pathlib.Path) -> Iterator[Entry]:
    """Yields an entry for each pair of a JSON object `{"image": "text"}`.

    Raises:
      InputError: it is no such object.
    """
    try:
        content = files.read_at_most(path, _MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InputError(f"{path}: at most {_MAX_BYTES} bytes are read")
        # Pairs, so that a name which is there twice is seen.
        pairs = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_Pairs)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(pairs, _Pairs):
        raise InputError(f'{path}: must be one object {{"image": "text", …}}')
    for number, (name, text) in enumerate(pairs, 1):
        if isinstance(text, str):
            yield Entry(number, name, text)
        else:
            yield Entry(number, name, reason="bad_line", detail="its text is not a string")


class _Pairs(list):
    """The pairs of a JSON object."""


def table(path: pathlib.Path) -> Iterator[Entry]:
    """Yields an entry for each row of a table with a header, numbered by the lines of the file.

    Fields are separated by the tabs, commas or semicolons of the header; only fields without tabs may be quoted.

    Raises:
      InputError: the header has no column for names or texts.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        separator, name_column, text_column = columns(path, file.readline())
        # A table with tabs has no quotes: they are part of the text.
        dialect: Any = {"quoting": csv.QUOTE_NONE} if separator == "\t" else {}
        rows, number = csv.reader(file, delimiter=separator, **dialect), 1
        while True:
            name = ""
            try:
                if (row := next(rows, None)) is None:
                    return
                number = max(number, rows.line_num) + 1
                if len(row) <= max(name_column, text_column):
                    raise Reject("bad_line", f"has {len(row)} of the header's columns" if row else "empty")
                name = row[name_column]
                yield Entry(number, name, row[text_column])
            except csv.Error as error:
                number = max(number, rows.line_num) + 1
                yield Entry(number, name, reason="bad_line", detail=str(error))
            except Reject as reject:
                yield entries.rejected(number, name, reject)


def columns(path: pathlib.Path, header: str) -> tuple[str, int, int]:
    """Returns the separator of a table, and its columns of names and of texts, from 0.

    Raises:
      InputError: the header lacks one of them.
    """
    for separator in ("\t", ",", ";"):
        cells = [cell.strip().strip('"') for cell in header.split(separator)]
        names = [re.sub(r"[\s-]+", "_", cell.lower()) for cell in cells]
        chosen = [next((name for name in known if name in names), "") for known in (NAME_COLUMNS, TEXT_COLUMNS)]
        if all(chosen):
            _LOG.info("%s: names are in its column %s, texts in %s", path, *chosen)
            return separator, names.index(chosen[0]), names.index(chosen[1])
    raise InputError(
        f"{path}: its first line must name a column of images ({', '.join(NAME_COLUMNS)}) and one of texts "
        f"({', '.join(TEXT_COLUMNS)}); it is {header[:60].strip()!r}"
    )
