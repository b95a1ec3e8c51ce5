"""Reads lines of a labels file and the images they name, without TensorFlow, so that worker processes start at once."""

import errno
import os
import pathlib
import stat
from typing import NamedTuple

from ocr import charset as charsets
from ocr.config import ConvertConfig
from ocr.data import labels
from ocr.data.labels import Reject
from ocr.data.spelling import Spelling
from ocr.images import exif
from ocr.images import header as headers
from tfrecords.schema import Record

_MAX_OPEN_FOLDERS = 64

# A line that is ready to be written: its number from 1, the image's name, the serialized record, the text and the scaled width
# in pixels. A plain tuple, since many of them are sent between processes.
EncodedRow = tuple[int, str, bytes, str, int]


class PendingImage(NamedTuple):
    """A line with a valid label, whose image has yet to be decoded.

    Attributes:
      number: of the line, from 1.
      name: of the image.
      text: of the line.
      encoded: the image file.
      kind: from the image's header: see `header.Header`.
      height: from the image's header.
      width: from the image's header.
      channels: from the image's header.
      orientation: from the image's header.
    """

    number: int
    name: str
    text: str
    encoded: bytes
    kind: str
    height: int
    width: int
    channels: int
    orientation: int

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the image before it is turned."""
        is_sideways = self.orientation in exif.SIDEWAYS
        return (self.width, self.height, self.channels) if is_sideways else (self.height, self.width, self.channels)

    @property
    def encoded_row(self) -> EncodedRow:
        """The line with its file unchanged; the file must be a PNG or JPEG whose header is right."""
        _, name, text, encoded, kind, height, width, channels, orientation = self
        record = Record(encoded, kind, height, width, channels, text, name, orientation=orientation)
        return self.number, name, record.serialize(), text, headers.scaled_width(height, width)


class Rejected(NamedTuple):
    """A line that is skipped: its number from 1, the image's name if it is known, and why."""

    number: int
    name: str
    reason: str
    detail: str


class LineReader:
    """Reads lines into a PendingImage or a Rejected each; into an EncodedRow if the image need not be decoded."""

    def __init__(self, config: ConvertConfig, label_format: str):
        self._label_format, self._charset = label_format, charsets.charset_by_name(config.charset)
        self._labels, self._pixels_per_frame = pathlib.Path(config.labels), config.pixels_per_frame
        self._keep_undecoded = config.image_format == "keep" and config.check == "header"
        self._folder = _Folder(config.images, config.follow_links)

    def read(self, chunk: labels.Chunk) -> list[EncodedRow | PendingImage | Rejected]:
        """Reads a chunk of the labels file and the images it names."""
        return [self.read_line(line) for line in labels.read(self._labels, chunk)]

    def read_line(self, line: labels.Line) -> EncodedRow | PendingImage | Rejected:
        """Reads one line and the image it names."""
        name = ""
        try:
            name, text = labels.parse(line, self._label_format, self._charset)
            encoded = self._folder.read(name)
            header = headers.read(encoded)
            if header is None:
                raise Reject("undecodable", "not a PNG, JPEG, GIF, or BMP without palette" if encoded else "no bytes in it")
            if header.kind != headers.OTHER:
                check_size(header.kind, header.height, header.width)
                check_length(text, header.height, header.width, self._pixels_per_frame)
            image = PendingImage(line.number, name, text, encoded, *header)
            return image.encoded_row if self._keep_undecoded and header.channels else image
        except Reject as reject:
            swapped = self._folder.explain_swapped(line) if self._label_format == labels.TEXT else ""
            return Rejected(line.number, reject.name or name, reject.reason, reject.detail + swapped)


def check_size(kind: str, height: int, width: int) -> None:
    """Checks that an image may be decoded.

    Raises:
      Reject: `undecodable` or `too_large`.
    """
    if min(height, width) <= 0:
        raise Reject("undecodable", f"damaged {kind.upper() or 'image'}")
    if headers.is_too_large(height, width):
        raise Reject("too_large", f"{width}x{height} pixels")


def check_length(text: str, height: int, width: int, pixels_per_frame: int) -> None:
    """Checks that a text can be aligned with its image.

    Raises:
      Reject: `too_long`.
    """
    scaled = headers.scaled_width(height, width)
    if 2 * len(text) * pixels_per_frame <= scaled:
        return  # even if all its characters are equal
    needed = charsets.frames_needed(text)
    if needed * pixels_per_frame > scaled:
        frames = scaled / pixels_per_frame
        raise Reject("too_long", f"needs {needed} frames, {scaled} pixels of scaled width give {frames:g}")


class _OutsideError(Exception):
    """A path leads out of the folder of the images."""


class _Folder:
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

    def read(self, name: str) -> bytes:
        """Returns a file's bytes.

        Raises:
          Reject: `outside_images`, `missing_file` or `too_large`.
        """
        if len(name.encode("utf-8")) > labels.MAX_PATH_BYTES:
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
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Reject("missing_file", "not a regular file")
            if status.st_size > headers.MAX_BYTES:
                raise Reject("too_large", f"at most {headers.MAX_BYTES} bytes are read")
            return os.read(descriptor, status.st_size)
        except OSError as error:
            raise Reject("missing_file", error.strerror or "") from error
        finally:
            os.close(descriptor)

    def explain_swapped(self, line: labels.Line) -> str:
        """Says that a line may be `text<TAB>name`, if what should be the text names a file and the name none."""
        name, _, text = line.content.decode("utf-8", "replace").partition("\t")
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


_line_reader: LineReader | None = None  # of a worker process


def prepare(config: ConvertConfig, label_format: str) -> None:
    """Prepares a worker process for `read`."""
    global _line_reader
    _line_reader = LineReader(config, label_format)


def read(chunk: labels.Chunk) -> list[EncodedRow | PendingImage | Rejected]:
    """Reads a chunk of the labels file, in a worker process that was prepared."""
    assert _line_reader is not None
    return _line_reader.read(chunk)
