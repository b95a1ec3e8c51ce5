"""A picture of lines with what was read of each beside it."""

import io
import pathlib
import sys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ocr.charset import describe
from ocr.render import Font
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


def draw(path: pathlib.Path, rows: Sequence[tuple[str, str, str]], font: str = "") -> None:
    """Draws one row a line: the image, its text and a note.

    Args:
      path: PNG file to write.
      rows: image file, text, note. A file that is no image leaves its place empty.
      font: of the texts, a TrueType or OpenType file; Pillow's own, which has Latin letters alone, where none is given.
    """
    drawn_with = opened(font)
    if lacking := "".join(sorted({c for _, text, _ in rows for c in text if not drawn_with.has(c)})):
        print(f"{path}: its font lacks {describe(lacking)}; name another with --picture_font", file=sys.stderr)
    large = drawn_with.at(20)
    small = ImageFont.load_default(13)
    sheet = Image.new("RGB", (2 * _WIDTH, _ROW * len(rows) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (file, text, note) in enumerate(rows):
        top = _GAP // 2 + index * _ROW
        middle = top + _ROW // 2
        try:
            content = io.BytesIO(files.read_at_most(file, _MOST))
            line = Image.open(content, formats=("PNG", "JPEG", "GIF", "BMP")).convert("RGB")
            line.thumbnail((_WIDTH - 2 * _GAP, _LINE))
            sheet.paste(line, (_GAP, middle - line.height // 2))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            draw.text((_GAP, middle), "no image", _BAD, small, "lm")
        draw.text((_WIDTH, middle), text, _INK, large, "lm")
        draw.text((2 * _WIDTH - _GAP, middle), note, _FAINT, small, "rm")
        if index:
            draw.line((_GAP, top, 2 * _WIDTH - _GAP, top), "#e0e0e0")
    picture = io.BytesIO()
    sheet.save(picture, "PNG")
    files.write_bytes(path, picture.getvalue())
