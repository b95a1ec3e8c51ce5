"""From an image file to a line without TensorFlow: does with NumPy and Pillow what `preprocess` does in the graph."""

import numpy as np
from PIL import Image

from ocr.images import header, pillow_formats

READ, UNDECODABLE, TOO_LARGE, NO_CONTRAST = 0, 1, 2, 3  # statuses
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SQUARINGS = 6  # of the covariance of colours: its 64th power has hardly more than its first axis
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
    values = image.astype(np.float32)
    opacity = values[:, :, -1] / 255 if channels % 2 == 0 else np.ones_like(values[:, :, 0])
    grey = values[:, :, 0] if channels < 3 else _to_grey(values[:, :, :3], opacity)
    if channels % 2 == 0:
        grey = _lay_on_ground(grey, opacity)
    if height != line_height:
        target = max((2 * width * line_height + height) // (2 * height), 1)
        grey = np.asarray(Image.fromarray(grey).resize((target, line_height), Image.Resampling.BILINEAR))
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)


def _to_grey(colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Returns an image float32[H, W, 3] in grey float32[H, W], as the function of the same name in `preprocess` does."""
    weight = opacity[:, :, np.newaxis]
    mean = (colour * weight).sum(0).sum(0) / np.maximum(weight.sum(0).sum(0), np.float32(1e-6))
    centred = colour - mean
    spread = np.tensordot(centred * weight, centred, ((0, 1), (0, 1)))
    for _ in range(SQUARINGS):
        spread = spread / max(np.trace(spread), np.float32(1e-30))
        spread = spread @ spread
    axis = spread @ np.array(LUMA, np.float32)
    axis = axis / max(np.abs(axis).sum(), np.float32(1e-30))
    return (centred @ axis + mean @ np.array(LUMA, np.float32)).astype(np.float32)


def _lay_on_ground(grey: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Lays an image float32[H, W] on white, or on black, as the function of the same name in `preprocess` does."""
    visible = max(float(opacity.sum()), 1e-6)
    mean = float((grey * opacity).sum()) / visible
    deviation = (float(((grey - mean) ** 2 * opacity).sum()) / visible) ** 0.5
    is_page = opacity.mean() >= PAGE_OPACITY and deviation >= PAGE_DEVIATION
    ground = np.float32(0 if mean > MID_GREY and not is_page else 255)
    return ground + (grey - ground) * opacity
