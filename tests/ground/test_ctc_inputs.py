import functools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from test_ctc import brute_force, loss_and_gradient

from ocr import ctc


def test_padding_of_the_labels_is_ignored():
    logits = np.random.default_rng(2).normal(size=(1, 8, 5)).astype("f")
    one = loss_and_gradient(logits, [8], [[1, 2]], [2])
    other = loss_and_gradient(logits, [8], [[1, 2, 2, 0, 3]], [2])
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    np.testing.assert_allclose(one[1], other[1], atol=1e-6)


def test_a_nan_logit_gives_its_line_a_nan_loss():
    logits = np.zeros((2, 4, 3), "f")
    logits[0, 2, 1] = np.nan
    losses, _ = loss_and_gradient(logits, [4, 4], [[0], [0]], [1, 1])
    assert np.isnan(losses[0])
    assert np.isfinite(losses[1])


@pytest.mark.parametrize("frames", [1, 2])
def test_a_nan_does_not_change_the_lines_beside_it(frames: int):
    logits = np.zeros((2, 2, 3), "f")
    logits[0, :, 0] = 100.0  # so far from the label that its probability underflows
    alone = loss_and_gradient(logits[:1], [2], [[1]], [1])
    logits[1, 1] = np.nan
    losses, gradient = loss_and_gradient(logits, [2, frames], [[1], [1]], [1, 1])
    assert losses[0] == pytest.approx(200 - np.log(3), rel=1e-6)
    np.testing.assert_array_equal(losses[0], alone[0][0])
    np.testing.assert_array_equal(gradient[0], alone[1][0])
    assert np.isnan(losses[1]) == (frames == 2)


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("classes", [slice(None), slice(1, 2)])
def test_what_is_beyond_a_lines_frames_has_no_influence(junk: float, classes: slice):
    logits = np.random.default_rng(6).normal(size=(3, 20, 4)).astype("f")
    arguments = [3, 11, 20], [[1, 0]] * 3, [2, 1, 2]
    losses, gradient = loss_and_gradient(logits, *arguments)
    probabilities = ctc.probability(logits, *arguments)
    logits[0, 3:, classes] = logits[1, 11:, classes] = junk
    junk_losses, junk_gradient = loss_and_gradient(logits, *arguments)
    np.testing.assert_allclose(junk_losses, losses, rtol=1e-6)
    np.testing.assert_allclose(junk_gradient, gradient, atol=1e-6)
    np.testing.assert_allclose(ctc.probability(logits, *arguments), probabilities, rtol=1e-6)
    assert not junk_gradient[0, 3:].any()
    assert not junk_gradient[1, 11:].any()


def test_a_frame_of_minus_infinity_gives_an_infinite_loss_no_gradient_and_no_probability():
    logits = np.random.default_rng(7).normal(size=(2, 4, 3)).astype("f")
    expected = loss_and_gradient(logits, [4, 4], [[1], [1]], [1, 1])
    logits[0, 1] = -np.inf
    losses, gradient = loss_and_gradient(logits, [4, 4], [[1], [1]], [1, 1])
    assert losses[0] == np.inf
    assert not gradient[0].any()
    probability = np.exp(-expected[0][1])
    np.testing.assert_allclose(ctc.probability(logits, [4, 4], [[1], [1]], [1, 1]), [0.0, probability], rtol=1e-5)
    np.testing.assert_allclose(ctc.log_probability(logits, [4, 4], [[1], [1]], [1, 1]), [-np.inf, -expected[0][1]], rtol=1e-5)
    np.testing.assert_allclose(losses[1], expected[0][1], rtol=1e-6)
    np.testing.assert_allclose(gradient[1], expected[1][1], atol=1e-6)


FRAMES, LABELS, LENGTHS = [6, 5, 4, 3, 2], [[0, 1], [1, 1], [2, 0], [0, 1], [1, 2]], [2, 2, 1, 2, 0]
LINES = np.random.default_rng(9).normal(size=(5, 6, 4)).astype("f")
INVALID = {
    "the blank as a class": ([6], [0, 3], [2]),
    "a class that is out of range": ([6], [0, 4], [2]),
    "a negative class": ([6], [-1, 0], [2]),
    "a class beyond int32": ([6], [0, 2**32], [2]),
    "a label longer than the labels": ([6], [0, 1], [3]),
    "a negative label length": ([6], [0, 1], [-1]),
    "more frames than there are": ([7], [0, 1], [2]),
    "a negative number of frames": ([-1], [0, 1], [0]),
}


