import itertools

import numpy as np
import pytest
import tensorflow as tf

from ocr import ctc
from ocr.charset import repeats
from ocr.doctor import reference_levels
from ocr.doctor.reference_levels import Shape


def shape(text: str, frames: int) -> Shape:
    return Shape(frames, len(text), repeats(text))


@pytest.mark.parametrize("text", ["a", "ab", "aa", "abba", "aaa"])
@pytest.mark.parametrize("frames", [6, 9])
def test_uniform_is_the_loss_of_equal_logits(text: str, frames: int):
    labels = tf.constant([[ord(c) - ord("a") for c in text]])
    loss = ctc.loss(tf.zeros([1, frames, 4]), tf.constant([frames]), labels, tf.constant([len(text)]))
    levels = reference_levels.levels([shape(text, frames)], 4, {"a": 1, "b": 1})
    assert levels["uniform"] == pytest.approx(float(loss[0]), abs=2e-3)


@pytest.mark.parametrize("text", ["a", "ab"])
def test_double_softmax_is_the_lowest_loss_of_probabilities_fed_as_logits(text: str):
    # Every way of being certain of one class in each of five frames.
    labels = tf.constant([[ord(c) - ord("a") for c in text]])
    paths = np.eye(4, dtype=np.float32)[list(itertools.product(range(4), repeat=5))]
    count = len(paths)
    losses = ctc.loss(paths, tf.fill([count], 5), tf.repeat(labels, count, 0), tf.fill([count], len(text)))
    levels = reference_levels.levels([shape(text, 5)], 4, {"a": 1, "b": 1})
    assert levels["double_softmax"] == pytest.approx(float(tf.reduce_min(losses)), abs=2e-3)


def test_levels_on_the_dummy_data_of_confusing_ctc_are_those_measured():
    # 35 frames, 3,000 classes, labels of 1 to 10 of 2,999 characters: 5.5 ln 2999 + ln 10 = 46.3.
    shapes = [Shape(35, length, 0) for length in range(1, 11)]
    drawn = {"num_classes": 3000, "max_label_length": 10}
    levels = reference_levels.levels(shapes, 3000, {"一": 1}, drawn)
    assert levels["uniform"] == pytest.approx(260.1, abs=0.1)
    assert levels["double_softmax"] == pytest.approx(237.5, abs=0.5)
    assert levels["log_epsilon"] == pytest.approx(76.0, abs=0.1)
    assert levels["entropy"] == pytest.approx(46.3, abs=0.1)
    assert reference_levels.levels([Shape(35, 1, 0)], 3000, {"一": 1}, drawn)["double_softmax"] == pytest.approx(243, abs=0.5)
    assert reference_levels.levels([Shape(35, 10, 0)], 3000, {"一": 1}, drawn)["double_softmax"] == pytest.approx(233, abs=0.5)


def test_the_entropy_estimated_from_a_sample_is_near_that_of_its_source():
    drawn = np.random.default_rng(0).integers(0, 3000, 9000)
    counts = {str(c): int(n) for c, n in zip(*np.unique(drawn, return_counts=True), strict=True)}
    levels = reference_levels.levels([Shape(10, 1, 0)], 3001, counts)
    assert levels["entropy"] == pytest.approx(np.log(3000), abs=0.05)


def test_a_loss_is_placed_between_the_levels_around_it():
    levels = {"uniform": 260.0, "double_softmax": 237.0, "entropy": 46.0}
    assert reference_levels.standing(240.0, levels) == "loss 240.0, above double_softmax 237.0, below uniform 260.0"
    assert reference_levels.standing(5.0, levels) == "loss 5.0, below entropy 46.0"
    assert reference_levels.standing(300.0, levels) == "loss 300.0, above uniform 260.0"
