"""Lines that are upside down or on their side: which may be, what they are once turned, and which way they are read best."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ocr.images import preprocess
from ocr.images.noinline import noinline

SURE = 0.7  # probability of a character, as `per_character` has it; upside down, 95% of printed lines of Chinese are below
_RATIO, _PER_CHARACTER = 5.0, 1.2  # how many times more probable a text and its characters have to be once they are turned

# pixels uint8[B, H, W], width int32[B], status int32[B] -> what is read, and the place there of each line: see `best`
Read = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[list[tf.Tensor], tf.Tensor]]


class Lines(NamedTuple):
    """Lines as `preprocess.read_rows` returns them.

    Attributes:
      pixels: uint8[B, H, W], anything beyond a line's width.
      width: int32[B], in pixels.
    """

    pixels: tf.Tensor
    width: tf.Tensor


def best(
    read: Read, outputs: list[tf.Tensor], place: tf.Tensor, lines: Lines, on_side: Lines
) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
    """Reads doubtful lines turned, too, and takes the most probable text.

    Lines of tall images are turned by 90 degrees both ways, the others by 180. Nothing else is run if no line is doubtful.
    A line stays as it is unless the other text is much more probable: then next to no upright line is turned. The image of a
    line on its side is scaled to a few columns, in which an empty text may be very probable; so only characters count there.

    Args:
      read: reads lines; the first outputs are texts, confidences and statuses, one a line.
      outputs: what it returned for these lines.
      place: likewise, int32[B].
      lines: the lines.
      on_side: those of tall images, turned clockwise; of the others the width is 0.

    Returns:
      Outputs, the place there of each line, int32[B], and by how many degrees it was turned clockwise, int32[B].
    """
    text, confidence, status = (tf.gather(output, place) for output in outputs[:3])
    is_tall = on_side.width > 0
    before = per_character(text, confidence)
    may_be_read = (status == preprocess.READ) | (is_tall & (status == preprocess.NO_CONTRAST))
    doubtful = may_be_read & (before < SURE)

    @noinline
    def read_turned() -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        rows, degrees, turned = _turn(doubtful, lines, on_side)
        others, other_place = read(*turned, tf.zeros_like(rows) + preprocess.READ)
        other_text, other_confidence = (tf.gather(output, other_place) for output in others[:2])
        after, earlier = per_character(other_text, other_confidence), tf.gather(before, rows)
        is_better = (after > _PER_CHARACTER * earlier) & tf.where(
            tf.gather(is_tall, rows), after >= SURE, other_confidence > _RATIO * tf.gather(confidence, rows)
        )
        # Of each line the most probable text once it is turned; the first of two that are equally probable.
        value = tf.where(is_better, other_confidence, 0.0)
        highest = tf.math.unsorted_segment_max(value, rows, tf.size(place))
        number = tf.range(tf.size(rows))
        is_chosen = is_better & (value == tf.gather(highest, rows))
        chosen = tf.math.unsorted_segment_min(tf.where(is_chosen, number, tf.size(rows)), rows, tf.size(place))
        is_turned = chosen < tf.size(rows)
        chosen = tf.where(is_turned, chosen, 0)
        places = tf.where(is_turned, tf.size(place) + tf.gather(other_place, chosen), place)
        joined = [tf.concat(pair, axis=0) for pair in zip(outputs, others, strict=True)]
        return joined, places, tf.where(is_turned, tf.gather(degrees, chosen), 0)

    return tf.cond(tf.reduce_any(doubtful), read_turned, lambda: (outputs, place, tf.zeros_like(place)))


def per_character(text: tf.Tensor, confidence: tf.Tensor) -> tf.Tensor:
    """Returns the geometric mean over a text's characters that has its confidence as the product, float32[B]; 0 if empty."""
    length = tf.strings.length(text, unit="UTF8_CHAR")
    return tf.where(length > 0, confidence ** (1.0 / tf.cast(tf.maximum(length, 1), tf.float32)), 0.0)


def _turn(doubtful: tf.Tensor, lines: Lines, on_side: Lines) -> tuple[tf.Tensor, tf.Tensor, Lines]:
    """Turns lines that are doubtful, bool[B].

    Returns:
      The rows of the turned lines, int32[K]; by how many degrees each is turned clockwise, int32[K]; and the turned lines.
    """
    columns = tf.maximum(tf.shape(lines.pixels)[2], tf.shape(on_side.pixels)[2])
    wide, tall = (tf.cast(tf.where(doubtful & which)[:, 0], tf.int32) for which in (on_side.width == 0, on_side.width > 0))
    flat, clockwise = (
        Lines(tf.gather(source.pixels, rows), tf.gather(source.width, rows))
        for source, rows in ((lines, wide), (on_side, tall))
    )
    ways = ((wide, 180, _upside_down(flat)), (tall, 90, clockwise), (tall, 270, _upside_down(clockwise)))
    padded = [tf.pad(way.pixels, [[0, 0], [0, 0], [0, columns - tf.shape(way.pixels)[2]]]) for _, _, way in ways]
    return (
        tf.concat([rows for rows, _, _ in ways], axis=0),
        tf.concat([tf.zeros_like(rows) + degrees for rows, degrees, _ in ways], axis=0),
        Lines(tf.concat(padded, axis=0), tf.concat([way.width for _, _, way in ways], axis=0)),
    )


def _upside_down(lines: Lines) -> Lines:
    return Lines(tf.reverse_sequence(lines.pixels, lines.width, seq_axis=2, batch_axis=0)[:, ::-1], lines.width)


def columns(start: tf.Tensor, end: tf.Tensor, turned: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns in which columns of an image as it is shown characters are.

    Args:
      start: int32[B, N], their first columns in the image as it was read.
      end: int32[B, N], the columns after their last.
      turned: int32[B], by how many degrees each image was turned clockwise to read it.
      width: int32[B], of the image as it is shown, in pixels.

    Returns:
      The first columns and those after the last, int32[B, N] each: all of an image that was turned by 90 or 270 degrees.
    """
    turned, width = turned[:, tf.newaxis], width[:, tf.newaxis]
    is_down, is_on_side = turned == 180, turned % 180 == 90
    first = tf.where(is_down, width - end, tf.where(is_on_side, 0, start))
    return first, tf.where(is_down, width - start, tf.where(is_on_side, width, end))
