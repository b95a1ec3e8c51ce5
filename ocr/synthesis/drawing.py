"""Draws a line of text as an image: typesets it, places it, and degrades it."""

import io
import math
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ocr.synthesis import shaping
from ocr.synthesis.degradation import degrade
from ocr.synthesis.fonts import AnyFont, ColumnFont, Font, MixedFont
from ocr.synthesis.styles import Style
from tfrecords.errors import InputError

_MIN_SIZE = 4  # em in pixels
_MIN_ROOM = 8  # pixels between random margins above and below
_MAX_RISE = 0.2  # of an end of the line due to its slope, relative to the height
# Glyphs are cached, so they are rendered at few sizes (em in pixels): one set for crisp lines, another for those scaled down.
_CRISP_SIZES = (*range(_MIN_SIZE, 12), *(round(12 * 1.1**step) for step in range(64)))
_SCALED_SIZES = tuple(round(_MIN_SIZE * 1.4**step) for step in range(20))


class Line(NamedTuple):
    """An image of a line.

    Attributes:
      image: grey image.
      middles: the x coordinate of the centre of each character, in pixels; empty if the text was shaped.
      quality: JPEG quality to encode the image with, or None for PNG.
    """

    image: Image.Image
    middles: list[int]
    quality: int | None

    @property
    def kind(self) -> str:
        """The file format, `jpeg` or `png`."""
        return "jpeg" if self.quality else "png"

    def encoded(self) -> bytes:
        """Returns the content of the image file."""
        file = io.BytesIO()
        self.image.save(file, self.kind, quality=self.quality or 75, compress_level=1)
        return file.getvalue()


class _NoRoomError(Exception):
    """The text does not fit, even at the minimum size."""


def draw(text: str, font: Font | MixedFont, height: int, width: int, style: Style, rng: np.random.Generator) -> Line:
    """Draws a line of text.

    Args:
      text: the text.
      font: a font that has all of its characters.
      height: height of the image in pixels.
      width: width of the image in pixels, or 0 for the natural width of the text.
      style: the distribution of its appearance.
      rng: source of randomness.

    Raises:
      InputError: the text does not fit, even at the minimum size.
    """
    face: AnyFont = font
    if style.world:
        if rng.random() < style.world.column and not shaping.is_needed(text):
            face = ColumnFont(font)
        before, above, after, below = rng.triangular(*style.world.margins, size=4) * height
        excess = (above + below) / max(height - _MIN_ROOM, 1)
        above, below = above / max(excess, 1.0), below / max(excess, 1.0)
    else:
        before = above = after = below = rng.uniform(*style.margin) * height
    room = (width - before - after if width else math.inf, height - above - below)
    try:
        wanted = (room[1] if style.world else height) * rng.uniform(*style.size)
        ink, middles, scale = _render_text(text, face, wanted, room, style, rng)
    except _NoRoomError:
        raise InputError(f"--width={width} --height={height}: no room for {text!r}, even {_MIN_SIZE} pixels high") from None
    if style.world:
        ink = _bent(ink, _about_zero(style.world.bow * height / scale, style, rng))
    projection, size = _projection(ink.shape, scale, room, style, rng)
    if not width:
        spare = 0.0 if style.world else rng.uniform(0.0, 3 / 16) * height
        width = max(math.ceil(size[0] + before + after + spare), 1)
    left = before + rng.uniform(0.0, 1.0) * (width - before - after - size[0])
    top = above + rng.uniform(0.0, 1.0) * (height - above - below - size[1])
    if style.crisp:
        left, top = round(left), round(top)
        image = Image.new("L", (width, height))
        image.paste(Image.fromarray(ink), (left, top))
    projection = _translation(left, top) @ projection
    if not style.crisp:
        inverse = np.linalg.inv(projection)
        inverse /= inverse[2, 2]
        image = Image.fromarray(ink).transform(
            (width, height), Image.Transform.PERSPECTIVE, tuple(inverse.ravel()[:8]), Image.Resampling.BILINEAR
        )
    columns = projection @ np.stack([middles, np.full_like(middles, ink.shape[0] / 2), np.ones_like(middles)])
    centres = np.clip(columns[0] / columns[2], 0, width - 1).astype(int).tolist()
    image = degrade(image, style, rng)
    return Line(image, centres, int(rng.integers(*style.jpeg, endpoint=True)) if style.jpeg else None)


