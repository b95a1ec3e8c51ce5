import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr import ctc
from ocr.images import network_input
from ocr.model import networks
from ocr.model.frame_objective import FrameObjective, cross_entropy
from ocr.model.objective import Objective

CLASSES = 6  # the last one is the blank


@pytest.fixture
def objective() -> FrameObjective:
    return FrameObjective(networks.build("lite", CLASSES), weight=1.0)


def batch_of(middles: list[list[int]], draws: np.ndarray) -> dict[str, tf.Tensor]:
    """Returns lines of 10 frames, of which the second has 6 of its own, with labels 0, 1, ... each."""
    count = len(middles[0])
    pixels = np.random.default_rng(0).integers(0, 256, (len(middles), 32, 40), np.uint8)
    return {
        "pixels": tf.constant(pixels),
        "width": tf.constant([40, 24][: len(middles)]),
        "labels": tf.constant([range(count)] * len(middles)),
        "label_lengths": tf.constant([count] * len(middles)),
        "middles": tf.constant(middles),
        "draws": tf.constant(draws, tf.float32),
    }


def cross_entropy_of_all_frames(objective: Objective, batch: dict[str, tf.Tensor], targets: list[list[int]]) -> list[float]:
    """Returns each line's cross-entropy over all its frames, computed by NumPy."""
    body = keras.Model(objective.model.inputs, objective.model.get_layer("logits").input)
    features = body(list(network_input.to_network(batch["pixels"], batch["width"], 4)), training=True)
    logits = objective.model.get_layer("logits")(features).numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    return [-sum(log_p[line, t, c] for t, c in enumerate(row)) for line, row in enumerate(targets)]


def test_drawing_every_frame_once_gives_the_cross_entropy_of_all_frames(objective: FrameObjective):
    # Middles at pixels 9 and 30: frames 2 and 7; in the second line 9 and 23: frames 2 and 5 of 6.
    b = CLASSES - 1
    batch = batch_of([[9, 30]], (np.arange(10)[np.newaxis] + 0.5) / 10)
    targets = [[b, b, 0, b, b, b, b, 1, b, b]]
    _, loss = objective.losses(batch)
    assert float(loss) == pytest.approx(cross_entropy_of_all_frames(objective, batch, targets)[0], rel=1e-4)


def test_lines_without_middles_have_no_frame_loss(objective: FrameObjective):
    draws = np.tile((np.arange(10) + 0.5) / 10, (2, 1))
    batch = batch_of([[9, 30], [-1, -1]], draws)
    b = CLASSES - 1
    first = cross_entropy_of_all_frames(objective, batch, [[b, b, 0, b, b, b, b, 1, b, b]])[0]
    assert float(objective.losses(batch)[1]) == pytest.approx(first, rel=1e-4)
    unknown = batch_of([[-1, -1], [-1, -1]], draws)
    assert float(objective.losses(unknown)[1]) == 0.0


def test_the_weight_mixes_the_frame_loss_with_ctc():
    draws = np.tile((np.arange(10) + 0.5) / 10, (2, 1))
    batch = batch_of([[9, 30], [9, 20]], draws)
    model = networks.build("lite", CLASSES)
    alone = float(FrameObjective(model, 1.0).losses(batch)[1])
    line_losses, both = FrameObjective(model, 0.25).losses(batch)
    logits, frames = networks.logits(model, batch["pixels"], batch["width"], training=True)
    first = float(ctc.loss(logits, frames, batch["labels"], batch["label_lengths"])[0])
    assert line_losses.numpy() == pytest.approx([first], rel=1e-4)  # one line in eight has a CTC loss
    assert float(both) == pytest.approx(0.75 * first + 0.25 * alone, rel=1e-4)


def test_cross_entropy_and_its_gradient_equal_tensorflows():
    logits, targets = tf.random.stateless_normal([5, 9], seed=[1, 2], stddev=10.0), tf.constant([0, 8, 3, 3, 1])
    results = []
    for loss in (cross_entropy, lambda x, y: tf.nn.sparse_softmax_cross_entropy_with_logits(y, x)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = loss(logits, targets)
        results.append((losses, tape.gradient(losses, logits, tf.constant([1.0, 2.0, 3.0, 4.0, 5.0]))))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
