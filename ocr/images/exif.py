"""Exif orientation in plain Python: how viewers turn an image to show it upright. `exif_graph` reads it in the graph."""

import struct
from collections.abc import Iterator

from tfrecords.schema import JPEG

UPRIGHT = 1  # orientation of an image that is shown as it is stored
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
MARK = b"Exif\0\0"  # the data of a JPEG begin with it
CHUNK = b"eXIf"  # of a PNG
TAG, SHORT, LONG = 0x112, 3, 4  # of the orientation, and the types it may have
MAX_PARTS = 4_000  # segments of a JPEG or chunks of a PNG that are looked at: a file may have millions
APP1_MARKER = 0xE1  # of a JPEG's segment with Exif data
SCAN_MARKER = 0xDA  # after which a JPEG's data begin
BARE_MARKERS = (0x01, *range(0xD0, 0xD9))  # JPEG markers without a length


def orientation(encoded: bytes, kind: str) -> int:
    """Returns the orientation of a PNG or JPEG file, 1 to 8; malformed Exif data count as none.

    Sources: CIPA DC-008 (Exif), 4.6; for PNG the chunk eXIf of its third edition.
    """
    if (MARK if kind == JPEG else CHUNK) not in encoded:
        return UPRIGHT
    tiff = next(_jpeg_exif(encoded) if kind == JPEG else _png_exif(encoded), b"").removeprefix(MARK)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if not order or len(tiff) < 8:
        return UPRIGHT
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    directory = tiff[start : start + 2]
    count = struct.unpack(f"{order}H", directory)[0] if len(directory) == 2 else 0
    entries = tiff[start + 2 : start + 2 + 12 * count]
    for tag, kind_of_value, values, short, rest in struct.iter_unpack(f"{order}HHIHH", entries[: len(entries) // 12 * 12]):
        if tag == TAG and values == 1 and kind_of_value in (SHORT, LONG):
            value = short if kind_of_value == SHORT else short + 65_536 * rest if order == "<" else 65_536 * short + rest
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def _jpeg_exif(encoded: bytes) -> Iterator[bytes]:
    """Yields the contents of segments with Exif data, which come before the image's own data."""
    at = 2
    for _ in range(MAX_PARTS):
        if at + 4 > len(encoded) or encoded[at] != 0xFF or encoded[at + 1] == SCAN_MARKER:
            return
        marker = encoded[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in BARE_MARKERS:
            at += 2
        else:
            end = at + 2 + int.from_bytes(encoded[at + 2 : at + 4])
            if marker == APP1_MARKER and encoded.startswith(MARK, at + 4):
                yield encoded[at + 4 : end]
            at = end


def _png_exif(encoded: bytes) -> Iterator[bytes]:
    """Yields the contents of chunks with Exif data, which may come after the image's own data."""
    at = 8
    for _ in range(MAX_PARTS):
        kind = encoded[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        length = int.from_bytes(encoded[at : at + 4])
        if kind == CHUNK:
            yield encoded[at + 8 : at + 8 + length]
        at += 12 + length