def _render_text(
    text: str, font: AnyFont, wanted: float, room: tuple[float, float], style: Style, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Renders a text at a size for which glyphs are cached, that of the result if the style is crisp.

    Args:
      text: the text.
      font: its font.
      wanted: the font size to aim at, em in pixels.
      room: the available width and height in pixels.
      style: the distribution of its appearance.
      rng: source of randomness.

    Returns:
      The ink, uint8[h, w]; the x coordinates of the characters' centres in it, float64[N], none if the text was shaped; and the
      factor to scale both by.

    Raises:
      _NoRoomError: it does not fit.
    """
    tracking = rng.uniform(*style.tracking) * (rng.random() < 0.5)
    offsets = rng.uniform(-style.wobble, style.wobble, len(text))
    # Rendering much larger than the room allows would lose strokes when scaled down.
    wide = sum(font.advance(character) for character in text) + tracking * len(text)
    wanted = max(min(wanted, room[0] / max(wide, 0.1)), _MIN_SIZE)
    size = _crisp_size(wanted) if style.crisp else _scaled_size(wanted)
    underline = rng.uniform((-0.12, 0.04), (0.12, 0.09)) if rng.random() < style.underlined else None
    while True:
        ink, middles = _typeset(text, font, size, tracking * size, offsets * size)
        if underline is not None:
            ink = _underline(ink, *underline * size)
        fits = min(room[0] / max(ink.shape[1], 1), room[1] / max(ink.shape[0], 1))
        if fits * size < _MIN_SIZE:
            raise _NoRoomError
        if not style.crisp:
            return ink, middles, wanted / size
        if fits >= 1.0:
            return ink, middles, 1.0
        size = _crisp_size(min(size * fits, size - 1))


def _crisp_size(size: float) -> int:
    return max(crisp for crisp in _CRISP_SIZES if crisp <= size)


def _scaled_size(size: float) -> int:
    return min(scaled for scaled in _SCALED_SIZES if scaled >= size)


def _typeset(text: str, font: AnyFont, size: int, tracking: float, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places glyphs side by side; returns the ink in its bounding box, and the x coordinates of the glyphs' centres in it."""
    if isinstance(font, Font) and shaping.is_needed(text):  # joined letters have no spacing, and no centre of their own
        return font.shaped(text, size), np.zeros(0)
    x = 0.0  # of the pen
    boxes, middles = [], []
    for character, offset in zip(text, offsets, strict=True):
        ink, left, top = font.glyph(character, size)
        advance = font.advance(character) * size
        boxes.append((round(x + left), round(top + offset), ink))
        middles.append(x + left + ink.shape[1] / 2 if ink.size else x + advance / 2)
        x += advance + tracking
    left = min(x for x, _, ink in boxes if ink.size)
    top = min(y for _, y, ink in boxes if ink.size)
    right = max(x + ink.shape[1] for x, _, ink in boxes if ink.size)
    bottom = max(y + ink.shape[0] for _, y, ink in boxes if ink.size)
    line = np.zeros((bottom - top, right - left), np.uint8)
    for column, row, ink in boxes:
        box = line[row - top : row - top + ink.shape[0], column - left : column - left + ink.shape[1]]
        np.maximum(box, ink, out=box)
    return line, np.array(middles) - left


def _underline(ink: np.ndarray, gap: float, thick: float) -> np.ndarray:
    """Returns the ink with a line below it, or through its lowest strokes if the gap is negative; lengths are in pixels."""
    height, width = ink.shape
    row, thick = max(round(height + gap), 0), max(round(thick), 1)
    line = np.zeros((max(row + thick, height), width), np.uint8)
    line[:height] = ink
    line[row : row + thick] = 255
    return line


def _bent(ink: np.ndarray, rise: float) -> np.ndarray:
    """Returns the ink bent to an arc of a height in pixels, upwards in the middle if it is positive."""
    height, width = ink.shape
    extra = math.ceil(abs(rise)) + 1
    if abs(rise) < 1.0:
        return ink
    down = rise * np.linspace(-1.0, 1.0, width) ** 2 + (0.0 if rise > 0 else -rise)
    padded = np.pad(ink, ((extra, extra), (0, 0)))
    rows = np.arange(height + extra)[:, np.newaxis] + extra - np.floor(down).astype(int)
    part, columns = (down % 1.0).astype(np.float32), np.arange(width)
    return ((1.0 - part) * padded[rows, columns] + part * padded[rows - 1, columns]).astype(np.uint8)


def _projection(
    shape: tuple[int, ...], scale: float, room: tuple[float, float], style: Style, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a random slope, shear, stretch and perspective, scaled down to the room.

    Args:
      shape: height and width of the ink.
      scale: the factor to scale it by.
      room: the available width and height in pixels.
      style: the distribution of its appearance.
      rng: source of randomness.

    Returns:
      The homography float64[3, 3] of the ink, to the top left corner of the image; and the width and height there.
    """
    height, width = shape
    if style.crisp:
        return np.eye(3), np.array([width, height], np.float64)
    rise = _MAX_RISE / 2 if style.world else _MAX_RISE  # crops are turned already
    steepest = min(math.radians(style.slope), math.atan2(rise * height, width))
    leaning = style.world.italic if style.world else 0.5
    angle, lean = _about_zero(steepest, style, rng), rng.uniform(-style.lean, style.lean) * (rng.random() < leaning)
    deep = max(height, width / 2) if style.world else height  # else the ends of long lines would lean too much
    perspective = _about_zero(style.depth, style, rng, 2) / (width / 2, deep)
    across = scale * style.stretch ** _about_zero(1.0, style, rng)
    cos, sin = math.cos(angle), math.sin(angle)
    projection = (
        np.array([[1, 0, 0], [0, 1, 0], [perspective[0] / across, perspective[1] / scale, 1]])
        @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        @ np.array([[across, lean * scale, 0], [0, scale, 0], [0, 0, 1]])
        @ _translation(-width / 2, -height / 2)
    )
    corners = projection @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    corners = corners[:2] / corners[2]
    size = corners.max(1) - corners.min(1)
    shrink = min(1.0, room[0] / size[0], room[1] / size[1])
    projection = np.diag([shrink, shrink, 1.0]) @ _translation(*-corners.min(1)) @ projection
    return projection, size * shrink


def _about_zero(most: float, style: Style, rng: np.random.Generator, size: int | None = None) -> Any:
    """Returns random numbers of either sign: in a world mostly small ones."""
    return most * rng.triangular(-1.0, 0.0, 1.0, size) if style.world else rng.uniform(-most, most, size)


def _translation(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
