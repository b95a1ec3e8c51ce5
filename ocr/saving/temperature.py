"""Temperature scaling: the factor of the logits with which confidences match how often texts are right."""

import numpy as np
import tensorflow as tf

from ocr.data import dataset, pipeline, verify
from ocr.model.recogniser import Recogniser
from ocr.options import join_paths

_FACTORS = tuple(1.1**step for step in range(-10, 11))  # 0.39 to 2.59
_MIN_PROBABILITY = 1e-6
_INPUTS = ("pixels", "width", "text")


def find_scale(recogniser: Recogniser, data: str, batch_size: int = 32) -> float:
    """Finds the factor of the logits that makes the confidences of a recogniser most likely, given which texts are right.

    This is temperature scaling (Guo et al., 2017, "On Calibration of Modern Neural Networks") of whole texts.

    Args:
      recogniser: to calibrate.
      data: records that it was not trained on: `DIR` or `DIR@split`, several separated by commas.
      batch_size: lines read at a time.

    Returns:
      A factor from 0.39 to 2.59, the inverse of the temperature: above 1 if confidences are too low.

    Raises:
      InputError: there are no such records, or their raw lines have another height.
      IntegrityError: a record is damaged.
    """
    signature = [
        tf.TensorSpec([None, recogniser.frame.height, None], tf.uint8),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.string),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def nll(pixels: tf.Tensor, width: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
        """Returns for each factor the negative log-likelihood of being right or wrong, summed over lines, in nats."""
        logits, frames = recogniser.logits(pixels, width)

        def nll_of(factor: tf.Tensor) -> tf.Tensor:
            texts, confidences = recogniser.texts(logits * factor, frames)
            likelihood = tf.where(texts == truth, confidences, 1.0 - confidences)
            return -tf.reduce_sum(tf.math.log(tf.clip_by_value(likelihood, _MIN_PROBABILITY, 1.0)))

        return tf.map_fn(nll_of, tf.constant(_FACTORS, tf.float32))

    total = np.zeros(len(_FACTORS))
    for split in [dataset.find(name, "eval") for name in join_paths(data.split(","))]:
        with verify.report_damage(split):
            for batch in pipeline.evaluation_batches(split, recogniser.charset, batch_size, recogniser.frame.height):
                total += nll(*(batch[name] for name in _INPUTS)).numpy()
    return _FACTORS[int(total.argmin())]
