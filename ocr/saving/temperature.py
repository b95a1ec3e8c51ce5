"""Temperature scaling: the factor of the logits with which confidences match how often texts are right."""

import functools

import tensorflow as tf

from ocr.data import dataset, pipeline, verify
from ocr.model.recogniser import Recogniser
from ocr.options import join_paths

_STEP, _STEPS = 1.1, 10  # factors that are tried: powers of the first, up to this one and its inverse
_MIN_PROBABILITY = 1e-6
_INPUTS = ("pixels", "width", "text")


def find_scale(recogniser: Recogniser, data: str, reread: bool = False, batch_size: int = 32) -> float:
    """Finds the factor of the logits that makes the confidences of a recogniser most likely, given which texts are right.

    This is temperature scaling (Guo et al., 2017, "On Calibration of Modern Neural Networks") of whole texts. From 1 on, the
    factor is raised or lowered as long as that makes the confidences more likely; each that is tried reads the lines anew.

    Args:
      recogniser: to calibrate.
      data: records that it was not trained on: `DIR` or `DIR@split`, several separated by commas.
      reread: whether doubtful lines are read in other sizes, too.
      batch_size: lines read at a time.

    Returns:
      A factor from 0.39 to 2.59, the inverse of the temperature: above 1 if confidences are too low.

    Raises:
      InputError: there are no such records, or their raw lines have another height.
      IntegrityError: a record is damaged.
    """
    splits = [dataset.find(name, "eval") for name in join_paths(data.split(","))]
    height = recogniser.frame.height
    batches = [pipeline.evaluation_batches(split, recogniser.charset, batch_size, height) for split in splits]
    signature = [
        tf.TensorSpec([None, height, None], tf.uint8),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.string),
        tf.TensorSpec([], tf.float32),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def nll_of_batch(pixels: tf.Tensor, width: tf.Tensor, truth: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """Returns the negative log-likelihood of being right or wrong, summed over lines, in nats."""
        read = recogniser.read_lines(pixels, width, reread, factor)
        likelihood = tf.where(read["text"] == truth, read["confidence"], 1.0 - read["confidence"])
        return -tf.reduce_sum(tf.math.log(tf.clip_by_value(likelihood, _MIN_PROBABILITY, 1.0)))

    @functools.cache
    def nll(exponent: int) -> float:
        total, factor = 0.0, tf.constant(_STEP**exponent, tf.float32)
        for split, lines in zip(splits, batches, strict=True):
            with verify.report_damage(split):
                for batch in lines:
                    total += float(nll_of_batch(*(batch[name] for name in _INPUTS), factor))
        return total

    exponent = 0
    for direction in (1, -1):
        while abs(exponent + direction) <= _STEPS and nll(exponent + direction) < nll(exponent):
            exponent += direction
    return _STEP**exponent
