"""Draws a line of text as an image: clean, as on a screen, as from a scanner, or as bad as a photograph may be."""

import dataclasses
import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from ocr.synthesis.fonts import Font, Mixed
from tfrecords.errors import InputError

_LEAST_SIZE = 4  # pixels of the em
_LEAST_CONTRAST = 40.0  # grey levels
_RISE = 0.2  # of the height, that a line's end may rise or fall
# Sizes that glyphs are drawn and kept at, in pixels of the em: those of crisp lines, and those that are scaled down.
_CRISP = (*range(_LEAST_SIZE, 12), *(round(12 * 1.1**step) for step in range(64)))
_SCALED = tuple(round(_LEAST_SIZE * 1.4**step) for step in range(20))


@dataclasses.dataclass(frozen=True)
class Style:
    """How lines may look; pairs are the least and the most of what is drawn evenly between them.

    Attributes:
      size: of the em, in parts of the height.
      margin: between ink and edge, in parts of the height; below 0 the edge cuts the ink.
      stretch: by what factor letters are widened or narrowed at most.
      tracking: between letters, in parts of the em.
      wobble: by how much a letter leaves the baseline, in parts of the em.
      slope: largest, in degrees.
      lean: largest, pixels aside per pixel up.
      depth: how much larger than at the middle letters are at an end or edge, at most.
      weight: how often strokes are made thinner or bolder.
      underlined: how often there is an underline as close to the letters as type is underlined.
      outlined: how often letters have an edge of another grey, or a shadow.
      rules: how often there are underlines, table rules, and strokes of the lines above and below.
      paper: grey level of it.
      ink: likewise.
      inverted: how often ink and paper change places.
      flat: how often contrast is lost.
      uneven: how often the paper has a gradient and a texture.
      blur: radius in pixels.
      shaken: how often the camera moved, or the line was stored smaller.
      noise: standard deviation in grey levels; less where there is less contrast.
      jpeg: worst and best quality; none for PNG, with letters as crisp as the font draws them.
    """

    size: tuple[float, float] = (0.6, 1.0)
    margin: tuple[float, float] = (1 / 16, 1 / 16)
    stretch: float = 1.0
    tracking: tuple[float, float] = (0.0, 0.0)
    wobble: float = 0.0
    slope: float = 0.0
    lean: float = 0.0
    depth: float = 0.0
    weight: float = 0.0
    underlined: float = 0.0
    outlined: float = 0.0
    rules: float = 0.0
    paper: tuple[int, int] = (215, 255)
    ink: tuple[int, int] = (0, 80)
    inverted: float = 0.0
    flat: float = 0.0
    uneven: float = 0.0
    blur: tuple[float, float] = (0.0, 0.0)
    shaken: float = 0.0
    noise: tuple[float, float] = (0.0, 0.0)
    jpeg: tuple[int, int] | None = None

    @property
    def crisp(self) -> bool:
        return self.jpeg is None


STYLES = {
    "clean": Style(),
    "screen": Style(
        size=(0.55, 1.1), margin=(0.0, 1 / 5), tracking=(0.0, 0.15), underlined=0.12, outlined=0.02, paper=(170, 255),
        ink=(0, 130), inverted=0.4, flat=0.2,
    ),
    "scan": Style(
        size=(0.55, 1.05), margin=(0.0, 1 / 8), stretch=1.1, tracking=(-0.02, 0.12), slope=1.0, lean=0.05, weight=0.1,
        underlined=0.08, rules=0.05, paper=(190, 255), ink=(0, 100), inverted=0.25, blur=(0.0, 0.8), noise=(0.0, 10.0),
        jpeg=(40, 95),
    ),
    "hard": Style(
        size=(0.5, 1.1), margin=(-1 / 24, 1 / 8), stretch=1.3, tracking=(-0.06, 0.3), wobble=0.04, slope=2.5, lean=0.25,
        depth=0.12, weight=0.25, underlined=0.08, outlined=0.08, rules=0.3, paper=(140, 255), ink=(0, 110), inverted=0.35,
        flat=0.3, uneven=0.5, blur=(0.0, 1.0), shaken=0.25, noise=(0.0, 20.0), jpeg=(20, 90),
    ),
}  # fmt: skip
DEGRADATIONS = tuple(STYLES)


