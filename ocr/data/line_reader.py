"""Reads lines of a labels file and the images they name, without TensorFlow, so that worker processes start at once."""

import pathlib
from typing import NamedTuple

from ocr import charset as charsets
from ocr.data import entries, labels
from ocr.data.convert_config import ConvertConfig
from ocr.data.entries import ENTRIES, Entry
from ocr.data.folder import Folder
from ocr.data.labels import Reject
from ocr.data.line_index import Chunk, Line
from ocr.data.sources.images import Images
from ocr.images import exif, pillow_formats
from ocr.images import header as headers
from tfrecords.schema import Record

# A line that is ready to be written: its number from 1, the image's name, the serialized record, the text, the scaled width in
# pixels, and the format that Pillow re-encoded or "". A plain tuple, since many of them are sent between processes.
EncodedRow = tuple[int, str, bytes, str, int, str]
NOT_AN_IMAGE = "not a PNG, JPEG, GIF, BMP, TIFF, WebP, JPEG 2000 or PNM"


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
      reencoded_from: the format of the file that Pillow re-encoded; empty if it is as it was.
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
    reencoded_from: str = ""

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the image before it is turned."""
        is_sideways = self.orientation in exif.SIDEWAYS
        return (self.width, self.height, self.channels) if is_sideways else (self.height, self.width, self.channels)

    @property
    def encoded_row(self) -> EncodedRow:
        """The line with its file unchanged; the file must be a PNG or JPEG whose header is right."""
        _, name, text, encoded, kind, height, width, channels, orientation, reencoded_from = self
        record = Record(encoded, kind, height, width, channels, text, name, orientation=orientation)
        return self.number, name, record.serialize(), text, headers.scaled_width(height, width), reencoded_from


class Rejected(NamedTuple):
    """A line that is skipped: its number from 1, the image's name if it is known, and why."""

    number: int
    name: str
    reason: str
    detail: str


class LineReader:
    """Reads lines into a PendingImage or a Rejected each; into an EncodedRow if the image need not be decoded.

    Args:
      config: of the conversion.
      path: of the file of the lines: labels, or entries.
      label_format: `ids`, `text` or `entries`.
    """

    def __init__(self, config: ConvertConfig, path: pathlib.Path, label_format: str):
        self._path, self._label_format, self._charset = path, label_format, charsets.charset_by_name(config.charset)
        self._pixels_per_frame = config.pixels_per_frame
        self._keep_undecoded = config.image_format == "keep" and config.check == "header"
        self._folder = Folder(config.images, config.follow_links)
        self._images = Images(self._folder)

    def read(self, chunk: Chunk) -> list[EncodedRow | PendingImage | Rejected]:
        """Reads a chunk of the file of the lines, and the images it names."""
        return [self.read_line(line) for line in labels.read(self._path, chunk)]

    def read_line(self, line: Line) -> EncodedRow | PendingImage | Rejected:
        """Reads one line and the image it names."""
        number, name = line.number, ""
        try:
            if self._label_format == ENTRIES:
                entry = entries.parse(line.content)
                number, name, text = entry[:3]
                if entry.reason:
                    raise Reject(entry.reason, entry.detail)
            else:
                name, text = labels.parse(line, self._label_format, self._charset)
                entry = Entry(number, name, text)
            labels.check_text(text, self._charset)
            return self._read_image(entry)
        except Reject as reject:
            detail = reject.detail + self._explain_swapped(line)
            return Rejected(number, reject.name or name, reject.reason, detail)

    def _read_image(self, entry: Entry) -> EncodedRow | PendingImage:
        encoded, reencoded_from = self._images.read(entry), ""
        header = headers.read(encoded)
        if header is None or header.kind == headers.OTHER:
            foreign = headers.foreign_format(encoded)
            if foreign in headers.PILLOW_FORMATS:
                encoded, reencoded_from = _to_png(encoded, foreign), foreign
                header = headers.read(encoded)
            elif header is None:
                raise Reject("undecodable", (f"{foreign}, " if foreign else "") + NOT_AN_IMAGE if encoded else "no bytes in it")
        assert header
        if header.kind != headers.OTHER:
            check_size(header.kind, header.height, header.width)
            check_length(entry.text, header.height, header.width, self._pixels_per_frame)
        image = PendingImage(entry.number, entry.name, entry.text, encoded, *header, reencoded_from=reencoded_from)
        return image.encoded_row if self._keep_undecoded and header.channels else image

    def _explain_swapped(self, line: Line) -> str:
        """Says that a line may have its name and its text swapped, if it seems so."""
        if self._label_format == ENTRIES:
            entry = entries.parse(line.content)
            return "" if entry.location else self._folder.explain_swapped(entry.name, entry.text)
        name, _, text = line.content.decode("utf-8", "replace").partition("\t")
        return self._folder.explain_swapped(name, text) if self._label_format == labels.TEXT else ""


def _to_png(encoded: bytes, foreign: str) -> bytes:
    """Re-encodes a file that TensorFlow does not decode.

    Raises:
      Reject: `undecodable` or `too_large`.
    """
    try:
        return pillow_formats.to_png(encoded)
    except pillow_formats.TooLargeError as error:
        raise Reject("too_large", str(error)) from error
    except pillow_formats.DamagedError as error:
        raise Reject("undecodable", f"{foreign} that cannot be decoded: {error}") from error


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


_line_reader: LineReader | None = None  # of a worker process


def prepare(config: ConvertConfig, path: pathlib.Path, label_format: str) -> None:
    """Prepares a worker process for `read`; see LineReader."""
    global _line_reader
    _line_reader = LineReader(config, path, label_format)


def read(chunk: Chunk) -> list[EncodedRow | PendingImage | Rejected]:
    """Reads a chunk of the file of the lines, in a worker process that was prepared."""
    assert _line_reader is not None
    return _line_reader.read(chunk)
