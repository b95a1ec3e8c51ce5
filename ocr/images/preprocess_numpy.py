"""From an image file to a line without TensorFlow: does with NumPy and Pillow what `preprocess` does in the graph."""

import numpy as np
from PIL import Image

from ocr.images import header, pillow_formats

READ, UNDECODABLE, TOO_LARGE, NO_CONTRAST = 0, 1, 2, 3  # statuses
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
MID_GREY = 127.5  # what is lighter is light ink
PAGE_OPACITY, PAGE_DEVIATION = 0.5, 20.0  # of a page with ink and clear margins, at least; the deviation in grey levels
MIN_CONTRAST = 3  # grey levels; less may come from scaling and rounding
_FORMATS = ("PNG", "JPEG", "GIF", "BMP")  # as Pillow names them


def read(encoded: bytes, line_height: int) -> tuple[np.ndarray, int]:
    """Reads an image file.

    Args:
      encoded: its contents.
      line_height: H, in pixels, that the line is scaled to.

    Returns:
      pixels uint8[H, W] and the status; of a file that was not read, no columns.
    """
    nothing = np.zeros((line_height, 0), np.uint8)
    shape = header.read(encoded)
    if shape is None or (encoded.startswith(header.BMP_MAGIC) and not header.is_supported_bmp(encoded)):
        return nothing, UNDECODABLE
    if len(encoded) > header.MAX_BYTES or header.is_too_large(shape.height, shape.width):
        return nothing, TOO_LARGE
    if shape.kind != header.OTHER and min(shape.height, shape.width) <= 0:
        return nothing, UNDECODABLE
    try:
        image = pillow_formats.decode(encoded, _FORMATS, header.MAX_PIXELS)
    except pillow_formats.TooLargeError:
        return nothing, TOO_LARGE
    except pillow_formats.DamagedError:
        return nothing, UNDECODABLE
    if header.is_too_large(image.height, image.width):
        return nothing, TOO_LARGE
    if encoded.startswith(header.GIF_MAGIC):
        image = image.convert("RGB")  # as TensorFlow does, which knows no transparency in GIF files
    line = to_line(np.atleast_3d(np.asarray(image)), line_height)
    has_contrast = int(line.max()) - int(line.min()) >= MIN_CONTRAST
    return line, READ if has_contrast else NO_CONTRAST


def to_line(image: np.ndarray, line_height: int) -> np.ndarray:
    """Turns a decoded image into a line, as `preprocess.to_line` does.

    Args:
      image: uint8[H, W, 1 to 4]: grey, grey and alpha, colour, or colour and alpha.
      line_height: in pixels.

    Returns:
      uint8[line_height, scaled width].
    """
    height, width, channels = image.shape
    grey = image[:, :, 0] if channels < 3 else image[:, :, :3] @ np.array(LUMA, np.float32)
    grey = grey.astype(np.float32)
    if channels % 2 == 0:
        grey = _lay_on_ground(grey, image[:, :, -1].astype(np.float32) / 255)
    if height != line_height:
        target = max((2 * width * line_height + height) // (2 * height), 1)
        grey = np.asarray(Image.fromarray(grey).resize((target, line_height), Image.Resampling.BILINEAR))
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)


def _lay_on_ground(grey: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Lays an image float32[H, W] on white, or on black, as the function of the same name in `preprocess` does."""
    visible = max(float(opacity.sum()), 1e-6)
    mean = float((grey * opacity).sum()) / visible
    deviation = (float(((grey - mean) ** 2 * opacity).sum()) / visible) ** 0.5
    is_page = opacity.mean() >= PAGE_OPACITY and deviation >= PAGE_DEVIATION
    ground = np.float32(0 if mean > MID_GREY and not is_page else 255)
    return ground + (grey - ground) * opacity
