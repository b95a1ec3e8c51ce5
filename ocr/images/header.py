"""What an image file's first bytes say, for those that cannot wait for TensorFlow; the graph's own reading is in `headers`."""

import struct
from typing import NamedTuple

from tfrecords.schema import JPEG, PNG

HEIGHT = 32  # pixels, of every line the network sees
MAX_BYTES = 20_000_000  # of an encoded image
MAX_PIXELS = 40_000_000  # of a decoded one
MAX_WIDTH = 8_000  # pixels, once the line is 32 high
OTHER = ""
_PNG, _JPEG, _OTHERS = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"GIF8", b"BM")
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
_ALONE = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without a length
_SIZED = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # that begin a frame


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
      kind: `png`, `jpeg`, or empty for the others that TensorFlow reads, whose size is not looked at here.
      height: in pixels; 0 where the header is damaged.
      width: the same.
      channels: of the decoded image, 0 where the header alone does not tell.
    """

    kind: str
    height: int
    width: int
    channels: int


def read(encoded: bytes) -> Header | None:
    """Reads the header of an image file; None for a file of no kind that is read at all."""
    if encoded.startswith(_PNG):
        return _png(encoded)
    if encoded.startswith(_JPEG):
        return Header(JPEG, *_jpeg(encoded))
    return Header(OTHER, 0, 0, 0) if encoded.startswith(_OTHERS) else None


def scaled_width(height: int, width: int) -> int:
    """Returns the width in pixels of a line scaled to a height of 32, rounded, at least 1."""
    return max((2 * width * HEIGHT + height) // (2 * height), 1)


def is_too_large(height: int, width: int) -> bool:
    """Says whether an image of this size is beyond what is decoded."""
    return height * width > MAX_PIXELS or width * HEIGHT > MAX_WIDTH * height


def _png(encoded: bytes) -> Header:
    if len(encoded) < 26 or encoded[12:16] != b"IHDR":
        return Header(PNG, 0, 0, 0)
    width, height, _, colour = struct.unpack_from(">IIBB", encoded, 16)
    clear = encoded.find(b"tRNS", 26, encoded.find(b"IDAT", 26)) >= 0  # makes a channel more
    return Header(PNG, height, width, 0 if clear else _PNG_CHANNELS.get(colour, 0))


def _jpeg(encoded: bytes) -> tuple[int, int, int]:
    """Looks for the frame's header (ITU-T T.81, B.2.2): height, width, number of components."""
    place, size = 2, len(encoded)
    while place + 9 < size:
        if encoded[place] != 0xFF:
            place += 1  # garbage between segments is passed over, as libjpeg does
            continue
        marker = encoded[place + 1]
        if marker in _SIZED:
            height, width, components = struct.unpack_from(">HHB", encoded, place + 5)
            return height, width, components if components in (1, 3) else 0  # of four some decoders make three
        if marker == 0xDA:  # the image itself
            break
        place += (
            1
            if marker == 0xFF
            else 2
            if marker in _ALONE or marker == 0
            else 2 + int.from_bytes(encoded[place + 2 : place + 4])
        )
    return 0, 0, 0
