"""Times the CTC decoders."""

import sys

import numpy as np
import tensorflow as tf

from ocr.model import decode

from .timing import Comparison, compare, compiled


def bench_decode(batch: int = 32, frames: int = 70, classes: int = 6800, length: int = 10, width: int = 10) -> Comparison:
    """Times the greedy and the beam decoder against TensorFlow's, on logits like those of a trained network.

    Args:
      batch: batch size B.
      frames: frames T of each line.
      classes: classes C, the blank included.
      length: characters of each line, with blanks between them.
      width: beam width.
    """
    rng = np.random.default_rng(0)
    path = np.full((batch, frames), classes - 1)
    path[:, frames // (2 * length) :: frames // length] = rng.integers(0, classes - 1, (batch, length))
    logits = tf.constant(rng.normal(size=(batch, frames, classes)) + 12 * np.eye(classes)[path], tf.float32)
    frame_counts = tf.fill([batch], frames)

    def time_major(x: tf.Tensor) -> tf.Tensor:
        return tf.transpose(x, [1, 0, 2])

    greedy = {
        "tf.nn.ctc_greedy_decoder": compiled(
            lambda x: tf.nn.ctc_greedy_decoder(time_major(x), frame_counts, blank_index=classes - 1), logits
        )
    }
    beam = {
        "tf.nn.ctc_beam_search_decoder": compiled(
            lambda x: tf.nn.ctc_beam_search_decoder(time_major(x), frame_counts, beam_width=width, top_paths=1), logits
        )
    }
    results = compare(compiled(lambda x: decode.greedy(x, frame_counts), logits), greedy, "greedy")
    print("TensorFlow's beam search takes a minute or two", file=sys.stderr)
    return results | compare(compiled(lambda x: decode.beam(x, frame_counts, width), logits), beam, "beam")
