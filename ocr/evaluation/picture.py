"""A picture of lines with the text read from each beside it."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ocr.images import header
from ocr.synthesis.fonts import Font
from tfrecords import files
from tfrecords.errors import InputError

MAX_ROWS = 300  # of a picture: many programs show none that is higher than 16,384 pixels
_BATCH_SIZE = 32
_ROW, _LINE, _GAP, _WIDTH = 48, 32, 16, 420  # pixels
_INK, _FAINT, _PAPER, _BAD = "#1a1a1a", "#808080", "#ffffff", "#b00020"


def open_font(font: str) -> Font:
    """Opens a font file, or Pillow's built-in font if the name is empty.

    Raises:
      InputError: the file is not a font.
    """
    try:
        return Font(font)
    except (OSError, ValueError) as error:
        raise InputError(f"--picture_font={font}: cannot be read as a font ({error})") from error


def open_lines(paths: Sequence[str]) -> list[Image.Image | None]:
    """Returns the lines in image files as the network gets them but 32 pixels high, or None for one that cannot be read."""
    import tensorflow as tf  # which takes seconds, and drawing does not need it

    from ocr.images import preprocess

    lines: list[Image.Image | None] = []
    for start in range(0, len(paths), _BATCH_SIZE):
        encoded = tf.constant([_content(path) for path in paths[start : start + _BATCH_SIZE]])
        rows = (value.numpy() for value in preprocess.read_rows(encoded, header.SCALED_HEIGHT))
        for line, width, status, _ in zip(*rows, strict=True):
            lines.append(Image.fromarray(line[:, :width]) if status == preprocess.READ else None)
    return lines


def _content(path: str) -> bytes:
    """Returns a file's bytes, or none if it cannot be read."""
    try:
        return files.read_at_most(path, header.MAX_BYTES)
    except (OSError, ValueError):
        return b""


def draw(rows: Sequence[tuple[Image.Image | None, str, str]], font: str = "") -> bytes:
    """Draws a row for each line: its image, its text and a note; at most MAX_ROWS.

    Args:
      rows: image, text, note. "no image" is written in place of an image that is None.
      font: TrueType or OpenType file for the texts; if empty Pillow's built-in font, which has Latin letters only.

    Returns:
      A PNG file.

    Raises:
      InputError: the file is not a font.
    """
    rows, text_font = rows[:MAX_ROWS], open_font(font)
    large, small = text_font.at(20), text_font.at(13)
    sheet = Image.new("RGB", (2 * _WIDTH, _ROW * len(rows) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (image, text, note) in enumerate(rows):
        top = _GAP // 2 + index * _ROW
        middle = top + _ROW // 2
        if image:
            image.thumbnail((_WIDTH - 2 * _GAP, _LINE))
            sheet.paste(image, (_GAP, middle - image.height // 2))
        else:
            draw.text((_GAP, middle), "no image", _BAD, small, "lm")
        draw.text((_WIDTH, middle), text, _INK, large, "lm")
        draw.text((2 * _WIDTH - _GAP, middle), note, _FAINT, small, "rm")
        if index:
            draw.line((_GAP, top, 2 * _WIDTH - _GAP, top), "#e0e0e0")
    picture = io.BytesIO()
    sheet.save(picture, "PNG")
    return picture.getvalue()


def missing_glyphs(texts: Sequence[str], font: str = "") -> str:
    """Returns the characters of some texts that a font cannot draw, each once."""
    text_font = open_font(font)
    return "".join(sorted({c for text in texts for c in text if not text_font.has(c)}))
