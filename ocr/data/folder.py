"""The folder of the images: reads the files in it, and nothing outside it, whatever names and symbolic links say."""

import errno
import os
import pathlib
import stat

from ocr.data.labels import Reject
from ocr.data.line_index import MAX_PATH_BYTES
from ocr.data.spelling import Spelling
from ocr.images import header as headers
from tfrecords.errors import InputError

_MAX_OPEN_FOLDERS = 64


class _OutsideError(Exception):
    """A path leads out of the folder of the images."""


class Folder:
    """Reads regular files inside a folder, and nothing outside it, whatever names and symbolic links say.

    Args:
      path: of the folder.
      follow_links: whether links and absolute paths may lead outside nevertheless.
    """

    def __init__(self, path: str, follow_links: bool):
        self._opened: dict[str, int] = {}
        self._follow_links = follow_links
        self._path, self._real = path, os.path.realpath(path)
        self._spelling = Spelling(self._real, follow_links)

    def __del__(self) -> None:
        self._close()

    def read(self, name: str, max_bytes: int = headers.MAX_BYTES) -> bytes:
        """Returns a file's bytes.

        Raises:
          Reject: `outside_images`, `missing_file` or `too_large`.
        """
        descriptor = self.open(name)
        try:
            size = os.fstat(descriptor).st_size
            if size > max_bytes:
                raise Reject("too_large", f"at most {max_bytes} bytes are read")
            return os.read(descriptor, size)
        except OSError as error:
            raise Reject("missing_file", error.strerror or "") from error
        finally:
            os.close(descriptor)

    def open(self, name: str) -> int:
        """Opens a file that is a regular one, and returns its descriptor, which the caller closes.

        Raises:
          Reject: `outside_images` or `missing_file`.
        """
        if len(name.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
            raise Reject("missing_file", os.strerror(errno.ENAMETOOLONG))
        try:
            descriptor = self._file(name)
        except _OutsideError as error:
            hint = self._spelling.hint(name) or ("" if _leads_up(name) else "; --follow_links reads it")
            raise Reject("outside_images", f"{name} is not in {self._path}{hint}") from error
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or str(error)
            if isinstance(error, FileNotFoundError) and pathlib.Path(self._path, name).is_symlink():
                detail = "a link to a file that is not there"
            raise Reject("missing_file", detail + self._spelling.hint(name)) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Reject("missing_file", "not a regular file")
        return descriptor

    def names(self) -> list[str]:
        """Returns the paths in it of all files, sorted; hidden files and folders do not count.

        Links to folders are followed only with `follow_links`, each folder once.

        Raises:
          InputError: a folder cannot be listed.
        """
        found, listed = [], set()

        def refuse(error: OSError) -> None:
            raise InputError(f"{error.filename}: {error.strerror}")

        for inside, folders, files in os.walk(self._path, onerror=refuse, followlinks=self._follow_links):
            listed.add(os.path.realpath(inside))
            folders[:] = [
                name
                for name in sorted(folders)
                if not name.startswith(".") and os.path.realpath(pathlib.Path(inside, name)) not in listed
            ]
            relative = os.path.relpath(inside, self._path)
            found += [os.path.normpath(f"{relative}/{name}") for name in files if not name.startswith(".")]
        return sorted(found)

    def explain_swapped(self, name: str, text: str) -> str:
        """Says that a line may be `text<TAB>name`, if what should be the text names a file and the name none."""
        if not (found := self._spelling.find(text, with_extension=True)) or self._spelling.find(name, with_extension=True):
            return ""
        return f"; {found!r} is a file: are the columns swapped? Write name<TAB>text"

    def _file(self, name: str) -> int:
        """Opens a file; returns its descriptor."""
        # A device or fifo could block. A link's target is checked before the link is followed.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
        inside, slash, base = name.rpartition("/")
        if ".." in name and ".." in name.split("/"):
            return os.open(self._inside(name), flags)
        try:
            return os.open(base, flags, dir_fd=self._open(inside or slash))
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        return os.open(self._inside(name), flags)

    def _open(self, inside: str) -> int:
        """Opens a folder inside the folder, and keeps it open."""
        if inside not in self._opened:
            if len(self._opened) >= _MAX_OPEN_FOLDERS:
                self._close()
            self._opened[inside] = os.open(self._inside(inside), os.O_RDONLY | os.O_DIRECTORY)
        return self._opened[inside]

    def _close(self) -> None:
        for descriptor in self._opened.values():
            os.close(descriptor)
        self._opened.clear()

    def _inside(self, name: str) -> str:
        """Returns the real path of a name.

        Raises:
          _OutsideError: it is not inside the folder.
        """
        real = os.path.realpath(pathlib.Path(self._path, name))
        if self._follow_links and not _leads_up(name):
            return real
        if os.path.commonpath([real, self._real]) != self._real:
            raise _OutsideError
        return real


def _leads_up(name: str) -> bool:
    """Returns whether a name leads out of the folder by itself, through `..`."""
    return os.path.normpath(name).split("/", 1)[0] == ".."