class Line(NamedTuple):
    """A line drawn.

    Attributes:
      image: grey.
      middles: the column of each character's middle, in pixels.
      quality: to store the image with as JPEG, or None for PNG.
    """

    image: Image.Image
    middles: list[int]
    quality: int | None

    @property
    def kind(self) -> str:
        """`jpeg` or `png`."""
        return "jpeg" if self.quality else "png"

    def encoded(self) -> bytes:
        """Returns it as an image file."""
        file = io.BytesIO()
        self.image.save(file, self.kind, quality=self.quality or 75, compress_level=1)
        return file.getvalue()


class _NoRoom(Exception):
    """The smallest letters are too large."""


def draw(text: str, font: Font | Mixed, height: int, width: int, look: Style, rng: np.random.Generator) -> Line:
    """Draws a line of text.

    Args:
      text: to draw.
      font: that has all its characters.
      height: of the image in pixels.
      width: of the image in pixels, or 0 for as wide as the text is.
      look: what may become of it.
      rng: for all that is left to chance.

    Raises:
      InputError: there is no room for it, small as it may be drawn.
    """
    margin = rng.uniform(*look.margin) * height
    room = (width - 2 * margin if width else math.inf, height - 2 * margin)
    try:
        ink, middles, scale = _written(text, font, height * rng.uniform(*look.size), room, look, rng)
    except _NoRoom:
        raise InputError(f"--width={width} --height={height}: no room for {text!r}, even {_LEAST_SIZE} pixels high") from None
    forward, size = _placed(ink.shape, scale, room, look, rng)
    if not width:
        width = max(math.ceil(size[0] + 2 * margin + rng.uniform(0.0, 3 / 16) * height), 1)
    left = margin + rng.uniform(0.0, 1.0) * (width - 2 * margin - size[0])
    top = margin + rng.uniform(0.0, 1.0) * (height - 2 * margin - size[1])
    if look.crisp:
        left, top = round(left), round(top)
        image = Image.new("L", (width, height))
        image.paste(Image.fromarray(ink), (left, top))
    forward = _shift(left, top) @ forward
    if not look.crisp:
        back = np.linalg.inv(forward)
        back /= back[2, 2]
        image = Image.fromarray(ink).transform(
            (width, height), Image.Transform.PERSPECTIVE, tuple(back.ravel()[:8]), Image.Resampling.BILINEAR
        )
    columns = forward @ np.stack([middles, np.full_like(middles, ink.shape[0] / 2), np.ones_like(middles)])
    places = np.clip(columns[0] / columns[2], 0, width - 1).astype(int).tolist()
    image = _photographed(image, look, rng)
    return Line(image, places, int(rng.integers(*look.jpeg, endpoint=True)) if look.jpeg else None)


