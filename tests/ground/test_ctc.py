import functools
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ocr import ctc


def brute_force(logits: np.ndarray, frames: int, label: list[int]) -> float:
    """Sums the probability of every path that collapses to the label, by the definition of CTC."""
    classes = logits.shape[1]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for path in itertools.product(range(classes), repeat=frames):
        collapsed = [c for c, _ in itertools.groupby(path) if c != classes - 1]
        if collapsed == label:
            total += np.prod([p[t, c] for t, c in enumerate(path)])
    return -np.log(total) if total else np.inf


def loss_and_gradient(logits, frames, labels, lengths):
    logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = ctc.loss(logits, tf.constant(frames), tf.constant(labels), tf.constant(lengths))
        total = tf.reduce_sum(tf.where(tf.math.is_inf(losses), 0.0, losses))
    return losses.numpy(), tape.gradient(total, logits).numpy()


@pytest.mark.parametrize("frames", range(1, 6))
@pytest.mark.parametrize("label", [[], [0], [1, 1], [0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1, 1]])
def test_the_loss_and_its_gradient_are_those_of_all_alignments_summed_one_by_one(frames: int, label: list[int]):
    logits = np.random.default_rng(frames).normal(size=(5, 3)).astype("f") * 2
    padded = np.array([label + [0] * (4 - len(label))], np.int32)
    losses, gradient = loss_and_gradient(logits[None], [frames], padded, [len(label)])
    expected = brute_force(logits[:frames].astype(float), frames, label)
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    arguments = (tf.constant(value) for value in (logits[None], [frames], padded, [len(label)]))
    assert ctc.probability(*arguments).numpy()[0] == pytest.approx(np.exp(-expected), rel=1e-5)
    assert not gradient[0, frames:].any()
    if np.isinf(expected):
        assert not gradient.any()
        assert not ctc.feasible(tf.constant([frames]), tf.constant(padded), tf.constant([len(label)]))[0]
        return
    for t, c in itertools.product(range(frames), range(3)):
        moved = [logits[:frames].astype(float) for _ in range(2)]
        moved[0][t, c] += 1e-4
        moved[1][t, c] -= 1e-4
        difference = (brute_force(moved[0], frames, label) - brute_force(moved[1], frames, label)) / 2e-4
        assert gradient[0, t, c] == pytest.approx(difference, abs=2e-5)


def test_with_a_single_alignment_the_loss_is_a_plain_sum():
    # As many frames as labels, and no repeats: there is one path.
    logits = np.random.default_rng(1).normal(size=(1, 4, 6)).astype("f")
    log_p = np.log(np.exp(logits[0]) / np.exp(logits[0]).sum(1, keepdims=True))
    losses, _ = loss_and_gradient(logits, [4], [[3, 0, 4, 1]], [4])
    assert losses[0] == pytest.approx(-log_p[range(4), [3, 0, 4, 1]].sum(), rel=1e-6)


def test_an_untrained_network_starts_at_the_uniform_loss():
    # T ln C - ln binom(T + N, 2N)
    losses, _ = loss_and_gradient(np.zeros((1, 35, 3000)), [35], [list(range(10))], [10])
    assert losses[0] == pytest.approx(35 * np.log(3000) - np.log(math.comb(45, 20)), rel=1e-6)


