"""Augmentation of training lines: random changes that keep the text readable, determined by a seed."""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ocr.images import augment_tfa
from ocr.images.header import SCALED_HEIGHT

# Share of lines that get a change. The amounts below are the largest, at strength 1; those in pixels are for lines 32 high.
_SQUEEZED, _WARPED, _BLURRED, _RELIT, _NOISY = 0.3, 0.3, 0.25, 0.5, 0.3
_INVERTED = 0.1  # of the relit lines; scaled by the strength, since nothing can be inverted a little
_NARROWED, _LOWERED = 0.5, 0.4  # shares of the width and of the height lost
_SLOPE = 1.5  # pixels that an end of the line rises or falls
_MAX_SLOPE = 0.03  # of a line that is too short to rise so far
_LEAN = 2.4  # pixels that the top of a letter moves sideways
_MARGIN = 1.5  # pixels that a line is shrunk by at the top and at the bottom, and may then be shifted by
_BLUR = 0.25  # weight of each of a pixel's two neighbours
_CONTRAST = 0.4  # lost or gained
_BRIGHTNESS = 50.0  # grey levels
_NOISE = 10.0  # standard deviation in grey levels
_CUT_OUT, _HOLE = 0.3, 8  # share of lines, and side of the square in pixels; with TensorFlow Addons only


def augment(
    pixels: tf.Tensor, width: tf.Tensor, strength: float, seed: tf.Tensor, with_addons: bool = False, narrow: bool = True
) -> tf.Tensor:
    """Changes each line of a batch independently; about one in eight stays unchanged.

    A line may be squeezed in width and in height, sloped, slanted, shifted up or down, blurred, inverted, changed in contrast
    and brightness, and get noise. No part of it leaves the image, and only noise clips grey levels. TensorFlow Addons adds
    cutout.

    Args:
      pixels: uint8[B, H, W], 0 beyond a line's width.
      width: int32[B], in pixels, at least 1.
      strength: how much lines are changed, above 0 and at most 1.
      seed: int32[2] or int64[2], which determines the result.
      with_addons: whether TensorFlow Addons slopes and slants the lines, and cuts holes.
      narrow: whether lines may be squeezed in width, which moves their characters.

    Returns:
      uint8[B, H, W], 0 beyond a line's width.

    Raises:
      ValueError: the strength is out of range.
    """
    if not 0.0 < strength <= 1.0:
        raise ValueError(f"strength ({strength}) must be above 0 and at most 1")
    chances = [_WARPED, _BLURRED, _RELIT, _NOISY, _INVERTED * strength]
    draws = tf.random.stateless_uniform([tf.shape(pixels)[0], len(chances) + 9], seed)
    warped, blurred, relit, noisy, inverted = tf.unstack(draws[:, : len(chances)] < chances, axis=1)
    amounts = draws[:, len(chances) :] * strength
    signed = amounts[:, :5] * 2.0 - strength

    own = tf.sequence_mask(width, tf.shape(pixels)[2])[:, tf.newaxis]
    # A line's last column is repeated beyond its end, so that a warp or a blur draws in nothing else.
    pixels = tf.where(own, pixels, tf.gather(pixels, width[:, tf.newaxis] - 1, axis=2, batch_dims=1))
    squeezes = tf.random.stateless_uniform([tf.shape(pixels)[0], 5], tf.random.experimental.stateless_fold_in(seed, 2))
    kept = 1.0 - squeezes[:, 1:3] * strength * [_NARROWED if narrow else 0.0, _LOWERED]
    pixels = _change(squeezes[:, 0] < _SQUEEZED, _squeeze, pixels, width, kept, squeezes[:, 3:])
    warp = augment_tfa.warp if with_addons else _warp
    pixels = _change(warped, warp, pixels, width, *_geometry(pixels.shape[1], width, signed, amounts[:, 5]))
    if with_addons:
        holes = tf.random.stateless_uniform([tf.shape(pixels)[0], 3], tf.random.experimental.stateless_fold_in(seed, 3))
        cut_out = functools.partial(augment_tfa.cut_out, side=2 * max(round(_HOLE * strength / 2), 1))
        pixels = _change(holes[:, 0] < _CUT_OUT, cut_out, pixels, width, holes[:, 1:])
    pixels = _change(blurred, _blur, pixels, amounts[:, 6:8] * _BLUR)
    pixels = _change(relit, _relight, pixels, 1.0 + signed[:, 3] * _CONTRAST, signed[:, 4] * _BRIGHTNESS, inverted)
    add_noise = functools.partial(_add_noise, seed=tf.random.experimental.stateless_fold_in(seed, 1))
    pixels = _change(noisy, add_noise, pixels, amounts[:, 8] * _NOISE)
    return pixels * tf.cast(own, tf.uint8)


