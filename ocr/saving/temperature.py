"""How much sharper a network's outputs should be for its confidences to say how often it is right."""

import numpy as np
import tensorflow as tf

from ocr.data import dataset, pipeline
from ocr.model.recogniser import Recogniser

_FACTORS = tuple(1.1**step for step in range(-10, 11))  # 0.39 to 2.59
_LEAST = 1e-6  # of a probability


def sharpness(recogniser: Recogniser, data: str, batch_size: int = 32) -> float:
    """Finds the factor of the logits that makes a recogniser's confidences the likeliest for the lines that it read right and
    wrong: temperature scaling (Guo et al., 2017, "On Calibration of Modern Neural Networks") of whole texts.

    Args:
      recogniser: whose confidences are to be calibrated.
      data: records that it was not trained with, `DIR` or `DIR@split`, or several with commas in between.
      batch_size: lines read at a time.

    Returns:
      A factor from 0.39 to 2.59: above 1 where confidences are too low.

    Raises:
      InputError: there are no such records.
      IntegrityError: a record is damaged.
    """

    @tf.function(reduce_retracing=True)
    def nll(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns for each factor the nats of being right or wrong, summed over lines."""
        logits, frames = recogniser.logits(batch["pixels"], batch["width"])

        def of(factor: tf.Tensor) -> tf.Tensor:
            texts, confidences = recogniser.texts(logits * factor, frames)
            hit = tf.clip_by_value(tf.where(texts == batch["text"], confidences, 1.0 - confidences), _LEAST, 1.0)
            return -tf.reduce_sum(tf.math.log(hit))

        return tf.map_fn(of, tf.constant(_FACTORS, tf.float32))

    nats = np.zeros(len(_FACTORS))
    for lines in [dataset.find(name, "eval") for name in data.split(",")]:
        with dataset.naming_damage(lines):
            for batch in pipeline.evaluation_batches(lines, recogniser.charset, batch_size):
                nats += nll(batch).numpy()
    return _FACTORS[int(nats.argmin())]
