"""Doubtful lines that are read again, narrower, wider, larger and smaller: which may be, and which text is taken."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ocr.images import preprocess
from ocr.images.noinline import noinline
from ocr.model import turning

SURE = 0.9  # probability of a character, as `turning.per_character` has it, from which on a line is not read again
_WIDEST = 40  # times its height; several changed copies of a longer line would take much memory
_BEYOND = 4  # columns that are repeated beyond a line's end, so that scaling draws in nothing else


class Way(NamedTuple):
    """How a line is changed.

    Attributes:
      cut: share of its height that is cut off above, and as much below; if negative, the edges are repeated there instead.
      stretch: how much wider its letters become than higher.
    """

    cut: float
    stretch: float


# Of a dozen ways that were tried on photographed lines, those that find most texts together: see docs/chinese/experiments.md.
WAYS = (Way(0, 0.8), Way(0, 1.4), Way(1 / 7, 1), Way(-1 / 8, 1))

# pixels uint8[B, H, W], width int32[B], status int32[B] -> what is read, and the place there of each line: see `best`
Read = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[list[tf.Tensor], tf.Tensor]]


def best(
    read: Read, outputs: list[tf.Tensor], place: tf.Tensor, pixels: tf.Tensor, width: tf.Tensor, turned: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Reads doubtful lines in all `WAYS`, too, and takes the most probable text.

    Nothing else is run if no line is doubtful. An empty text, which may be very probable, never takes another's place. Lines
    that are read turned stay as they are.

    Args:
      read: reads lines; the first outputs are texts, confidences and statuses, one a line.
      outputs: what it returned for these lines.
      place: likewise, int32[B].
      pixels: uint8[B, H, W], anything beyond a line's width.
      width: int32[B], in pixels, at least 1.
      turned: int32[B], by how many degrees each was turned to read it.

    Returns:
      Outputs, and the place there of each line, int32[B].
    """
    text, confidence, code = (tf.gather(output, place) for output in outputs[:3])
    doubtful = (code == preprocess.READ) & (turning.per_character(text, confidence) < SURE)
    doubtful &= (turned == 0) & (width <= _WIDEST * tf.shape(pixels)[1])

    @noinline
    def read_again() -> tuple[list[tf.Tensor], tf.Tensor]:
        rows = tf.cast(tf.where(doubtful), tf.int32)  # [K, 1]
        changed, widths = _change(tf.gather_nd(pixels, rows), tf.gather_nd(width, rows))
        others, other_place = read(changed, widths, tf.zeros_like(widths) + preprocess.READ)
        other_text, value = (tf.gather(output, other_place) for output in others[:2])
        value = tf.where(other_text == "", 0.0, value)
        value, other_place = (tf.transpose(tf.reshape(each, [len(WAYS), -1])) for each in (value, other_place))  # [K, ways]
        chosen = tf.gather(other_place, tf.argmax(value, axis=1), batch_dims=1)
        is_better = tf.reduce_max(value, axis=1) > tf.gather_nd(confidence, rows)
        chosen = tf.where(is_better, tf.size(outputs[1]) + chosen, tf.gather_nd(place, rows))
        joined = [tf.concat(pair, axis=0) for pair in zip(outputs, others, strict=True)]
        return joined, tf.tensor_scatter_nd_update(place, rows, chosen)

    return tf.cond(tf.reduce_any(doubtful), read_again, lambda: (outputs, place))


def _change(pixels: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Changes lines uint8[K, H, W] in each of the `WAYS`.

    Returns:
      uint8[ways * K, H, V] and int32[ways * K], the widths; first all lines in the first way.
    """
    height = pixels.shape[1]
    column = tf.minimum(tf.range(tf.reduce_max(width) + _BEYOND), width[:, tf.newaxis] - 1)
    pixels = tf.gather(pixels, column, axis=2, batch_dims=1)
    changed, widths = [], []
    for way in WAYS:
        cut = round(way.cut * height)
        row = tf.clip_by_value(tf.range(cut, height - cut), 0, height - 1)
        down = height / (height - 2 * cut)
        columns = tf.cast(tf.shape(pixels)[2], tf.float32) * way.stretch * down
        scaled = tf.raw_ops.ScaleAndTranslate(
            images=tf.gather(pixels, row, axis=1)[:, :, :, tf.newaxis],
            size=tf.stack([height, tf.cast(columns, tf.int32)]),
            scale=[down, way.stretch * down],
            translation=[0.0, 0.0],
            kernel_type="triangle",
        )
        changed.append(tf.cast(tf.round(scaled[:, :, :, 0]), tf.uint8))
        widths.append(tf.maximum(tf.cast(tf.round(tf.cast(width, tf.float32) * way.stretch * down), tf.int32), 1))
    widest = tf.reduce_max(tf.stack(widths))
    padded = [tf.pad(each, [[0, 0], [0, 0], [0, tf.maximum(widest - tf.shape(each)[2], 0)]])[:, :, :widest] for each in changed]
    return tf.concat(padded, axis=0), tf.concat(widths, axis=0)
