"""Degrades a line as scanners and cameras do: grey levels, rules, uneven paper, blur, noise."""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from ocr.synthesis import camera, scene
from ocr.synthesis.styles import Style

_MIN_CONTRAST = 40.0  # grey levels


def degrade(ink: Image.Image, style: Style, rng: np.random.Generator) -> Image.Image:
    """Puts ink on paper, and degrades the image as a scanner or a camera does.

    Args:
      ink: grey image, 255 where there is ink.
      style: the distribution of the effects.
      rng: source of randomness.

    Returns:
      A grey image of the same size.
    """
    if style.world:
        levels, contrast = scene.compose(np.asarray(ink), style, style.world, rng)
        return camera.take(levels, contrast, np.asarray(ink), style.world, rng)
    if rng.random() < style.weight:
        strokes = ImageFilter.MaxFilter(3) if rng.random() < 0.6 else ImageFilter.MinFilter(3)
        ink = Image.blend(ink, ink.filter(strokes), rng.uniform(0.2, 0.7))
    cover = np.asarray(ink).astype(np.float32) / 255.0
    if rng.random() < style.rules:
        _add_rules(cover, rng)
    dark, light = float(rng.uniform(*style.ink)), float(rng.uniform(*style.paper))
    if rng.random() < style.flat:
        middle, contrast = rng.uniform(60.0, 195.0), rng.uniform(_MIN_CONTRAST, 120.0)
        dark, light = middle - contrast / 2, middle + contrast / 2
    if rng.random() < style.inverted:
        dark, light = light, dark
    levels = np.full_like(cover, light)
    if rng.random() < style.outlined:
        around = np.asarray(ImageChops.offset(ink, *map(int, rng.integers(-1, 3, 2))).filter(ImageFilter.MaxFilter(3)))
        levels += (rng.uniform(0.0, 255.0) - light) * rng.uniform(0.3, 0.8) * (around / 255.0)
    levels += (dark - levels) * cover
    if rng.random() < style.uneven:
        levels += _unevenness(levels.shape, abs(light - dark), rng)
    image = Image.fromarray(np.clip(levels, 0.0, 255.0).astype(np.uint8))
    if style.crisp:
        return image
    if rng.random() < style.shaken:
        image = _lose_detail(image, rng)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*style.blur)))
    strength = rng.uniform(*style.noise) * min(abs(light - dark) / 120.0, 1.0)  # else faint letters would be illegible
    noise = rng.standard_normal((image.height, image.width), np.float32) * np.float32(strength)
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0.0, 255.0).astype(np.uint8))


def _add_rules(cover: np.ndarray, rng: np.random.Generator) -> None:
    """Adds an underline, rules of a table, or strokes of the lines above and below, in place."""
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
    else:  # of the neighbouring lines, imitated with the line's own strokes
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


def _lose_detail(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Applies motion blur, or reduces the resolution."""
    if rng.random() < 0.5:
        factor = rng.uniform(0.45, 0.85)
        small = image.resize((max(round(image.width * factor), 1), max(round(image.height * factor), 1)), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.BILINEAR if rng.random() < 0.7 else Image.Resampling.NEAREST)
    x, y = [(1, 0), (0, 1), (1, 1), (1, -1)][rng.integers(4)]
    length = int(rng.integers(2, 5 if x and not y else 4))
    padded = np.pad(np.asarray(image).astype(np.float32), length, "edge")
    shifted = [padded[length + y * i :, length + x * i :][: image.height, : image.width] for i in range(length)]
    return Image.fromarray(np.mean(shifted, axis=0).astype(np.uint8))
