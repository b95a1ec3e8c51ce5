"""What a camera or a scanner sees: ink on a ground, with what else is there."""

import numpy as np
from PIL import Image, ImageDraw

from ocr.synthesis import background
from ocr.synthesis.styles import Style, World


def compose(ink: np.ndarray, style: Style, world: World, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Puts ink on a ground.

    Args:
      ink: uint8[height, width], 255 where there is ink.
      style: the distribution of the line's appearance.
      world: that of its surroundings.
      rng: source of randomness.

    Returns:
      Grey levels, float32[height, width]; and the contrast between text and background.
    """
    cover = ink.astype(np.float32) / 255.0
    letters = max(int(np.count_nonzero(ink.max(1) > 127)), 1)  # their height in pixels
    if rng.random() < style.weight:
        cover = _reweighted(cover, letters, rng)
    if rng.random() < world.dotted:
        cover = _dotted(cover, letters, rng)
    if rng.random() < world.worn:
        grain = rng.uniform(1.5, 4.0)
        holes = background.smooth_noise(cover.shape, (grain, grain), rng) + rng.uniform(0.6, 1.2)
        cover = cover * np.clip(0.3 + 2.0 * holes, rng.uniform(0.0, 0.6), 1.0)
    contrast = rng.triangular(*world.contrast)
    textured, lit = rng.random() < world.textured, rng.random() < world.lit
    dark = rng.random() < style.inverted
    # Paper is often white, black seldom; texture and light would be lost in white.
    spare = (255.0 - contrast) * rng.random() ** (1 if dark or textured or lit else 3)
    paper, text = (spare, spare + contrast) if dark else (255.0 - spare, 255.0 - spare - contrast)
    levels = np.full_like(cover, paper)
    dressed = rng.random() < world.dressed
    outlined = dressed and rng.random() < 0.5
    if textured:
        texture, strongest = background.texture(cover.shape, rng)
        # An outline keeps letters legible even on pictures that are as light as they are in places.
        levels += texture * contrast * (rng.uniform(0.2, 0.8) if outlined else strongest * rng.random() ** 2)
    if rng.random() < world.neighbours:
        levels += (text - levels) * _neighbours(cover, rng)
    if outlined:
        cover = _outline(levels, cover, letters, paper, contrast, rng)
    elif dressed:
        _shade(levels, cover, letters, rng)
    if dressed and rng.random() < 0.4:
        levels += (_gradient(cover.shape, text, paper, rng) - levels) * cover
    else:
        levels += (text - levels) * cover
    if rng.random() < world.marked:
        _mark(levels, ink, paper, text, rng)
    if lit:
        levels *= background.light(cover.shape, rng)
    return levels, contrast


def _dilated(cover: np.ndarray, radius: int = 1) -> np.ndarray:
    """Returns the maximum over a square."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (radius, radius)
        padded = np.pad(cover, padding)
        length = cover.shape[axis]
        cover = np.max([np.take(padded, range(i, i + length), axis) for i in range(2 * radius + 1)], axis=0)
    return cover


def _reweighted(cover: np.ndarray, letters: int, rng: np.random.Generator) -> np.ndarray:
    """Makes strokes bolder or thinner, by less than a pixel where letters are small."""
    share = np.float32(rng.uniform(0.2, 0.9) * min(letters / 32, 1.0))
    if rng.random() < 0.6:
        return cover + share * (_dilated(cover) - cover)
    return cover + np.float32(0.7) * share * (1.0 - _dilated(1.0 - cover) - cover)


def _dotted(cover: np.ndarray, letters: int, rng: np.random.Generator) -> np.ndarray:
    """Makes letters of dots, or of square pixels, as large as the letters allow."""
    height, width = cover.shape
    pitch = max(letters / rng.uniform(14.0, 20.0), 1.0)
    across, down = max(round(width / pitch), 1), max(round(height / pitch), 1)
    cells = Image.fromarray(cover).resize((across, down), Image.Resampling.BOX)
    lit = (np.asarray(cells) > rng.uniform(0.3, 0.45)).astype(np.float32)
    pixels = np.asarray(Image.fromarray(lit).resize((width, height), Image.Resampling.NEAREST))
    if rng.random() < 0.4:
        return pixels
    x = np.cos((np.arange(width) + 0.5) / width * across * 2 * np.pi)
    y = np.cos((np.arange(height)[:, np.newaxis] + 0.5) / height * down * 2 * np.pi)
    gap = rng.uniform(0.2, 1.0)
    return (pixels * np.clip(1.0 - gap * (0.5 + 0.25 * (x + y)), 0.0, 1.0)).astype(np.float32)


def _neighbours(cover: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns remains of the lines above and below: the line's own strokes, at the edges of the image."""
    remains = np.zeros_like(cover)
    rows = np.flatnonzero(cover.max(1) > 0.5)
    if not rows.size:
        return remains
    first, last = int(rows[0]), int(rows[-1]) + 1
    turned = np.roll(cover[first:last], int(rng.integers(cover.shape[1])), axis=1)
    spaces = (first, cover.shape[0] - last)
    where = rng.integers(1, 4)  # above, below or both
    for end, space in enumerate(spaces):
        depth = int(min(rng.uniform(0.2, 0.9) * space, rng.uniform(0.1, 0.5) * (last - first)))  # never a line to be read
        if where & (end + 1) and depth > 0:
            if end == 0:
                remains[:depth] = turned[-depth:]
            else:
                remains[-depth:] = turned[:depth]
    return remains * np.float32(rng.uniform(0.6, 1.0))


def _outline(
    levels: np.ndarray, cover: np.ndarray, letters: int, paper: float, contrast: float, rng: np.random.Generator
) -> np.ndarray:
    """Draws an outline in place, on the other side of the paper's grey level; returns what is left to be covered with ink."""
    around = _dilated(cover, 1 + int(rng.random() < letters / 64))
    if rng.random() < 0.25 and letters >= 20:  # hollow letters
        hollow = rng.uniform(0.0, 0.15)
        return np.clip(_dilated(cover) - (1.0 - hollow) * cover, 0.0, 1.0)
    far = contrast * rng.uniform(0.2, 1.0)
    levels += (np.clip(paper + (far if paper > 127 else -far), 0.0, 255.0) - levels) * around
    return cover


def _shade(levels: np.ndarray, cover: np.ndarray, letters: int, rng: np.random.Generator) -> None:
    """Draws a shadow, or the depth of solid letters, in place."""
    right, down = rng.uniform(-0.1, 0.1, 2) * letters
    level, strength = rng.uniform(0.0, 255.0), rng.uniform(0.2, 0.6)
    steps = (1.0,) if rng.random() < 0.5 else (0.34, 0.67, 1.0)
    shadow = np.max([np.roll(cover, (round(step * down), round(step * right)), (0, 1)) for step in steps], axis=0)
    levels += (level - levels) * shadow * np.float32(strength)


def _gradient(shape: tuple[int, ...], text: float, paper: float, rng: np.random.Generator) -> np.ndarray:
    """Returns the grey levels of ink that is fainter at one side, or in the middle."""
    height, width = shape
    way = np.linspace(0.0, 1.0, height)[:, np.newaxis] if rng.random() < 0.6 else np.linspace(0.0, 1.0, width)
    faint = np.abs(way - rng.random()) * rng.uniform(0.2, 0.6)
    return (text + (paper - text) * faint).astype(np.float32)


def _mark(levels: np.ndarray, ink: np.ndarray, paper: float, text: float, rng: np.random.Generator) -> None:
    """Draws rules, a box, a stamp, strokes or a watermark over everything, in place."""
    height, width = levels.shape
    drawn = Image.new("L", (width, height))
    pen = ImageDraw.Draw(drawn)
    thick = max(round(height * rng.uniform(0.02, 0.07)), 1)
    kind = rng.integers(6)
    strength, level = rng.uniform(0.3, 1.0), paper + (text - paper) * rng.uniform(0.3, 1.0)
    if kind == 0:  # a rule under the text, or through it
        row = height * (rng.uniform(0.8, 1.0) if rng.random() < 0.7 else rng.uniform(0.3, 0.7))
        pen.line([(0, row), (width, row + rng.uniform(-0.05, 0.05) * height)], 255, thick)
    elif kind == 1:  # the sides of a box or a cell
        edges = [-thick if rng.random() < 0.4 else rng.uniform(0.0, 0.06) * height for _ in range(4)]
        pen.rectangle((edges[0], edges[1], width - 1 - edges[2], height - 1 - edges[3]), outline=255, width=thick)
    elif kind == 2:  # a stamp
        x, y = rng.uniform(0, width), height * rng.uniform(-0.5, 1.5)
        for radius in height * rng.uniform(0.6, 2.5) * np.array([1.0, rng.uniform(0.6, 0.9)]):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=255, width=thick)
        strength *= 0.7
    elif kind == 3:  # strokes of a pen, scratches, folds
        for _ in range(rng.integers(1, 4)):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            reach = rng.uniform(-2.0, 2.0, 2) * height
            pen.line([(x, y), (x + reach[0], y + reach[1])], 255, max(thick // 2, 1))
        if rng.random() < 0.4:
            level = paper
    elif kind == 4:  # an area of another grey level, such as a marker or a button
        start, end = np.sort(rng.uniform(0, width, 2))
        pen.rectangle((start, rng.uniform(-0.2, 0.3) * height, end, rng.uniform(0.7, 1.2) * height), fill=255)
        strength = rng.uniform(0.05, 0.3)
    else:  # a watermark: large letters across
        size = rng.uniform(1.5, 3.0)
        letters = Image.fromarray(ink).crop((0, 0, min(width, 4 * height), height))
        letters = letters.resize((round(letters.width * size), round(height * size))).rotate(rng.uniform(-45.0, 45.0))
        drawn.paste(letters, (int(rng.uniform(-0.5, 0.8) * letters.width), int(rng.uniform(-0.8, 0.2) * letters.height)))
        strength = rng.uniform(0.1, 0.35)
    levels += (level - levels) * (np.asarray(drawn, np.float32) / 255.0) * np.float32(strength)
