"""Entries: the lines of text that a source has, in whatever format, written to a file that the converter reads as labels.

The file has a JSON array in each line. It is read by chunks, in several processes, as a labels file is.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from ocr.data import labels, line_index
from ocr.data.labels import Reject
from ocr.data.line_index import Chunk, LabelsIndex, Line

ENTRIES = "entries"  # the label format


class Entry(NamedTuple):
    """A line of text that a source has.

    Attributes:
      number: of the entry in its source; numbers rise from 1.
      name: of the image, relative to the folder of the images; of an image that is part of a file, a name made up for it.
      text: of the line.
      location: where the image is, in JSON types: the name of a kind and what its reader needs; empty for the file `name`.
      reason: why the entry is rejected, one of `labels.REASONS`; empty if nothing is known against it.
      detail: of the reason.
      group: entries of one group belong to one split; empty for an entry of its own.
    """

    number: int
    name: str
    text: str = ""
    location: tuple[Any, ...] = ()
    reason: str = ""
    detail: str = ""
    group: str = ""


def rejected(number: int, name: str, reject: Reject, group: str = "") -> Entry:
    """Returns an entry that is known to be unusable."""
    return Entry(number, reject.name or name, "", (), reject.reason, reject.detail, group)


def line(entry: Entry) -> bytes:
    """Returns the line of the file that holds an entry."""
    try:
        for text in (entry.name, entry.text):
            text.encode("utf-8")
    except UnicodeEncodeError:
        name = entry.name.encode("utf-8", "backslashreplace").decode("utf-8")
        entry = Entry(entry.number, name, reason="bad_line", detail="its name or its text is not UTF-8")
    written = json.dumps(entry[:6], separators=(",", ":")).encode("ascii") + b"\n"
    if len(written) <= labels.MAX_LINE_BYTES:
        return written
    return line(Entry(entry.number, entry.name[:40], reason="bad_line", detail=f"longer than {labels.MAX_LINE_BYTES} bytes"))


def read(path: pathlib.Path) -> Iterator[Line]:
    """Yields the lines of a file of entries."""
    return labels.read(path, Chunk(1, 0, path.stat().st_size))


def parse(content: bytes) -> Entry:
    """Returns the entry that a line of such a file holds."""
    return Entry(*json.loads(content))


def _name(content: bytes) -> bytes:
    return parse(content).name.encode("utf-8")


def index(path: pathlib.Path, images: pathlib.Path, title: str, source: str) -> LabelsIndex:
    """Indexes a file of entries, which has at least one entry, and logs what is remarkable about its texts.

    Args:
      path: of the file.
      images: the folder of the images.
      title: what messages call the source.
      source: its name.
    """
    odd: Counter[str] = Counter()

    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    built = line_index.build(path, title, ENTRIES, digest, images, lambda: read(path), _name)
    for line in read(path):
        odd.update(labels.oddities(parse(line.content).text.encode("utf-8")))
    labels.warn_of_oddities(title, odd)
    return dataclasses.replace(built, source=source)
