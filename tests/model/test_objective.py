import numpy as np
import pytest
import tensorflow as tf

from ocr.model import networks
from ocr.model.objective import Objective, alignable


def test_every_line_has_a_ctc_loss_and_their_mean_is_minimised():
    batch = {
        "pixels": tf.constant(np.random.default_rng(0).integers(0, 256, (2, 32, 40), np.uint8)),
        "width": tf.constant([40, 24]),
        "labels": tf.constant([[0, 1], [0, 1]]),
        "label_lengths": tf.constant([2, 2]),
    }
    line_losses, loss = Objective(networks.build("lite", 6)).losses(batch)
    assert line_losses.shape == [2]
    assert float(loss) == pytest.approx(float(tf.reduce_mean(line_losses)), rel=1e-5)


def test_lines_that_cannot_be_aligned_do_not_count():
    objective = Objective(networks.build("lite", 6))
    line_losses = tf.constant([1.0, float("inf"), 5.0])
    assert alignable(line_losses).numpy().tolist() == [True, False, True]
    assert float(objective.reduce(line_losses)) == 3.0
    assert float(objective.reduce(line_losses[1:2])) == 0.0


def test_a_loss_that_is_not_a_number_shows_in_the_mean():
    assert np.isnan(float(Objective(networks.build("lite", 6)).reduce(tf.constant([1.0, float("nan")]))))
