"""Files appear under their final name complete or not at all, and no two processes write to one folder."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from typing import Any

from tfrecords.errors import InputError, IntegrityError

_MAX_JSON_BYTES = 2**30
_DESCRIPTORS = "/proc/self/fd"


def sync_folder(folder: pathlib.Path) -> None:
    """Makes renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: pathlib.Path) -> None:
    """Makes a file's content survive a power cut."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file atomically: if this fails, the old content is still there."""
    staging = path.with_name(f".{path.name}.partial")
    try:
        with open(staging, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file atomically; NaN and infinities are refused."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_at_most(path: pathlib.Path | str, count: int) -> bytes:
    """Reads the first `count` bytes of a regular file.

    Raises:
      OSError: it cannot be read, or is a folder, a device or a fifo, which could block forever.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.read(min(count, status.st_size))


def read_json(path: pathlib.Path, *needed: str) -> dict[str, Any]:
    """Reads an object that `write_json` wrote.

    Args:
      path: of the file.
      needed: names that the object has to have.

    Raises:
      IntegrityError: the file is missing or damaged.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} in it")

    try:
        value = json.loads(read_at_most(path, _MAX_JSON_BYTES).decode("utf-8"), parse_constant=refuse)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        if missing := [name for name in needed if name not in value]:
            raise ValueError(f"no {', '.join(missing)}")
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{path}: damaged ({error})") from error
    return value


def escape_cell(text: str) -> str:
    """Escapes the characters of a text that do not print, so that it fits in one cell of a table.

    Bytes of a file's name that are not UTF-8 (surrogates) stay as they are.
    """
    escaped = (c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def make_folder(path: pathlib.Path) -> None:
    """Makes `path` and its parents.

    Raises:
      InputError: a file of that name is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path}: not a folder, and one has to be made there") from None


@contextlib.contextmanager
def no_wildcards(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives another path of a folder, without wildcards, if its own has some.

    TensorFlow takes the name of a checkpoint, and so of a SavedModel, for a pattern when it reads it. `own_path` puts the
    folder's own path back into messages.

    Raises:
      OSError: there is no such folder.
    """
    if not set(str(folder)) & set("*?[]\\"):
        yield folder
        return
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield pathlib.Path(f"{_DESCRIPTORS}/{descriptor}")
    finally:
        os.close(descriptor)


def own_path(message: str, folder: pathlib.Path) -> str:
    """Puts a folder's own path in a message in the place of the one that `no_wildcards` gave."""
    return re.sub(f"{_DESCRIPTORS}/[0-9]+", lambda _: str(folder), message)


@contextlib.contextmanager
def directory_lock(folder: pathlib.Path, wait: bool = False) -> Iterator[None]:
    """Locks a folder against other processes that call this, until the block or the process ends.

    Raises:
      InputError: another process holds the lock, and `wait` is not set.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # removed by a process that has just finished
        raise InputError(f"{folder}: another process is writing to it") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if not folder.exists() or not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise BlockingIOError
        yield
    except BlockingIOError:
        raise InputError(f"{folder}: another process is writing to it") from None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def temporary_directory(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives an empty folder inside `folder`, locked for this process and removed after the block.

    Its name is new each time, so that children of a killed run, which may live on for a while, cannot write into it.

    Raises:
      InputError: another process holds the folder.
    """
    folder.mkdir(exist_ok=True)
    with directory_lock(folder):
        try:
            for leftover in folder.iterdir():  # of a killed run
                shutil.rmtree(leftover)
            inside = folder / secrets.token_hex(8)
            inside.mkdir()
            yield inside
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def check_free(folder: pathlib.Path) -> None:
    """Checks that a folder can be made.

    Raises:
      InputError: it exists and is not an empty folder, or has no name.
    """
    if not folder.name:
        raise InputError(f"{folder}: the folder that this was started in; name a new one")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: already there; name a new folder, or remove it first")


@contextlib.contextmanager
def atomic_directory(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a hidden folder to fill, which is renamed to `final` if the block succeeds and removed if it fails.

    Raises:
      InputError: `final` exists and is not an empty folder, or another process is making it.
    """
    check_free(final)
    make_folder(final.parent)
    with temporary_directory(final.with_name(f".{final.name}.partial")) as staging:
        check_free(final)  # another process may have made it in between
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                sync_file(path)
        if final.exists():
            final.rmdir()
        staging.rename(final)
        sync_folder(final.parent)
