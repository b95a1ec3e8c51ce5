"""A network made of operations that other runtimes have reads what the network reads."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr.model import decode, frozen, networks, portable


@pytest.fixture(params=["lite", "mobile"])
def model(request) -> keras.Model:
    """A network with random weights, rounded as exports have them, that reads many characters in stripes of noise."""
    keras.utils.set_random_seed(1)
    model = networks.build(request.param, 63)
    for weight in model.weights:
        scale = 10.0 if weight is model.get_layer("logits").weights[0] else 1.0
        weight.assign(frozen.rounded(tf.convert_to_tensor(weight) * scale))
    return model


def test_a_line_is_read_as_in_a_batch_whatever_lies_beyond_its_width(model):
    frame = networks.network(model.name).frame
    read = portable.reader(model)
    rng = np.random.default_rng(0)
    lengths = []
    for columns, width in ((280, 280), (280, 201), (80, 77), (frame.width, 1), (1000, 1000)):
        pixels = rng.integers(0, 256, (1, frame.height, columns // 9 + 1), np.uint8).repeat(9, axis=2)[:, :, :columns]
        width_of_line = np.array([width], np.int32)
        decoded = decode.greedy(*networks.logits(model, pixels, width_of_line, training=False))
        outputs = {name: value.numpy() for name, value in read(pixels, width_of_line).items()}
        assert outputs["ids"].tolist() == decoded.ids.numpy().tolist()
        assert outputs["lengths"].tolist() == decoded.lengths.numpy().tolist()
        assert outputs["frames"].tolist() == np.stack([decoded.first, decoded.last], 2).tolist()
        np.testing.assert_allclose(outputs["confidence"], decoded.confidence, rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(outputs["char_confidence"], decoded.char_confidence, atol=1e-4)
        lengths.append(outputs["lengths"][0])
    assert max(lengths) > 10
