"""Image files read with Pillow: at conversion those that TensorFlow cannot decode, and all where there is no TensorFlow."""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ocr.images import header

# What damaged files raise, between all of Pillow's readers.
_ERRORS = (
    *(OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError),
    *(MemoryError, RuntimeError, NotImplementedError, AssertionError, struct.error, zlib.error),
)
_FORMATS = ("TIFF", "WEBP", "BMP", "JPEG2000", "PPM")  # as Pillow names them


class DamagedError(ValueError):
    """A file that cannot be decoded."""


class TooLargeError(ValueError):
    """An image that is too large to be decoded; the message is its size in pixels."""


def to_png(encoded: bytes) -> bytes:
    """Re-encodes a file of one of `header.PILLOW_FORMATS` as PNG, as it is shown: upright, of 8 bits, without a palette.

    Of several images in the file the first is taken.

    Raises:
      DamagedError: it is damaged, or of another format.
      TooLargeError: it has more than `header.MAX_PIXELS`.
    """
    out = io.BytesIO()
    decode(encoded, _FORMATS, header.MAX_PIXELS).save(out, "PNG")
    return out.getvalue()


def grey(encoded: bytes, max_pixels: int) -> Image.Image:
    """Decodes the image file of a page to grey, upright; what is transparent is white.

    Raises:
      DamagedError: it is damaged, or of a format that is not read.
      TooLargeError: it has more than `max_pixels`.
    """
    image = decode(encoded, (*_FORMATS, "PNG", "JPEG", "GIF"), max_pixels)
    if image.mode in ("LA", "RGBA"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("L")


def decode(encoded: bytes, formats: tuple[str, ...], max_pixels: int) -> Image.Image:
    """Decodes an image file, upright, to mode L, LA, RGB or RGBA.

    Raises:
      DamagedError: it is damaged, or of none of these formats, which are named as in Pillow.
      TooLargeError: it has more than `max_pixels`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            with Image.open(io.BytesIO(encoded), formats=formats) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise TooLargeError(f"{width}x{height} pixels")
                return _eight_bits(ImageOps.exif_transpose(image))
    except TooLargeError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError("more pixels than Pillow decodes") from error
    except UnidentifiedImageError as error:
        raise DamagedError("damaged, or of a kind that is not read") from error
    except _ERRORS as error:
        raise DamagedError((str(error) or type(error).__name__).splitlines()[0]) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns an image in mode L, LA, RGB or RGBA."""
    if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise DamagedError("pixels of floating-point numbers")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")
