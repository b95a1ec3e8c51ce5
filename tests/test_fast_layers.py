import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr import fast_layers


@pytest.mark.parametrize("training", [True, False])
def test_fused_batch_norm_is_that_of_keras(training: bool):
    x = tf.random.stateless_normal([4, 5, 6, 7], seed=[1, 2], mean=3.0, stddev=2.0)
    weight = tf.random.stateless_normal(x.shape, seed=[3, 4])
    results = []
    for kind in (keras.layers.BatchNormalization, fast_layers.BatchNormalization):
        layer = kind(momentum=0.7, epsilon=1e-3)
        layer.build(x.shape)
        for variable, value in zip(layer.variables, (1.5, 0.3, 0.2, 2.0), strict=True):
            variable.assign(tf.fill(variable.shape, value))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * weight)
        gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        results.append([y, *gradients, *layer.variables])
    for ours, keras_own in zip(*results, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-4, atol=1e-4)


def test_masked_relu_and_its_gradient():
    x, mask = tf.constant([[[[1.0], [-2.0], [3.0]]]]), tf.constant([[[[1.0], [1.0], [0.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fast_layers.MaskedReLU()(x, mask)
    np.testing.assert_array_equal(y, [[[[1.0], [0.0], [0.0]]]])
    gradient = tape.gradient(y, x, tf.constant([[[[5.0], [6.0], [7.0]]]]))
    np.testing.assert_array_equal(gradient, [[[[5.0], [0.0], [0.0]]]])
