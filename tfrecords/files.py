"""Write aside, fsync, rename: nothing half-written ever stands under a final name."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from tfrecords.errors import InputError


def sync_folder(folder: pathlib.Path) -> None:
    """Makes renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: pathlib.Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a whole file, or leaves what stood there."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: pathlib.Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: pathlib.Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def make_folder(path: pathlib.Path) -> None:
    """Makes `path` and its parents.

    Raises:
      InputError: something that is no folder stands in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path}: not a folder, and one has to be made there") from None


@contextlib.contextmanager
def folder_aside(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a hidden folder to fill; it is renamed to `final` when the block ends well, and removed when it does not.

    Raises:
      InputError: `final` exists and is not an empty folder.
    """
    if not final.name:
        raise InputError(f"{final}: the folder that this was started in; name a new one")
    if final.exists() and not (final.is_dir() and not any(final.iterdir())):
        raise InputError(f"{final}: already there; name a new folder, or remove it first")
    make_folder(final.parent)
    aside = final.with_name(f".{final.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # what a killed run left
    aside.mkdir()
    try:
        yield aside
        for path in aside.rglob("*"):
            if path.is_file():
                sync_file(path)
        if final.exists():
            final.rmdir()
        aside.rename(final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(final.parent)