def augmenter(strength: float, with_addons: bool = False, narrow: bool = True) -> Callable[..., tf.Tensor] | None:
    """Returns `augment` with these settings, to be called with pixels, width and seed; None if the strength is 0."""
    return functools.partial(augment, strength=strength, with_addons=with_addons, narrow=narrow) if strength else None


def _change(chosen: tf.Tensor, change: Callable[..., tf.Tensor], pixels: tf.Tensor, *parameters: tf.Tensor) -> tf.Tensor:
    """Changes the chosen lines, bool[B]; the others cost no time."""
    rows = tf.cast(tf.where(chosen)[:, 0], tf.int32)
    changed = change(*(tf.gather(values, rows) for values in (pixels, *parameters)))
    return tf.dynamic_stitch([tf.range(tf.shape(pixels)[0]), rows], [pixels, changed])  # later values win


def _geometry(height: int, width: tf.Tensor, signed: tf.Tensor, margin: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns affine maps that slope, slant, shrink and shift lines without moving any part of them out of the image.

    Args:
      height: in pixels.
      width: int32[B], in pixels.
      signed: float32[B, 3 or more], from -1 to 1: slope, lean and shift, as fractions of their maxima.
      margin: float32[B], above and below, from 0 to 1, as a fraction of its maximum.

    Returns:
      slope, lean, along, down and shift, float32[B] each: relative to the line's centre, (x, y) goes to
      (along * x + lean * y, slope * x + down * y + shift).
    """
    length, middle_y, unit = tf.maximum(_middle(width), 0.5), (height - 1) / 2.0, height / SCALED_HEIGHT
    margin *= _MARGIN * unit
    slope = signed[:, 0] * tf.minimum(_SLOPE * unit / length, _MAX_SLOPE)
    sideways = signed[:, 1] * tf.minimum(_LEAN * unit, 0.1 * _middle(width))
    down = 1.0 - (tf.abs(slope) * length + margin) / middle_y
    return slope, sideways / middle_y, 1.0 - tf.abs(sideways) / length, down, signed[:, 2] * margin


def _middle(width: tf.Tensor) -> tf.Tensor:
    """Returns the column in the middle of a line, a float."""
    return (tf.cast(width, tf.float32) - 1.0) / 2.0


def _warp(
    pixels: tf.Tensor, width: tf.Tensor, slope: tf.Tensor, lean: tf.Tensor, along: tf.Tensor, down: tf.Tensor, shift: tf.Tensor
) -> tf.Tensor:
    """Warps lines uint8[N, H, W] by the maps that `_geometry` returns."""
    middle_x, middle_y = _middle(width), (pixels.shape[1] - 1) / 2.0
    # The op takes the inverse map, from output to input.
    scale = 1.0 / (along * down - lean * slope)
    a0, a1, b0, b1 = down * scale, -lean * scale, -slope * scale, along * scale
    a2 = middle_x - a0 * middle_x - a1 * (middle_y + shift)
    b2 = middle_y - b0 * middle_x - b1 * (middle_y + shift)
    return _mapped(pixels, a0, a1, a2, b0, b1, b2)


def _squeeze(pixels: tf.Tensor, width: tf.Tensor, kept: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Makes letters narrower and lower, and repeats the edges around them.

    Args:
      pixels: uint8[N, H, W].
      width: int32[N], in pixels.
      kept: float32[N, 2], shares of the width and of the height.
      place: float32[N, 2], from 0 to 1: how much of the room is before, and how much above.

    Returns:
      uint8[N, H, W].
    """
    last = tf.stack([tf.cast(width, tf.float32), tf.fill(tf.shape(width), float(pixels.shape[1]))], axis=1) - 1.0
    zero, scale, start = tf.zeros_like(kept[:, 0]), 1.0 / kept, -place * (1.0 / kept - 1.0) * last
    return _mapped(pixels, scale[:, 0], zero, start[:, 0], zero, scale[:, 1], start[:, 1])


def _mapped(pixels: tf.Tensor, *rows: tf.Tensor) -> tf.Tensor:
    """Takes pixel (a0 * x + a1 * y + a2, b0 * x + b1 * y + b2) of each line, uint8[N, H, W], for (x, y)."""
    zero = tf.zeros_like(rows[0])
    mapped = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[..., tf.newaxis],
        transforms=tf.stack([*rows, zero, zero], axis=1),
        output_shape=tf.shape(pixels)[1:],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return mapped[..., 0]


def _blur(pixels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Blurs lines uint8[N, H, W]; the weights of a neighbour, float32[N, 2], are across and along the line."""
    across, along = weights[:, :1, tf.newaxis], weights[:, 1:, tf.newaxis]
    lines = tf.matmul(tf.eye(pixels.shape[1]) + across * _curvature(pixels.shape[1]), tf.cast(pixels, tf.float32))
    left = tf.concat([lines[:, :, :1], lines[:, :, :-1]], axis=2)
    right = tf.concat([lines[:, :, 1:], lines[:, :, -1:]], axis=2)
    return _to_uint8(lines * (1.0 - 2.0 * along) + (left + right) * along)


def _curvature(height: int) -> np.ndarray:
    """Returns the matrix, float32[height, height], that gives each row its neighbours minus itself."""
    edges = np.diag([-1.0] + [-2.0] * (height - 2) + [-1.0])
    return (edges + np.eye(height, k=1) + np.eye(height, k=-1)).astype(np.float32)


def _relight(pixels: tf.Tensor, contrast: tf.Tensor, brightness: tf.Tensor, inverted: tf.Tensor) -> tf.Tensor:
    """Changes the contrast and brightness of lines without clipping grey levels.

    Args:
      pixels: uint8[N, H, W].
      contrast: float32[N], a factor.
      brightness: float32[N], in grey levels.
      inverted: bool[N].

    Returns:
      uint8[N, H, W].
    """
    darkest = tf.cast(tf.reduce_min(pixels, [1, 2]), tf.float32)
    spread = tf.cast(tf.reduce_max(pixels, [1, 2]), tf.float32) - darkest
    factor = tf.minimum(contrast, 255.0 / tf.maximum(spread, 1.0))
    new_darkest = tf.clip_by_value(darkest + spread * (1.0 - factor) / 2.0 + brightness, 0.0, 255.0 - spread * factor)
    offset = new_darkest - darkest * factor
    factor, offset = tf.where(inverted, -factor, factor), tf.where(inverted, 255.0 - offset, offset)
    return _to_uint8(tf.cast(pixels, tf.float32) * factor[:, tf.newaxis, tf.newaxis] + offset[:, tf.newaxis, tf.newaxis])


def _add_noise(pixels: tf.Tensor, deviation: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Adds noise of a standard deviation in grey levels, float32[N], to lines uint8[N, H, W]."""
    # The number of set bits among 16 is nearly normal with a deviation of 2, and five times as fast to draw.
    shape = tf.shape(pixels)
    bits = tf.random.stateless_uniform([shape[0], -(-shape[1] * shape[2] // 4)], seed, None, None, tf.uint64)
    count = tf.raw_ops.PopulationCount(x=tf.bitcast(bits, tf.uint16))
    count = tf.reshape(tf.reshape(count, [shape[0], -1])[:, : shape[1] * shape[2]], shape)
    noise = (tf.cast(count, tf.float32) - 8.0) * (deviation[:, tf.newaxis, tf.newaxis] / 2.0)
    return _to_uint8(tf.cast(pixels, tf.float32) + noise)


def _to_uint8(lines: tf.Tensor) -> tf.Tensor:
    return tf.saturate_cast(tf.round(lines), tf.uint8)