def test_loss_and_gradient_agree_with_tf_nn_ctc_loss_on_ragged_lines():
    rng = np.random.default_rng(0)
    batch, time, classes, length = 1000, 24, 7, 8
    logits = rng.normal(size=(batch, time, classes)).astype("f") * 3
    frames = rng.integers(1, time + 1, batch).astype("i")
    lengths = rng.integers(0, length + 1, batch).astype("i")
    labels = rng.integers(0, classes - 1, (batch, length)).astype("i")
    repeats = [np.count_nonzero(row[1:n] == row[: max(n - 1, 0)]) for row, n in zip(labels, lengths, strict=True)]
    exact = np.arange(batch) % 5 == 0
    frames[exact] = np.maximum(lengths + repeats, 1)[exact]
    assert np.count_nonzero(lengths == 0) > 50
    assert np.count_nonzero(repeats) > 300
    losses, gradient = loss_and_gradient(logits, frames, labels, lengths)
    fits = ctc.feasible(frames, labels, lengths).numpy()
    assert 0.5 < fits.mean() < 1.0
    np.testing.assert_array_equal(np.isfinite(losses), fits)
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        theirs = tf.nn.ctc_loss(labels, variable, lengths, frames, logits_time_major=False, blank_index=classes - 1)
    their_gradient = tape.gradient(theirs, variable).numpy()
    np.testing.assert_allclose(losses[fits], theirs.numpy()[fits], rtol=1e-4, atol=1e-5)
    own = np.arange(time) < frames[:, None]
    np.testing.assert_allclose(gradient[fits][own[fits]], their_gradient[fits][own[fits]], atol=1e-4)
    assert not gradient[~own].any()
    assert not gradient[~fits].any()


def test_the_probability_is_exp_of_minus_the_loss_for_lines_of_any_length():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(5, 40, 30)).astype("f"), rng.integers(0, 29, (5, 12)).astype("i")
    logits[np.arange(5)[:, None], np.arange(12) * 3, labels] += 12.0
    logits[:, :, -1] += 6.0
    arguments = [tf.constant(value) for value in (logits, [40, 39, 36, 8, 1], labels, [12, 12, 9, 2, 0])]
    np.testing.assert_allclose(ctc.probability(*arguments), np.exp(-ctc.loss(*arguments)), rtol=1e-4)


def log_sum_exp(*terms: np.ndarray) -> np.ndarray:
    return functools.reduce(np.logaddexp, terms)


