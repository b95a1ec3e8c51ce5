import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr import keras_compat
from ocr.model import layers


@pytest.mark.parametrize("training", [True, False])
def test_fused_batch_norm_equals_that_of_keras(training: bool):
    x = tf.random.stateless_normal([4, 5, 6, 7], seed=[1, 2], mean=3.0, stddev=2.0)
    weight = tf.random.stateless_normal(x.shape, seed=[3, 4])
    results = []
    # By default Keras 2 uses a kernel that keeps the unbiased variance.
    theirs = functools.partial(keras.layers.BatchNormalization, **{"fused": False} if keras.__version__ < "3" else {})
    for kind in (theirs, layers.BatchNormalization):
        layer = kind(momentum=0.7, epsilon=1e-3)
        layer.build(x.shape)
        for variable, value in zip(layer.variables, (1.5, 0.3, 0.2, 2.0), strict=True):
            variable.assign(tf.fill(variable.shape, value))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * weight)
        gradients = tape.gradient(loss, [x, *map(keras_compat.variable, (layer.gamma, layer.beta))])
        results.append([y, *gradients, *layer.variables])
    for ours, keras_own in zip(*results, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_masked_relu_and_its_gradient(training: bool):
    x, mask = tf.constant([[[[1.0], [-2.0], [3.0]]]]), tf.constant([[[[1.0], [1.0], [0.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layers.MaskedReLU()(x, mask, training=training)
    np.testing.assert_array_equal(y, [[[[1.0], [0.0], [0.0]]]])
    gradient = tape.gradient(y, x, tf.constant([[[[5.0], [6.0], [7.0]]]]))
    np.testing.assert_array_equal(gradient, [[[[5.0], [0.0], [0.0]]]])


def test_logits_equal_those_of_a_dense_layer_and_gradients_nearly():
    x = tf.random.stateless_normal([2, 3, 16], seed=[1, 2])
    results = []
    for kind in (keras.layers.Dense, layers.Logits):
        layer = kind(50)
        layer.build(x.shape)
        layer.set_weights([tf.random.stateless_normal([16, 50], seed=[3, 4]), tf.random.stateless_normal([50], seed=[5, 6])])
        options = {"training": True} if kind is layers.Logits else {}
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.nn.softmax(y := layer(x, **options))[..., 7])
        results.append([y, *tape.gradient(loss, [x, *map(keras_compat.variable, (layer.kernel, layer.bias))])])
    np.testing.assert_allclose(*(result.pop(0) for result in results), rtol=1e-5, atol=1e-5)
    for exact, ours in zip(*results, strict=True):
        assert np.linalg.norm(exact - ours) < 0.01 * np.linalg.norm(exact)
