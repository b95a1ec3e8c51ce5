"""Cameras, scanners and files: blur, resolution, noise and compression of a picture."""

import io

import numpy as np
from PIL import Image, ImageFilter

from ocr.synthesis import background
from ocr.synthesis.styles import World

_MIN_LETTER = 8.0  # pixels: the lowest resolution that letters are taken at
_BLOCK = 8  # of JPEG, in pixels
_COLOUR_CONTRAST = 60.0  # grey levels: what JPEG files keep of fainter colours is not legible
_REACH = 2  # of kernels of Pillow, in pixels
# How pictures are reduced, and enlarged again.
_REDUCING = (Image.Resampling.BOX, Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
_ENLARGING = (*[Image.Resampling.BILINEAR] * 6, *[Image.Resampling.BICUBIC] * 4, Image.Resampling.NEAREST)


def take(levels: np.ndarray, contrast: float, ink: np.ndarray, world: World, rng: np.random.Generator) -> Image.Image:
    """Takes a picture of a scene, in some resolution, and scales it to the size of the scene.

    Centres stay where they are: kernels are symmetric, and scaling is of the whole image.

    Args:
      levels: grey levels, float32[height, width].
      contrast: difference between text and background in grey levels.
      ink: uint8[height, width], 255 where there is ink: the letters must not become too small.
      world: the distribution of the effects.
      rng: source of randomness.

    Returns:
      A grey image of the same size.
    """
    height, width = levels.shape
    image = Image.fromarray(np.clip(levels, 0.0, 255.0).astype(np.uint8))
    letters = max(int(np.count_nonzero(ink.max(1) > 127)), 1)
    pixels = np.exp(rng.uniform(*np.log(world.resolution)))
    scale = min(max(pixels / height, _MIN_LETTER / letters), 1.0)
    reduced = (max(round(width * scale), 1), max(round(height * scale), 1))
    if scale < 1.0:
        image = image.resize(reduced, _REDUCING[rng.integers(len(_REDUCING))])
    radius = rng.uniform(*world.defocus) * letters * scale
    if radius > 0.4:
        image = _convolved(image, _disc(radius))
    if rng.random() < world.shaken:
        image = _convolved(image, _streak(rng.uniform(1.0, max(0.12 * letters * scale, 1.5)), rng.uniform(0.0, np.pi)))
    if rng.random() < world.sharpened:
        image = image.filter(ImageFilter.UnsharpMask(rng.uniform(0.6, 2.0), int(rng.integers(50, 200)), 0))
    image = _noisy(image, rng.uniform(*world.noise) * contrast, rng)
    if rng.random() < world.compressed:
        axis = _colour_axis(rng) if rng.random() < world.coloured and contrast >= _COLOUR_CONTRAST else None
        for _ in range(rng.integers(1, 3)):
            image = _compressed(image, axis, round(100 - 75 * rng.random() ** 2), rng)
    return image if image.size == (width, height) else image.resize((width, height), _ENLARGING[rng.integers(len(_ENLARGING))])


def _disc(radius: float) -> np.ndarray:
    """Returns the kernel of a lens out of focus: a disc of a radius in pixels."""
    fine = (np.arange(5 * (2 * _REACH + 1)) - 12) / 5.0  # five points a pixel
    inside = fine[:, np.newaxis] ** 2 + fine**2 <= radius**2
    return inside.reshape(2 * _REACH + 1, 5, 2 * _REACH + 1, 5).sum((1, 3))


def _streak(length: float, angle: float) -> np.ndarray:
    """Returns the kernel of a camera that moves by a length in pixels, at an angle in radians."""
    kernel = np.zeros((2 * _REACH + 1, 2 * _REACH + 1))
    for part in np.linspace(-0.5, 0.5, 15) * min(length, 2.0 * _REACH):
        x, y = _REACH + part * np.cos(angle), _REACH + part * np.sin(angle)
        left, top = min(int(x), 2 * _REACH - 1), min(int(y), 2 * _REACH - 1)
        across, down = np.array([1 - (x - left), x - left]), np.array([1 - (y - top), y - top])
        kernel[top : top + 2, left : left + 2] += down[:, np.newaxis] * across
    return kernel


def _convolved(image: Image.Image, kernel: np.ndarray) -> Image.Image:
    """Convolves an image with a kernel, and the image with its edges continued."""
    padded = Image.fromarray(np.pad(np.asarray(image), _REACH, "edge"))
    blurred = padded.filter(ImageFilter.Kernel(kernel.shape, kernel.ravel().tolist(), kernel.sum()))
    return blurred.crop((_REACH, _REACH, _REACH + image.width, _REACH + image.height))


def _noisy(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Adds noise that is stronger where there is more light, part of it in grains of some pixels, as after denoising."""
    if strength < 0.5:
        return image
    levels = np.asarray(image).astype(np.float32)
    noise = rng.standard_normal(levels.shape, np.float32)
    if rng.random() < 0.5:
        grain = rng.uniform(1.2, 3.0)
        noise = 0.3 * noise + background.smooth_noise(levels.shape, (grain, grain), rng)
    levels = levels + noise * np.sqrt(0.2 + levels / 255.0) * np.float32(strength)
    return Image.fromarray(np.clip(levels, 0.0, 255.0).astype(np.uint8))


def _colour_axis(rng: np.random.Generator) -> np.ndarray:
    """Draws the axis that text and background lie on, in red, green and blue; absolute values add up to 1."""
    axis = 1.0 + rng.choice([0.4, 1.0, 2.0]) * rng.standard_normal(3)
    return axis / np.abs(axis).sum()


def _compressed(image: Image.Image, axis: np.ndarray | None, quality: int, rng: np.random.Generator) -> Image.Image:
    """Returns what a JPEG file keeps of an image; its blocks begin anywhere, as those of a crop do.

    The image is grey, or has colours on an axis and is grey again afterwards, as the network sees it: JPEG keeps half the
    resolution of what differs in colour alone.
    """
    left, top = map(int, rng.integers(0, _BLOCK, 2))
    padded = Image.fromarray(np.pad(np.asarray(image), ((top, _BLOCK), (left, _BLOCK)), "edge"))
    if axis is not None:
        levels = np.arange(256)[:, np.newaxis] - 127.5
        colours = np.clip(np.rint(127.5 + levels * axis / (axis @ axis)), 0, 255).astype(int)
        padded = Image.merge("RGB", [padded.point(channel.tolist()) for channel in colours.T])
    file = io.BytesIO()
    padded.save(file, "jpeg", quality=quality)
    with Image.open(file) as decoded:
        cropped = decoded.crop((left, top, left + image.width, top + image.height))
    return cropped if axis is None else cropped.convert("L", (*axis, 127.5 * (1.0 - axis.sum())))