def _written(
    text: str, font: Font | Mixed, wanted: float, room: tuple[float, float], look: Style, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns a text's ink uint8[h, w], the columns of its characters' middles float64[N], and what it is to be scaled by to
    have the em that is wanted."""
    tracking = rng.uniform(*look.tracking) * (rng.random() < 0.5)
    offsets = rng.uniform(-look.wobble, look.wobble, len(text))
    # Not to draw letters much larger than they can stay: scaled down far they would lose strokes.
    wide = sum(font.advance(character) for character in text) + tracking * len(text)
    wanted = max(min(wanted, room[0] / max(wide, 0.1)), _LEAST_SIZE)
    size = _below(wanted) if look.crisp else _above(wanted)
    underline = rng.uniform((-0.12, 0.04), (0.12, 0.09)) if rng.random() < look.underlined else None
    while True:
        ink, middles = _typeset(text, font, size, tracking * size, offsets * size)
        if underline is not None:
            ink = _underlined(ink, *underline * size)
        fits = min(room[0] / max(ink.shape[1], 1), room[1] / max(ink.shape[0], 1))
        if fits * size < _LEAST_SIZE:
            raise _NoRoom
        if not look.crisp:
            return ink, middles, wanted / size
        if fits >= 1.0:
            return ink, middles, 1.0
        size = _below(min(size * fits, size - 1))


def _below(size: float) -> int:
    return max(crisp for crisp in _CRISP if crisp <= size)


def _above(size: float) -> int:
    return min(scaled for scaled in _SCALED if scaled >= size)


def _typeset(text: str, font: Font | Mixed, size: int, tracking: float, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sets characters side by side: the smallest box of ink that holds them, and the columns of their middles in it."""
    pen = 0.0
    boxes, middles = [], []
    for character, offset in zip(text, offsets, strict=True):
        ink, left, top = font.glyph(character, size)
        advance = font.advance(character) * size
        boxes.append((round(pen + left), round(top + offset), ink))
        middles.append(pen + left + ink.shape[1] / 2 if ink.size else pen + advance / 2)
        pen += advance + tracking
    first = min(x for x, _, ink in boxes if ink.size)
    highest = min(y for _, y, ink in boxes if ink.size)
    last = max(x + ink.shape[1] for x, _, ink in boxes if ink.size)
    lowest = max(y + ink.shape[0] for _, y, ink in boxes if ink.size)
    line = np.zeros((lowest - highest, last - first), np.uint8)
    for x, y, ink in boxes:
        place = line[y - highest : y - highest + ink.shape[0], x - first : x - first + ink.shape[1]]
        np.maximum(place, ink, out=place)
    return line, np.array(middles) - first


def _underlined(ink: np.ndarray, gap: float, thick: float) -> np.ndarray:
    """Returns ink with a line below it, or through its lowest strokes where the gap is below 0; both in pixels."""
    height, width = ink.shape
    row, thick = max(round(height + gap), 0), max(round(thick), 1)
    line = np.zeros((max(row + thick, height), width), np.uint8)
    line[:height] = ink
    line[row : row + thick] = 255
    return line


def _placed(
    shape: tuple[int, ...], scale: float, room: tuple[float, float], look: Style, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the projection float64[3, 3] of a box of ink, as large as wanted and as there is room, to the corner of the
    image, and its width and height there."""
    height, width = shape
    if look.crisp:
        return np.eye(3), np.array([width, height], np.float64)
    steepest = min(math.radians(look.slope), math.atan2(_RISE * height, width))
    angle, lean = rng.uniform(-steepest, steepest), rng.uniform(-look.lean, look.lean) * (rng.random() < 0.5)
    near = rng.uniform(-look.depth, look.depth, 2) / (width / 2, height)
    across = scale * look.stretch ** rng.uniform(-1.0, 1.0)
    cos, sin = math.cos(angle), math.sin(angle)
    forward = (
        np.array([[1, 0, 0], [0, 1, 0], [near[0] / across, near[1] / scale, 1]])
        @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        @ np.array([[across, lean * scale, 0], [0, scale, 0], [0, 0, 1]])
        @ _shift(-width / 2, -height / 2)
    )
    corners = forward @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    corners = corners[:2] / corners[2]
    size = corners.max(1) - corners.min(1)
    smaller = min(1.0, room[0] / size[0], room[1] / size[1])
    forward = np.diag([smaller, smaller, 1.0]) @ _shift(*-corners.min(1)) @ forward
    return forward, size * smaller


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _photographed(ink: Image.Image, look: Style, rng: np.random.Generator) -> Image.Image:
    """Makes ink on paper of ink alone, and a photograph of that."""
    if rng.random() < look.weight:
        strokes = ImageFilter.MaxFilter(3) if rng.random() < 0.6 else ImageFilter.MinFilter(3)
        ink = Image.blend(ink, ink.filter(strokes), rng.uniform(0.2, 0.7))
    cover = np.asarray(ink).astype(np.float32) / 255.0
    if rng.random() < look.rules:
        _rule(cover, rng)
    dark, light = float(rng.uniform(*look.ink)), float(rng.uniform(*look.paper))
    if rng.random() < look.flat:
        middle, contrast = rng.uniform(60.0, 195.0), rng.uniform(_LEAST_CONTRAST, 120.0)
        dark, light = middle - contrast / 2, middle + contrast / 2
    if rng.random() < look.inverted:
        dark, light = light, dark
    levels = np.full_like(cover, light)
    if rng.random() < look.outlined:
        around = np.asarray(ImageChops.offset(ink, *map(int, rng.integers(-1, 3, 2))).filter(ImageFilter.MaxFilter(3)))
        levels += (rng.uniform(0.0, 255.0) - light) * rng.uniform(0.3, 0.8) * (around / 255.0)
    levels += (dark - levels) * cover
    if rng.random() < look.uneven:
        levels += _unevenness(levels.shape, abs(light - dark), rng)
    image = Image.fromarray(np.clip(levels, 0.0, 255.0).astype(np.uint8))
    if look.crisp:
        return image
    if rng.random() < look.shaken:
        image = _shaken(image, rng)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*look.blur)))
    strength = rng.uniform(*look.noise) * min(abs(light - dark) / 120.0, 1.0)  # faint letters would drown
    noise = rng.standard_normal((image.height, image.width), np.float32) * np.float32(strength)
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0.0, 255.0).astype(np.uint8))


def _rule(cover: np.ndarray, rng: np.random.Generator) -> None:
    """Adds an underline, lines of a table, or strokes of the lines above and below."""
    height, width = cover.shape
    strength = rng.uniform(0.4, 1.0)
    thick = int(rng.integers(1, 3))
    kind = rng.integers(4)
    if kind == 0:  # an underline, or a line through the gap above
        row = int(rng.integers(height * 7 // 8, height)) if rng.random() < 0.8 else int(rng.integers(0, height // 8 + 1))
        start, end = sorted(rng.integers(0, width + 1, 2)) if rng.random() < 0.3 else (0, width)
        cover[row : row + thick, start:end] = np.maximum(cover[row : row + thick, start:end], strength)
    elif kind == 1:  # a cell of a table
        cover[:thick] = np.maximum(cover[:thick], strength * (rng.random() < 0.6))
        cover[height - thick :] = np.maximum(cover[height - thick :], strength * (rng.random() < 0.6))
        for column in (int(rng.integers(0, 3)), width - thick - int(rng.integers(0, 3))):
            if rng.random() < 0.6:
                cover[:, column : column + thick] = np.maximum(cover[:, column : column + thick], strength)
    else:  # what the crop has of its neighbours, made of the line's own strokes
        depth = min(int(rng.integers(1, max(height // 8, 2) + 1)), height // 2)
        strokes = np.roll(cover[height // 2 - depth // 2 :][:depth], int(rng.integers(width)), axis=1) * strength
        edge = cover[:depth] if rng.random() < 0.5 else cover[height - depth :]
        np.maximum(edge, strokes, out=edge)


def _unevenness(shape: tuple[int, ...], contrast: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a gradient and a texture, float32[height, width] in grey levels, weaker than the contrast of the text."""
    height, width = shape
    across = np.linspace(-1.0, 1.0, width, dtype=np.float32) * rng.uniform(-0.3, 0.3) * contrast
    down = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, np.newaxis] * rng.uniform(-0.15, 0.15) * contrast
    grain = float(rng.uniform(2.0, 24.0))
    coarse = rng.standard_normal((max(round(height / grain), 1) + 1, max(round(width / grain), 1) + 1), np.float32)
    texture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    return across + down + np.asarray(texture) * (rng.uniform(0.0, 0.15) * contrast)


def _shaken(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Smears a line along a short way, or takes away detail by storing it smaller."""
    if rng.random() < 0.5:
        share = rng.uniform(0.45, 0.85)
        small = image.resize((max(round(image.width * share), 1), max(round(image.height * share), 1)), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.BILINEAR if rng.random() < 0.7 else Image.Resampling.NEAREST)
    x, y = [(1, 0), (0, 1), (1, 1), (1, -1)][rng.integers(4)]
    way = int(rng.integers(2, 5 if x and not y else 4))
    padded = np.pad(np.asarray(image).astype(np.float32), way, "edge")
    seen = [padded[way + y * i :, way + x * i :][: image.height, : image.width] for i in range(way)]
    return Image.fromarray(np.mean(seen, axis=0).astype(np.uint8))
