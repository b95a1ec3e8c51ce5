"""Fonts: the glyphs of a font file, and which characters it has."""

import functools
import glob
import os
import pathlib
import unicodedata
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ocr.options import parse_weighted
from tfrecords.errors import InputError

_BUILT_IN = ""  # instead of a path: the font that comes with Pillow
_MIDDLE = 0.38  # height above the baseline, in em, of the middle of a square that holds a hanzi
_UNASSIGNED = "\U0010ffff"  # a font draws every character that it lacks like this one
_ADVANCE_SIZE = 1000  # em in pixels at which advances are measured
_PROBE_SIZE = 12  # em in pixels at which characters are compared with the unassigned one
_CACHED_GLYPHS = 250_000  # of all fonts


class Glyph(NamedTuple):
    """The image of a character.

    Attributes:
      ink: uint8[h, w], 255 where there is ink; the bounding box of the character.
      left: x coordinate of the box relative to the pen, in pixels.
      top: y coordinate of the box relative to the baseline, in pixels downwards; usually negative.
    """

    ink: np.ndarray
    left: int
    top: int


class Font:
    """A font at any size.

    Args:
      path: path of the font file, or "" for Pillow's built-in font.
      index: index of the font in a collection.
      weight: relative frequency with which it is chosen.

    Raises:
      OSError, ValueError: the file is not a valid font.
    """

    def __init__(self, path: str, index: int = 0, weight: float = 1.0):
        self.path, self.index, self.weight = path, index, weight
        self._lacking = self._shape(_UNASSIGNED)

    @property
    def name(self) -> str:
        """The family and style of the font."""
        face = self.at(24)
        return " ".join(filter(None, face.getname())) if isinstance(face, ImageFont.FreeTypeFont) else ""

    @functools.lru_cache(maxsize=2048)  # noqa: B019  # fonts live as long as the program
    def at(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """Returns the font at a size, the em in pixels."""
        if self.path == _BUILT_IN:
            return ImageFont.load_default(size)
        return ImageFont.truetype(self.path, size, self.index, layout_engine=ImageFont.Layout.BASIC)

    @functools.cache  # noqa: B019
    def has(self, character: str) -> bool:
        """Tells whether the font has a glyph for a character, rather than a box or nothing."""
        shape = self._shape(character)
        return shape != self._lacking and (character.isspace() or any(shape))

    @functools.cache  # noqa: B019
    def advance(self, character: str) -> float:
        """Returns the advance width of a character in em."""
        return float(self.at(_ADVANCE_SIZE).getlength(character)) / _ADVANCE_SIZE

    @functools.lru_cache(maxsize=_CACHED_GLYPHS)  # noqa: B019  # rendering glyphs would take half of the time
    def glyph(self, character: str, size: int) -> Glyph:
        """Renders a character at a size, the em in pixels."""
        canvas = Image.new("L", (3 * size, 3 * size))
        ImageDraw.Draw(canvas).text((size, 2 * size), character, fill=255, font=self.at(size), anchor="ls")
        if (box := canvas.getbbox()) is None:
            return Glyph(np.zeros((0, 0), np.uint8), 0, 0)
        return Glyph(np.asarray(canvas.crop(box)), box[0] - size, box[1] - 2 * size)

    def shaped(self, text: str, size: int) -> np.ndarray:
        """Renders a text by Raqm, which joins letters and orders them by direction, at a size, the em in pixels.

        Returns:
          The ink in its bounding box, uint8[h, w].
        """
        face = self._shaping(size)
        left, top, right, bottom = map(int, face.getbbox(text, anchor="ls"))
        canvas = Image.new("L", (right - left + 2 * size, bottom - top + 2 * size))
        ImageDraw.Draw(canvas).text((size - left, size - top), text, fill=255, font=face, anchor="ls")
        return np.asarray(canvas.crop(canvas.getbbox() or (0, 0, 1, 1)))

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def _shaping(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        if self.path == _BUILT_IN:
            return ImageFont.load_default(size)
        return ImageFont.truetype(self.path, size, self.index, layout_engine=ImageFont.Layout.RAQM)

    def _shape(self, character: str) -> bytes:
        advance = str(self.advance(character)).encode() if character.isspace() else b""
        return bytes(self.at(_PROBE_SIZE).getmask(character)) + advance


class MixedFont:
    """Two fonts in one line, like a document that sets Chinese and Latin text in different fonts.

    Args:
      font: the font of all characters that are not ASCII.
      latin: the font of ASCII characters.
    """

    def __init__(self, font: Font, latin: Font):
        self._font, self._latin = font, latin
        self.name = f"{font.name} with {latin.name}"

    def glyph(self, character: str, size: int) -> Glyph:
        """Renders a character at a size, the em in pixels."""
        return self._font_of(character).glyph(character, size)

    def advance(self, character: str) -> float:
        """Returns the advance width of a character in em."""
        return self._font_of(character).advance(character)

    def _font_of(self, character: str) -> Font:
        return self._latin if character.isascii() else self._font


class ColumnFont:
    """A font for a column of characters, turned counterclockwise to a line, so that it is read from left to right.

    Letters and numbers as wide as they are high, such as hanzi, lie on their side. What lies on its side in a column, such as
    Latin letters, brackets and dashes, is upright again.

    Args:
      font: the font.
    """

    def __init__(self, font: Font | MixedFont):
        self._font = font
        self.name = font.name

    def glyph(self, character: str, size: int) -> Glyph:
        """Renders a character at a size, the em in pixels."""
        ink, left, top = self._font.glyph(character, size)
        if not _stands_in_columns(character):
            return Glyph(ink, left, top)
        height, width = ink.shape
        right = left + width / 2 - self._font.advance(character) * size / 2  # from the middle of the character's square
        down = top + height / 2 + _MIDDLE * size
        left, top = size / 2 + down - height / 2, -_MIDDLE * size - right - width / 2
        return Glyph(np.rot90(ink), round(left), round(top))

    def advance(self, character: str) -> float:
        """Returns the advance width of a character in em."""
        return 1.0 if _stands_in_columns(character) else self._font.advance(character)


def _stands_in_columns(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF" and unicodedata.category(character)[0] in "LN"


AnyFont = Font | MixedFont | ColumnFont


def open_fonts(patterns: tuple[str, ...]) -> list[Font]:
    """Opens fonts.

    Args:
      patterns: `GLOB`, or `GLOB#INDEX` to select a font of a collection, each optionally followed by `:WEIGHT`, which is
        divided among the files that match.

    Returns:
      The fonts in the order of their paths; Pillow's built-in font if there are no patterns.

    Raises:
      InputError: a pattern matches no file, a file is not a font, or a weight is invalid.
    """
    if not patterns:
        return [Font(_BUILT_IN)]
    wanted: dict[tuple[str, int], float] = {}
    for pattern in patterns:
        name, weight = parse_weighted(pattern)
        file, _, index = name.rpartition("#")
        name, index = (file, index) if file and index.isdecimal() and not os.path.exists(name) else (name, "0")
        matched = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        if not matched:
            raise InputError(f"--fonts={pattern}: matches no file")
        for path in matched:
            wanted[path, int(index)] = 1.0 if weight is None else weight / len(matched)
    return [_open(path, index, weight) for (path, index), weight in sorted(wanted.items())]


def _open(path: str, index: int, weight: float) -> Font:
    try:
        if not pathlib.Path(path).is_file():
            raise ValueError("not a regular file")
        return Font(path, index, weight)
    except (OSError, ValueError) as error:
        raise InputError(f"--fonts: {path}: cannot be read as a font ({error})") from error