@functools.cache
def in_graph(function: Callable, compiled: bool) -> Callable:
    return tf.function(function, jit_compile=compiled)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_line_has_an_infinite_loss_and_no_gradient(case: str, compiled: bool):
    frames, label, length = INVALID[case]
    arguments = [tf.constant(np.array(each)) for each in (frames + FRAMES[1:], [label, *LABELS[1:]], length + LENGTHS[1:])]
    loss, probability, align = (in_graph(function, compiled) for function in (ctc.loss, ctc.probability, ctc.align))
    logits = tf.constant(LINES)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = loss(logits, *arguments)
    gradient = tape.gradient(losses, logits).numpy()
    expected, expected_gradient = loss_and_gradient(LINES[1:], FRAMES[1:], LABELS[1:], LENGTHS[1:])
    assert losses[0] == np.inf
    assert not gradient[0].any()
    np.testing.assert_allclose(losses[1:], expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[1:], expected_gradient, atol=1e-6)
    np.testing.assert_allclose(probability(logits, *arguments), [0.0, *np.exp(-expected)], rtol=1e-5)
    np.testing.assert_allclose(ctc.log_probability(logits, *arguments), [-np.inf, *-expected], rtol=1e-5)
    paths = align(logits, *arguments).numpy()
    assert (paths[0] == 3).all()
    np.testing.assert_array_equal(paths[1:], ctc.align(LINES[1:], FRAMES[1:], LABELS[1:], LENGTHS[1:]))


@pytest.mark.parametrize("function", [ctc.loss, ctc.probability, ctc.align])
def test_labels_and_lengths_that_are_not_integers_are_refused(function: Callable):
    for place, name in enumerate(("frames", "labels", "label_lengths")):
        arguments = [np.array(value) for value in (FRAMES, LABELS, LENGTHS)]
        arguments[place] = arguments[place] + 0.5
        with pytest.raises(TypeError, match=f"{name} must be integers, not float64"):
            function(LINES, *arguments)
        with pytest.raises(TypeError, match=f"{name} must be integers, not float64"):
            tf.function(function)(LINES, *arguments)
    with pytest.raises(TypeError, match="logits must be floating-point, not int32"):
        function(LINES.astype("i"), FRAMES, LABELS, LENGTHS)
    function(LINES, FRAMES, [[]] * 5, [0] * 5)


@pytest.mark.slow
def test_lines_one_by_one_give_what_a_batch_gives():
    def one(line: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        batch = [value[tf.newaxis] for value in line]
        return ctc.loss(*batch)[0], ctc.probability(*batch)[0]

    lines = tuple(tf.constant(value) for value in (LINES, FRAMES, LABELS, LENGTHS))
    for mapped in (tf.vectorized_map(one, lines), tf.map_fn(one, lines, fn_output_signature=(tf.float32, tf.float32))):
        np.testing.assert_allclose(mapped[0], ctc.loss(*lines), rtol=1e-6)
        np.testing.assert_allclose(mapped[1], ctc.probability(*lines), rtol=1e-5)


@pytest.mark.parametrize("signature", [None, [tf.TensorSpec([None, None, None])]])
def test_the_gradient_passes_through_conditions_and_loops(signature: list | None):
    arguments = [tf.constant(value) for value in (FRAMES, LABELS, LENGTHS)]

    def condition(logits: tf.Tensor) -> tf.Tensor:
        return tf.cond(tf.reduce_sum(logits) < 1e9, lambda: ctc.loss(logits, *arguments), lambda: tf.zeros([5]))

    def loop(logits: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(
            lambda turn, _: turn < 2, lambda turn, total: (turn + 1, total + condition(logits) / 2), (0, tf.zeros([5]))
        )[1]

    logits, (_, expected) = tf.constant(LINES), loss_and_gradient(LINES, FRAMES, LABELS, LENGTHS)
    for function in (condition, loop):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = tf.function(function, input_signature=signature, autograph=False)(logits)
        np.testing.assert_allclose(tape.gradient(losses, logits), expected, atol=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    logits = np.random.default_rng(3).normal(size=(4, 300, 400)).astype(np.float16)
    labels = np.random.default_rng(4).integers(0, 399, (4, 20))
    half = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(half)
        losses = ctc.loss(half, tf.fill([4], 300), tf.constant(labels), tf.fill([4], 20))
    full, _ = loss_and_gradient(logits.astype("f"), [300] * 4, labels.astype("i"), [20] * 4)
    np.testing.assert_allclose(losses.numpy(), full, rtol=1e-6)
    assert tape.gradient(losses, half).dtype == tf.float16


def test_a_logit_of_minus_infinity_rules_a_class_out():
    logits = np.random.default_rng(5).normal(size=(2, 6, 5)).astype("f")
    logits[:, :, 3] = -np.inf
    losses, gradient = loss_and_gradient(logits, [6, 6], [[0, 1], [0, 3]], [2, 2])
    assert losses[0] == pytest.approx(brute_force(logits[0].astype(float), 6, [0, 1]), rel=1e-5)
    assert np.isinf(losses[1])
    assert np.isfinite(gradient).all()
