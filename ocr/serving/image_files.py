"""The image files that a command line names: files, folders, and standard input."""

import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

from ocr.images import header
from tfrecords import files

STDIN = "-"
# TIFF and WebP are not read, but reported rather than passed over.
_EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp")


def read(arguments: Iterable[str], follow_links: bool = False) -> Iterator[tuple[str, bytes, str]]:
    """Yields for each image its name, its encoded file, and why the file could not be read, or "".

    Args:
      arguments: files; folders, of which the image files are read, those in their folders too, in the order of their names; or
        STDIN for an image on standard input. An image in a folder is named by its path, which begins with the argument.
      follow_links: whether links in a folder may lead out of it.
    """
    for argument in arguments:
        if argument == STDIN:
            yield (argument, *_read_stdin())
        elif os.path.isdir(argument):  # noqa: PTH112  # pathlib's fails in folders that must not be searched
            yield from _read_folder(argument, follow_links)
        else:
            yield (argument, *read_file(argument))


def read_file(path: str) -> tuple[bytes, str]:
    """Returns a file's bytes and "", or b"" and why it could not be read."""
    try:
        return files.read_at_most(path, header.MAX_BYTES + 1), ""  # the byte too many makes it `too large`
    except (OSError, ValueError) as error:
        return b"", _reason(error)


def _read_stdin() -> tuple[bytes, str]:
    try:
        content = sys.stdin.buffer.read(header.MAX_BYTES + 1) if sys.stdin else b""
    except OSError as error:
        return b"", _reason(error)
    return content, "" if content else "standard input is empty"


def _read_folder(folder: str, follow_links: bool) -> Iterator[tuple[str, bytes, str]]:
    found = _list(folder, follow_links)
    if not found:
        yield folder, b"", f"no image in it (no file that ends in {', '.join(_EXTENSIONS)})"
    for path, reason in sorted(found):
        yield (path, b"", reason) if reason else (path, *read_file(path))


def _list(folder: str, follow_links: bool) -> list[tuple[str, str]]:
    """Lists the image files in a folder and those in it, each folder once, however links lead to it.

    Hidden files and folders do not count.

    Returns:
      The path of each file, and why it must not be read, or ""; and those of folders that cannot be listed.
    """
    real = os.path.realpath(folder)
    found: list[tuple[str, str]] = []
    listed: set[tuple[int, int]] = set()
    pending = [folder]
    links: list[str] = []  # to folders; they come last: an image is named by a path without them, if there is one
    while pending or links:
        inside = pending.pop() if pending else links.pop(0)
        try:
            status = pathlib.Path(inside).stat()
            if (status.st_dev, status.st_ino) in listed:
                continue
            listed.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(inside), key=lambda entry: entry.name)
        except OSError as error:
            found.append((inside, _reason(error)))
            continue
        for entry in entries:
            is_link, is_folder = entry.is_symlink(), os.path.isdir(entry)  # noqa: PTH112  # a loop of links is none
            if entry.name.startswith(".") or not (is_folder or entry.name.lower().endswith(_EXTENSIONS)):
                continue
            if is_link and not follow_links and not pathlib.Path(os.path.realpath(entry)).is_relative_to(real):
                found.append((entry.path, f"a link out of {folder}; --follow_links reads it"))
            elif is_folder:
                (links if is_link else pending).append(entry.path)
            else:
                found.append((entry.path, ""))
    return found


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