def in_float64(logits: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the loss of a line and its gradient, by the equations of the paper in float64."""
    classes = logits.shape[1]
    log_p = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    states = np.full(2 * len(label) + 1, classes - 1)
    states[1::2] = label

    def forward(emitted: np.ndarray, states: np.ndarray) -> np.ndarray:
        skips = np.full(len(states), -np.inf)
        skips[3::2] = np.where(states[3::2] == states[1:-2:2], -np.inf, 0.0)
        alpha, after = np.where(np.arange(len(states)) == 0, 0.0, -np.inf), []
        for emission in emitted:
            earlier = np.concatenate([[-np.inf, -np.inf], alpha])
            alpha = log_sum_exp(alpha, earlier[1:-1], earlier[:-2] + skips) + emission
            after.append(alpha)
        return np.array(after)

    emitted = log_p[:, states]
    alpha = forward(emitted, states)
    beta = forward(emitted[::-1, ::-1], states[::-1])[::-1, ::-1]
    total = np.logaddexp(alpha[-1, -1], alpha[-1, -2])
    gradient = np.exp(log_p)
    posterior = np.exp(alpha + beta - emitted - total)
    np.subtract.at(gradient.T, states, posterior.T)
    return -total, gradient


@pytest.mark.parametrize(
    ("time", "classes", "length", "scale", "tolerance"),
    [
        (70, 100, 10, 2.0, 1e-5),
        (70, 100, 10, 50.0, 5e-5),
        (70, 100, 10, 1e4, 1e-6),
        (500, 100, 60, 1.0, 1e-4),
        pytest.param(2000, 64, 200, 1.0, 3e-4, marks=pytest.mark.slow),
        pytest.param(2000, 64, 200, 5.0, 2e-3, marks=pytest.mark.slow),
        pytest.param(4000, 30, 1200, 1.0, 2e-4, marks=pytest.mark.slow),
    ],
)
def test_loss_and_gradient_are_precise_for_extreme_logits_and_long_lines(
    time: int, classes: int, length: int, scale: float, tolerance: float
):
    rng = np.random.default_rng(0)
    logits, label = (rng.normal(size=(time, classes)) * scale).astype("f"), rng.integers(0, classes - 1, length)
    losses, gradient = loss_and_gradient(logits[None], [time], label[None], [length])
    expected, expected_gradient = in_float64(logits, label)
    assert losses[0] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient[0], expected_gradient, atol=tolerance)


def test_the_second_derivative_is_that_of_the_gradient():
    rng = np.random.default_rng(8)
    logits, direction = rng.normal(size=(2, 3, 20, 4)).astype("f")
    arguments = [20, 17, 5], [[0, 1, 1], [2, 0, 0], [1, 0, 0]], [3, 2, 0]
    values = tf.constant(logits)
    with tf.GradientTape() as outer:
        outer.watch(values)
        with tf.GradientTape() as tape:
            tape.watch(values)
            losses = ctc.loss(values, *arguments)
        gradient = tape.gradient(losses, values)
    product = outer.gradient(gradient, values, output_gradients=direction)
    ahead, behind = (loss_and_gradient(logits + step * direction, *arguments)[1] for step in (2e-3, -2e-3))
    np.testing.assert_allclose(product, (ahead - behind) / 4e-3, atol=2e-4)


def test_a_probability_that_underflows_float32_still_has_its_logarithm():
    # The probability of every class of the label underflows in each frame, yet the loss must be the difference of logits.
    logits = np.zeros((1, 3, 4), "f")
    logits[0, :, 2] = 300.0
    losses, gradient = loss_and_gradient(logits, [3], [[0, 1]], [2])
    # There are five alignments: 0 1 with one repeat or one blank in three frames.
    assert losses[0] == pytest.approx(3 * 300.0 - np.log(5), rel=1e-6)
    np.testing.assert_allclose(gradient[0, :, 2], 1.0, rtol=1e-6)
    np.testing.assert_allclose(gradient[0].sum(1), 0.0, atol=1e-5)


def test_a_loss_close_to_zero_is_precise():
    logits = np.full((1, 5, 4), -9.0, "f")
    logits[0, range(5), [0, 0, 3, 1, 3]] = 9.0
    losses, _ = loss_and_gradient(logits, [5], [[0, 1]], [2])
    exact = brute_force(logits[0].astype(np.float64), 5, [0, 1])
    assert 0 < exact < 1e-6
    assert losses[0] == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("label", [[], [0], [1, 1], [0, 1, 0]])
def test_the_alignment_is_the_most_probable_of_all_paths(label: list[int]):
    rng = np.random.default_rng(len(label))
    logits = rng.normal(size=(20, 5, 3)).astype("f") * 2
    frames = rng.integers(max(len(label) + 1, 1), 6, 20)
    padded = np.tile(np.array(label + [0] * (3 - len(label)), "i"), (20, 1))
    aligned = ctc.align(logits, frames, padded, np.full(20, len(label))).numpy()
    for row, line, own in zip(aligned, logits, frames, strict=True):
        paths = [p for p in itertools.product(range(3), repeat=own) if [c for c, _ in itertools.groupby(p) if c != 2] == label]
        best = max(paths, key=lambda path: sum(line[t, c] for t, c in enumerate(path)))
        assert row.tolist() == [*best, *[2] * (5 - own)]


@pytest.mark.slow
def test_the_gradient_needs_memory_for_a_few_copies_of_the_logits_only():
    # In a process of its own, whose high-water mark is reset once everything is loaded and the logits are there.
    script = """
import re, tensorflow as tf
from ocr import ctc

@tf.function
def gradient(logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        rows = tf.shape(logits)[0]
        labels = tf.ones([rows, 10], tf.int32) * tf.range(10)
        losses = ctc.loss(logits, tf.fill([rows], 70), labels, tf.fill([rows], 10))
    return tape.gradient(losses, logits)

def memory(mark):
    return 1024 * int(re.search(mark + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

gradient(tf.zeros([128, 70, 20]))
before = memory("VmRSS")
logits = tf.ones([128, 70, 6800])  # without others that made them
open("/proc/self/clear_refs", "w").write("5")
gradient(logits)
print((memory("VmHWM") - before) / (128 * 70 * 6800 * 4))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1.0 < float(done.stdout) <= 2.5
