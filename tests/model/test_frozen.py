import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr.model import frozen, networks


def network(name: str, num_classes: int = 3000) -> keras.Model:
    """Returns a network with weights rounded as in an export, and batch norms that are not the identity."""
    keras.utils.set_random_seed(0)
    model = networks.build(name, num_classes)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if tf.as_dtype(variable.dtype).is_floating:
            variable.assign(variable + rng.uniform(0.0, 0.1, variable.shape).astype(np.float32))
    frozen.round_weights(model)
    return model


@pytest.mark.parametrize(
    "name", ["lite", "wide", "mobile", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cnn", "crnn", "densenet"))]
)
def test_an_exported_network_has_the_logits_of_its_source(name: str, tmp_path: pathlib.Path):
    model = network(name)
    pixels = np.random.default_rng(1).integers(0, 256, (3, networks.network(name).frame.height, 120), np.uint8)
    width = tf.constant([120, 77, 5])
    expected, frames = networks.logits(model, tf.constant(pixels), width, training=False)
    inside = frozen.network(model)
    module = tf.Module()
    ones = tf.function(
        lambda pixels, width: {"logits": inside(pixels, width)[0]}, input_signature=inside.input_signature, autograph=False
    )
    twice = tf.function(
        lambda pixels, width: {"logits": 2.0 * inside(pixels, width)[0]},
        input_signature=inside.input_signature,
        autograph=False,
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": ones, "twice": twice})
    loaded = tf.saved_model.load(str(tmp_path))
    logits = loaded.signatures["serving_default"](pixels=tf.constant(pixels), width=width)["logits"]
    own = np.arange(expected.shape[1]) < frames.numpy()[:, np.newaxis]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits.numpy()[own], expected.numpy()[own], atol=1e-5 * scale)
    # Two bytes per weight, stored once for both signatures.
    assert (tmp_path / "saved_model.pb").stat().st_size < 2 * model.count_params() + 2_000_000

    other = networks.build(name, 3000)
    frozen.load_weights(other, frozen.weights(loaded.signatures["serving_default"]))
    assert frozen.fingerprint(other) == frozen.fingerprint(model)


def test_only_kernels_are_rounded_to_half_precision():
    value = np.float32(1.0 + 2.0**-20)
    assert frozen.rounded(tf.fill([2, 2], value)).numpy().tolist() == [[1.0, 1.0]] * 2
    assert frozen.rounded(tf.fill([2], value)).numpy().tolist() == [value] * 2
