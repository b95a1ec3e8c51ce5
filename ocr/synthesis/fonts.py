"""Font files: which characters each has, and what they look like."""

import functools
import glob
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ocr.options import parse_weighted
from tfrecords.errors import InputError

_BUILT_IN = ""  # in place of a path: the font that comes with Pillow
_NO_CHARACTER = "\U0010ffff"  # what a font shows for this it shows for all it lacks
_EM = 1000  # pixels, of which a character's advance is measured in parts
_LOOKED_AT = 12  # pixels of the em, to see whether a font has a character
_KEPT = 250_000  # glyphs, of all fonts


class Glyph(NamedTuple):
    """A character drawn.

    Attributes:
      ink: uint8[h, w], 255 where it is black; the smallest box that holds it.
      left: of the box, in pixels right of the pen.
      top: of the box, in pixels below the baseline: negative for nearly all.
    """

    ink: np.ndarray
    left: int
    top: int


class Font:
    """A font file, at any size, that knows what it lacks.

    Args:
      path: of the file, or nothing for Pillow's own font.
      index: which of the fonts of a collection.
      weight: how often it is to be chosen, beside others.

    Raises:
      OSError, ValueError: it is no font.
    """

    def __init__(self, path: str, index: int = 0, weight: float = 1.0):
        self.path, self.index, self.weight = path, index, weight
        self._lacking = self._shape(_NO_CHARACTER)

    @property
    def name(self) -> str:
        """Its family and style."""
        face = self.at(24)
        return " ".join(filter(None, face.getname())) if isinstance(face, ImageFont.FreeTypeFont) else ""

    @functools.lru_cache(maxsize=2048)  # noqa: B019  # a font lives as long as the program
    def at(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """Returns the font with an em of `size` pixels."""
        if self.path == _BUILT_IN:
            return ImageFont.load_default(size)
        return ImageFont.truetype(self.path, size, self.index, layout_engine=ImageFont.Layout.BASIC)

    @functools.cache  # noqa: B019
    def has(self, character: str) -> bool:
        """Says whether the font draws this character, rather than a box or nothing."""
        shape = self._shape(character)
        return shape != self._lacking and (character.isspace() or any(shape))

    @functools.cache  # noqa: B019
    def advance(self, character: str) -> float:
        """Returns how far the pen moves on, in parts of the em."""
        return float(self.at(_EM).getlength(character)) / _EM

    @functools.lru_cache(maxsize=_KEPT)  # noqa: B019  # drawing one takes as long as all else that is done with it
    def glyph(self, character: str, size: int) -> Glyph:
        """Draws a character with an em of `size` pixels."""
        canvas = Image.new("L", (3 * size, 3 * size))
        ImageDraw.Draw(canvas).text((size, 2 * size), character, fill=255, font=self.at(size), anchor="ls")
        if (box := canvas.getbbox()) is None:
            return Glyph(np.zeros((0, 0), np.uint8), 0, 0)
        return Glyph(np.asarray(canvas.crop(box)), box[0] - size, box[1] - 2 * size)

    def _shape(self, character: str) -> bytes:
        advance = str(self.advance(character)).encode() if character.isspace() else b""
        return bytes(self.at(_LOOKED_AT).getmask(character)) + advance


class Mixed:
    """Two fonts in one line, as where a document names one for Chinese and another for the rest.

    Args:
      font: of all characters but ASCII's.
      latin: of these.
    """

    def __init__(self, font: Font, latin: Font):
        self._font, self._latin = font, latin
        self.name = f"{font.name} with {latin.name}"

    def glyph(self, character: str, size: int) -> Glyph:
        """Draws a character with an em of `size` pixels."""
        return self._of(character).glyph(character, size)

    def advance(self, character: str) -> float:
        """Returns how far the pen moves on, in parts of the em."""
        return self._of(character).advance(character)

    def _of(self, character: str) -> Font:
        return self._latin if character.isascii() else self._font


def open_fonts(patterns: tuple[str, ...]) -> list[Font]:
    """Opens the fonts that the patterns name, in the order of their paths; without patterns Pillow's own.

    Args:
      patterns: `GLOB`, `GLOB#INDEX` for another than the first font of a collection, each perhaps with `:WEIGHT` behind it,
        which its fonts share.

    Raises:
      InputError: a pattern matches nothing, a file is no font, or a weight is none.
    """
    if not patterns:
        return [Font(_BUILT_IN)]
    wanted: dict[tuple[str, int], float] = {}
    for pattern in patterns:
        name, weight = parse_weighted(pattern)
        name, number, index = name.rpartition("#")
        name, index = (name, index) if number and index.isdecimal() else (name + number + index, "0")
        if not (matched := sorted(glob.glob(name, recursive=True))):
            raise InputError(f"--fonts={pattern}: matches no file")
        for path in matched:
            wanted[path, int(index)] = 1.0 if weight is None else weight / len(matched)
    return [_opened(path, index, weight) for (path, index), weight in sorted(wanted.items())]


def _opened(path: str, index: int, weight: float) -> Font:
    try:
        if not pathlib.Path(path).is_file():
            raise ValueError("not a regular file")
        return Font(path, index, weight)
    except (OSError, ValueError) as error:
        raise InputError(f"--fonts: {path}: cannot be read as a font ({error})") from error
