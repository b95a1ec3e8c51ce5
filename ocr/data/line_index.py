"""An index of a file of lines: where they are, and which of them name the same image."""

import array
import dataclasses
import functools
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

_CHUNK_LINES, _MAX_CHUNK_BYTES = 256, 2**22
MAX_PATH_BYTES = 4096  # that the system takes; a longer one would only take time


class Line(NamedTuple):
    """A line of a file.

    Attributes:
      number: of the line, from 1.
      content: the line's bytes without its end.
      end: where the next line begins, in bytes.
    """

    number: int
    content: bytes
    end: int = 0


class Chunk(NamedTuple):
    """Consecutive lines of a file.

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
    """Facts about a whole file of lines that are needed before its lines are parsed.

    Attributes:
      path: of the file.
      title: what messages call it.
      count: number of lines.
      label_format: `ids` or `text` of a labels file; `entries` of what another source was read into.
      sha256: of the file.
      chunks: all lines, in order.
      repeated: the names of images that occur more than once, each with the image's own name: `a/./b.png` and `a/b.png` are
        one image.
      source: what was read into entries; empty for a labels file.
    """

    path: pathlib.Path
    title: str
    count: int
    label_format: str
    sha256: str
    chunks: tuple[Chunk, ...]
    repeated: Mapping[str, str]
    source: str = ""


def build(
    path: pathlib.Path,
    title: str,
    label_format: str,
    sha256: str,
    images: pathlib.Path,
    read: Callable[[], Iterable[Line]],
    name_of: Callable[[bytes], bytes],
) -> LabelsIndex:
    """Indexes a file of lines, which takes eight bytes of memory a line.

    Args:
      path: of the file.
      title: what messages call it.
      label_format: see `LabelsIndex`.
      sha256: of the file.
      images: the folder of the images.
      read: reads all lines, at least one; called a second time if names may be repeated.
      name_of: returns the name of the image, which may be empty, from the content of a line.
    """
    hashes = array.array("q")
    chunks: list[Chunk] = []
    own_name = _OwnNames(images)
    begin = end = count = before = 0
    for line in read():
        if count - before == _CHUNK_LINES or end - begin > _MAX_CHUNK_BYTES:
            chunks.append(Chunk(before + 1, begin, end - begin))
            begin, before = end, count
        count, end = count + 1, line.end
        hashes.append(hash(own_name(name_of(line.content))))
    chunks.append(Chunk(before + 1, begin, end - begin))
    suspects = _repeated_values(np.frombuffer(hashes, np.int64))
    names: dict[bytes, set[bytes]] = {}
    times: Counter[bytes] = Counter()
    for line in read() if suspects else ():
        name = name_of(line.content)
        if hash(own := own_name(name)) in suspects:
            names.setdefault(own, set()).add(name)
            times[own] += 1
    repeated = {
        name.decode("utf-8", "replace"): own.decode("utf-8", "replace")
        for own, spellings in names.items()
        for name in spellings
        if times[own] > 1
    }
    return LabelsIndex(path, title, count, label_format, sha256, tuple(chunks), repeated)


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
