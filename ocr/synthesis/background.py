"""Backgrounds: surfaces with a texture, and the light on them."""

import numpy as np
from PIL import Image


def smooth_noise(shape: tuple[int, ...], grain: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Returns random levels that change over some pixels down and across, float32[height, width] about 0."""
    height, width = shape
    size = [max(round(length / each), 1) + 1 for length, each in zip(shape, grain, strict=True)]
    coarse = Image.fromarray(rng.standard_normal(size, np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def texture(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draws a texture.

    Args:
      shape: height and width in pixels.
      rng: source of randomness.

    Returns:
      The texture, float32[height, width] from about -1 to 1; and the strongest that letters stay legible on, relative to their
      contrast.
    """
    height, width = shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, np.newaxis]
    kind = rng.integers(5)
    if kind == 0:  # paper, plaster, stone
        grain = rng.uniform(1.0, 3.0)
        return 0.3 * smooth_noise(shape, (grain, grain), rng) + 0.3 * smooth_noise(shape, (4 * grain, 4 * grain), rng), 0.35
    if kind == 1:  # wood, brushed metal, folds
        across, down = rng.permuted([rng.uniform(1.0, 4.0), rng.uniform(20.0, 100.0)])
        return 0.5 * smooth_noise(shape, (down, across), rng), 0.35
    if kind == 2:  # cloth, and the grid of a screen
        warp, weft = 2 * np.pi / rng.uniform(2.5, 7.0, 2)
        return 0.5 * (np.sin(warp * x + rng.uniform(0, 6)) + np.sin(weft * y)) + 0.2 * smooth_noise(shape, (3, 3), rng), 0.25
    if kind == 3:  # stripes, waves
        angle, wave = rng.uniform(0.0, np.pi), 2 * np.pi / rng.uniform(6.0, 40.0)
        phase = wave * (np.cos(angle) * x + np.sin(angle) * y) + rng.uniform(0.0, 2.0) * smooth_noise(shape, (30, 30), rng)
        return np.sin(phase) ** rng.choice([1, 5]), 0.3
    grain = rng.uniform(0.3, 1.5) * height  # a picture: areas with edges
    areas = np.tanh(rng.uniform(2.0, 8.0) * smooth_noise(shape, (grain, grain), rng))
    return 0.8 * areas + 0.2 * smooth_noise(shape, (4, 4), rng), 0.4


def light(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draws a gradient of the light, and at times the edge of a shadow; returns a factor, float32[height, width], about 1."""
    height, width = shape
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, np.newaxis]
    factor = 1.0 + rng.uniform(-0.3, 0.3) * x + rng.uniform(-0.15, 0.15) * y - rng.uniform(0.0, 0.3) * x**2
    if rng.random() < 0.3:
        place = x + rng.uniform(-0.3, 0.3) * y - rng.uniform(-1.0, 1.0)
        factor = factor * (1.0 - rng.uniform(0.1, 0.5) / (1.0 + np.exp(rng.choice([-1, 1]) * rng.uniform(5.0, 60.0) * place)))
    return factor
