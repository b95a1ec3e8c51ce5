import math
from collections.abc import Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr.config import TrainConfig
from ocr.training import optimizer
from ocr.training.weight_update import Optimizer, Rule


def steps(rule: Rule, values: list[np.ndarray], gradients: list[list[np.ndarray]], **options) -> list[np.ndarray]:
    """Returns the weights after some steps."""
    weights = [tf.Variable(value) for value in values]
    options = {"rate": lambda done: tf.constant(0.1), **options}
    its_optimizer = Optimizer(weights, [], rule, **options)
    for each in gradients:
        all_finite, _ = its_optimizer.apply([tf.constant(one) for one in each], tf.constant(1.0), tf.constant(True), [])
        assert bool(all_finite)
    return [weight.numpy() for weight in (its_optimizer.averaged if "average" in options else weights)]


def some(
    seed: int, count: int = 5, shapes: Sequence[tuple] = ((4, 3), (3,))
) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    rng = np.random.default_rng(seed)
    draw = lambda: [rng.normal(size=shape).astype(np.float32) for shape in shapes]  # noqa: E731
    return draw(), [draw() for _ in range(count)]


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize(
    ("rule", "theirs", "fields"),
    [
        (optimizer.sgd(), lambda clip: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=clip), {}),
        (optimizer.adam(), lambda clip: keras.optimizers.Adam(0.1, global_clipnorm=clip), {}),
        (
            optimizer.adamw(),
            lambda clip: keras.optimizers.AdamW(0.1, weight_decay=0.2, beta_2=0.98, global_clipnorm=clip),
            {"decay": 0.2},
        ),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_rules_equal_those_of_keras(rule: Rule, theirs, fields: dict, clip: float):
    values, gradients = some(1)
    ours = steps(rule, values, gradients, clip_norm=clip, **fields)
    other = theirs(clip or None)
    variables = [
        getattr(keras, "Variable", tf.Variable)(value, name=name)
        for value, name in zip(values, ("kernel", "bias"), strict=True)
    ]
    if fields:
        other.exclude_from_weight_decay(var_names=["bias"])
    other.build(variables)
    for each in gradients:
        other.apply_gradients(zip([tf.constant(one) for one in each], variables, strict=True))
    for one, variable in zip(ours, variables, strict=True):
        np.testing.assert_allclose(one, variable.numpy(), atol=1e-5)  # of five steps of 0.1


def test_the_first_step_of_lamb_is_a_tenth_of_a_matrix_and_adams_for_a_bias():
    # In the first step Adam's direction is the gradient's sign; LAMB scales it to the weight's norm: 2, over 4 entries.
    values = [np.full((2, 2), 1.0, np.float32), np.full(2, 1.0, np.float32)]
    gradients = [[np.array([[3, 3], [-3, 3]], np.float32), np.array([5.0, -5.0], np.float32)]]
    matrix, bias = steps(optimizer.lamb(), values, gradients)
    np.testing.assert_allclose(matrix, [[0.9, 0.9], [1.1, 0.9]], rtol=1e-5)
    np.testing.assert_allclose(bias, [0.9, 1.1], rtol=1e-5)
    # Decay is part of the direction, sign + 1: one entry does not move, and the others share the norm of 2.
    matrix, bias = steps(optimizer.lamb(), values, gradients, decay=1.0)
    np.testing.assert_allclose(matrix, 1.0 - 0.1 * np.array([[1, 1], [0, 1]]) * 2 / np.sqrt(3), rtol=1e-5)
    np.testing.assert_allclose(bias, [0.9, 1.1], rtol=1e-5)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (3, 2, 8, 24)])
def test_a_step_of_muon_has_the_singular_vectors_of_the_gradient(shape: tuple):
    gradient = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    (weight,) = steps(optimizer.muon(), [np.zeros(shape, np.float32)], [[gradient]])
    rows, columns = math.prod(shape[:-1]), shape[-1]
    left, _, right = np.linalg.svd(gradient.reshape(rows, columns), full_matrices=False)
    sizes = left.T @ weight.reshape(rows, columns) @ right.T / (-0.1 * 0.2 * math.sqrt(max(rows, columns)))
    assert all(0.5 < size < 1.3 for size in np.diag(sizes))
    np.testing.assert_allclose(sizes, np.diag(np.diag(sizes)), atol=1e-3)


@pytest.mark.skipif(not hasattr(keras.optimizers, "Muon"), reason="this Keras has no Muon")
def test_muon_equals_that_of_keras():
    values, gradients = some(4, shapes=[(24, 40), (40, 24)])
    ours = steps(optimizer.muon(), values, gradients, decay=0.2)
    theirs = keras.optimizers.Muon(0.1, weight_decay=0.2)
    variables = [keras.Variable(value) for value in values]
    theirs.build(variables)
    for each in gradients:
        theirs.apply_gradients(zip([tf.constant(one) for one in each], variables, strict=True))
    for one, variable in zip(ours, variables, strict=True):
        np.testing.assert_allclose(one, variable.numpy(), atol=1e-4)


def test_muon_leaves_biases_depthwise_kernels_and_the_last_layer_to_adamw():
    rng = np.random.default_rng(3)
    values = [rng.normal(size=shape).astype(np.float32) for shape in ((64,), (3, 3, 32, 1), (32, 8000))]
    gradients = [[rng.normal(size=value.shape).astype(np.float32) for value in values] for _ in range(3)]
    for ours, theirs in zip(*(steps(rule, values, gradients) for rule in (optimizer.muon(), optimizer.adamw())), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_moving_average_follows_the_weights():
    values, gradients = [np.zeros((1, 1), np.float32)], [[np.full((1, 1), -1.0, np.float32)]] * 3
    # Without momentum the weight is 0.1, 0.2, 0.3; the steps keep 1/11, 2/12 and 3/13 of its average.
    (average,) = steps(optimizer.sgd(momentum=0.0), values, gradients, average=0.9)
    first = 0.1 * 10 / 11
    second = first + (0.2 - first) * 10 / 12
    assert average.item() == pytest.approx(second + (0.3 - second) * 10 / 13, rel=1e-5)
    (average,) = steps(optimizer.sgd(momentum=0.0), values, gradients, average=0.05)
    assert average.item() == pytest.approx(0.05 * (0.05 * 0.095 + 0.95 * 0.2) + 0.95 * 0.3, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"schedule": "constant"}, {0: 1.0, 10**6: 1.0}),
        ({"schedule": "exponential"}, {0: 1.0, 5000: 0.98**0.5, 10_000: 0.98, 30_000: 0.98**3}),
        ({"schedule": "epoch_decay"}, {0: 1.0, 3: 1.0, 4: 0.4, 7: 0.4, 8: 0.16}),  # 15 lines by 4
        ({"schedule": "cosine", "warmup_steps": 10}, {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.5, 100: 0.0, 200: 0.0}),
        ({"schedule": "cosine", "warmup_steps": 0}, {0: 1.0, 50: 0.5, 100: 0.0}),
        ({"schedule": "cosine", "warmup_steps": 1000}, {0: 0.0, 99: 1.0}),
    ],
    ids=["constant", "exponential", "epoch_decay", "cosine", "cosine without warmup", "cosine with warmup to the end"],
)
def test_schedules(fields: dict, expected: dict[int, float]):
    config = TrainConfig("-", "-", "-", learning_rate=1.0, steps=100, batch_size=4, **fields)
    rate = optimizer.schedule(config, lines=15)
    assert {step: float(rate(tf.constant(float(step)))) for step in expected} == pytest.approx(expected, abs=1e-6)
