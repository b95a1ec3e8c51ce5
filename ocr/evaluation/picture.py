"""A picture of lines with what was read of each beside it."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ocr.synthesis.fonts import Font
from tfrecords import files
from tfrecords.errors import InputError

_MOST = 20_000_000  # bytes of an image
_ROW, _LINE, _GAP, _WIDTH = 48, 32, 16, 420  # pixels
_INK, _FAINT, _PAPER, _BAD = "#1a1a1a", "#808080", "#ffffff", "#b00020"


def opened(font: str) -> Font:
    """Opens a font file, or Pillow's own font where none is given.

    Raises:
      InputError: it is no font.
    """
    try:
        return Font(font)
    except (OSError, ValueError) as error:
        raise InputError(f"--picture_font={font}: cannot be read as a font ({error})") from error


def line_of(file: str) -> Image.Image | None:
    """Returns the image in a file, or None where there is none."""
    try:
        content = io.BytesIO(files.read_at_most(file, _MOST))
        return Image.open(content, formats=("PNG", "JPEG", "GIF", "BMP")).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def draw(rows: Sequence[tuple[Image.Image | None, str, str]], font: str = "") -> bytes:
    """Draws one row a line: the image, its text and a note.

    Args:
      rows: image, text, note; without an image its place stays empty.
      font: of the texts, a TrueType or OpenType file; Pillow's own, which has Latin letters alone, where none is given.

    Returns:
      A PNG file.
    """
    drawn_with = opened(font)
    large, small = drawn_with.at(20), drawn_with.at(13)
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


def lacking(texts: Sequence[str], font: str = "") -> str:
    """Returns the characters that a font has no picture of, each once."""
    drawn_with = opened(font)
    return "".join(sorted({c for text in texts for c in text if not drawn_with.has(c)}))
