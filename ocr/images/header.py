"""Image headers in plain Python, which needs no TensorFlow: kind, size and limits. `header_graph` reads them in the graph."""

import struct
from typing import Any, NamedTuple

from ocr.images import exif
from tfrecords.schema import JPEG, PNG

SCALED_HEIGHT = 32  # pixels: "scaled width" is the width of a line once it is so high, whatever height a network takes
MAX_BYTES = 20_000_000  # of an encoded image
MAX_PIXELS = 40_000_000  # of a decoded image
MAX_SCALED_WIDTH = 8_000  # pixels
PNG_MAGIC, JPEG_MAGIC, GIF_MAGIC, BMP_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM"
OTHER = ""  # kind of an image that is neither PNG nor JPEG
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
# Other formats by their first bytes. Conversion reads those in PILLOW_FORMATS with Pillow; training and serving read none.
_FOREIGN = {
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "PNM": tuple(b"P%d" % number + end for number in range(1, 7) for end in (b"\n", b" ", b"\r", b"\t")),
    "PDF": (b"%PDF-",),
    "SVG": (b"<svg", b"<?xml"),
}
PILLOW_FORMATS = ("TIFF", "WebP", "BMP", "JPEG 2000", "PNM")
_FRAME_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers of a header with the image's size
_END_OF_JPEG = b"\xff\xd9"


class Header(NamedTuple):
    """The header of an image file.

    Attributes:
      kind: `png`, `jpeg`, or OTHER for GIF and BMP, whose size is not read here.
      height: in pixels, of the image as it is shown; 0 if the file is damaged, as far as its header tells.
      width: likewise.
      channels: number of channels of the decoded image; 0 if the header does not determine it.
      orientation: how to turn the decoded image to show it, 1 to 8: see `exif`.
    """

    kind: str
    height: int
    width: int
    channels: int
    orientation: int = exif.UPRIGHT


def read(encoded: bytes) -> Header | None:
    """Reads the header of an image file; returns None if the file is of no supported kind."""
    if encoded.startswith(PNG_MAGIC):
        return _shown(PNG, encoded, *_png(encoded))
    if encoded.startswith(JPEG_MAGIC):
        return _shown(JPEG, encoded, *_jpeg(encoded))
    return Header(OTHER, 0, 0, 0) if encoded.startswith((GIF_MAGIC, BMP_MAGIC)) else None


def foreign_format(encoded: bytes) -> str:
    """Returns the name of the format of an image file that TensorFlow does not decode; empty if that is not known.

    BMP is one only as far as TensorFlow decodes it wrongly: with a palette of colours, with masks, or compressed.
    """
    if encoded.startswith(BMP_MAGIC):
        return "" if is_supported_bmp(encoded) else "BMP"
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return "WebP"
    if encoded[4:8] == b"ftyp":
        return "AVIF" if encoded[8:12] in (b"avif", b"avis") else "HEIC" if encoded[8:12] in (b"heic", b"heix", b"mif1") else ""
    return next((name for name, magics in _FOREIGN.items() if encoded.startswith(magics)), "")


def is_supported_bmp(encoded: bytes) -> bool:
    """Returns whether TensorFlow decodes a BMP file correctly, as `header_graph` does in the graph.

    It ignores palettes and masks, so that leaves true colour, and grey whose palette is the greys in order.
    """
    if len(encoded) < 54:
        return False
    header, bits, packing = *struct.unpack_from("<I", encoded, 14), *struct.unpack_from("<HI", encoded, 28)
    if header < 40:
        return False
    if bits == 8 and packing == 0:
        (used,) = struct.unpack_from("<I", encoded, 46)
        used = used if 0 < used <= 256 else 256
        palette = encoded[14 + header : 14 + header + 4 * used]
        return all(palette[channel::4] == bytes(range(used)) for channel in range(3))
    usual = packing == 3 and encoded[54:66] == struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)
    return (bits in (24, 32) and packing == 0) or (bits == 32 and usual)


def scaled_width(height: int, width: int) -> int:
    """Returns the width in pixels of a line scaled to a height of 32, rounded, at least 1."""
    return max((2 * width * SCALED_HEIGHT + height) // (2 * height), 1)


def max_width(line_height: int) -> int:
    """Returns how wide a line may be once it is so high; both in pixels."""
    return MAX_SCALED_WIDTH * line_height // SCALED_HEIGHT


def is_too_large(height: Any, width: Any) -> Any:
    """Returns whether an image is too large to be decoded.

    Args:
      height: in pixels, an int or an int64 tensor of any shape.
      width: in pixels, of the same type.

    Returns:
      bool, or a bool tensor of that shape.
    """
    return (height * width > MAX_PIXELS) | (width * SCALED_HEIGHT > MAX_SCALED_WIDTH * height)


def _shown(kind: str, encoded: bytes, height: int, width: int, channels: int) -> Header:
    """Returns the header of a file whose image is stored in this size."""
    orientation = exif.orientation(encoded, kind)
    if orientation in exif.SIDEWAYS:
        height, width = width, height
    return Header(kind, height, width, channels, orientation)


def _png(encoded: bytes) -> tuple[int, int, int]:
    """Returns height, width and number of channels, or zeros."""
    if len(encoded) < 26 or encoded[12:16] != b"IHDR":
        return 0, 0, 0
    width, height, _, colour = struct.unpack_from(">IIBB", encoded, 16)
    has_transparent_colour = encoded.find(b"tRNS", 26, encoded.find(b"IDAT", 26)) >= 0  # decoded as one more channel
    return height, width, 0 if has_transparent_colour else _PNG_CHANNELS.get(colour, 0)


def _jpeg(encoded: bytes) -> tuple[int, int, int]:
    """Finds the frame header (ITU-T T.81, B.2.2); returns height, width and number of components, or zeros.

    A file without an end has been cut: libjpeg would write nameless complaints to stderr before it fails.
    """
    position, size = 2, len(encoded)
    while position + 9 < size:
        if encoded[position] != 0xFF:
            position += 1  # skips garbage between segments, as libjpeg does
            continue
        marker = encoded[position + 1]
        if marker in _FRAME_MARKERS:
            if not encoded.endswith(_END_OF_JPEG) and encoded.find(_END_OF_JPEG, position) < 0:
                break
            height, width, components = struct.unpack_from(">HHB", encoded, position + 5)
            return height, width, components if components in (1, 3) else 0  # some decoders convert four to three
        if marker == exif.SCAN_MARKER:
            break
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in exif.BARE_MARKERS or marker == 0:
            position += 2
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4])
    return 0, 0, 0
