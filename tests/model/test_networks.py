import itertools
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr.model import networks
from tfrecords.errors import InputError


def network(name: str, num_classes: int = 50) -> keras.Model:
    """Returns a network with batch norms that are not the identity, as after training."""
    keras.utils.set_random_seed(0)
    model = networks.build(name, num_classes)
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.uniform(0.05, 0.3, w.shape) if w.ndim == 1 else w for w in model.get_weights()])
    return model


def logits_of(model: keras.Model, lines: list[np.ndarray], width: int) -> list[np.ndarray]:
    """Returns each line's own logits when all lines are padded with noise to `width`."""
    pixels = np.random.default_rng(1).integers(0, 256, (len(lines), len(lines[0]), width), np.uint8)
    for row, line in zip(pixels, lines, strict=True):
        row[:, : line.shape[1]] = line
    widths = tf.constant([line.shape[1] for line in lines])
    logits, frames = networks.logits(model, tf.constant(pixels), widths, training=False)
    return [row[:count] for row, count in zip(logits.numpy(), frames.numpy(), strict=True)]


@pytest.mark.parametrize("name", ["lite", "wide", "mobile", "cnn", "densenet", pytest.param("crnn", marks=pytest.mark.slow)])
def test_the_logits_of_a_line_do_not_depend_on_what_else_is_in_the_batch(name: str):
    rng = np.random.default_rng(2)
    lines = [rng.integers(0, 256, (networks.network(name).frame.height, width), np.uint8) for width in (1, 37, 64, 121)]
    model = network(name)
    alone = [logits_of(model, [line], line.shape[1])[0] for line in lines]
    assert np.abs(alone[-1]).max() > 0.01
    for width in (121, 160, 333):
        for one, other in zip(alone, logits_of(model, lines, width), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "frames"), [("lite", 70), ("wide", 70), ("mobile", 35), ("cnn", 35), ("crnn", 35), ("densenet", 35)]
)
def test_a_line_of_280_pixels_has_one_row_of_logits_per_frame(name: str, frames: int):
    model = network(name)
    logits, own = networks.logits(
        model, tf.zeros([2, networks.network(name).frame.height, 280], tf.uint8), tf.constant([280, 9]), training=False
    )
    assert logits.shape == (2, frames, 50)
    assert logits.dtype == tf.float32
    assert own.numpy().tolist() == [frames, -(-9 // (280 // frames))]
    assert not np.allclose(np.exp(logits).sum(2), 1.0)  # logits, not a softmax


def test_cnn_is_the_network_of_confusing_ctc():
    # 3x3 kernels, then 512 of 4x4 and 512 of 1x1, without bias; batch norm before the first six; then the classes.
    channels = [1, 64, 64, 128, 128, 256, 256]
    kernels = sum(9 * a * b for a, b in itertools.pairwise(channels)) + 16 * 256 * 512 + 512 * 512
    assert networks.build("cnn", 3000).count_params() == kernels + 4 * sum(channels[:-1]) + 512 * 3000 + 3000
    rates = [layer.rate for layer in networks.build("cnn", 10).layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.3] * 3


def test_cnn_has_the_weight_decay_of_confusing_ctc():
    model = networks.build("cnn", 10)
    expected = 1e-4 * sum(float(tf.reduce_sum(tf.square(v))) for v in model.trainable_variables if len(v.shape) == 4)
    assert float(tf.add_n(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_densenet_is_the_network_of_chinese_ocr():
    # A block of 8 layers turns k channels into k + 64; each layer has a batch norm before its 3x3 kernels.
    def block(channels: int) -> int:
        return sum(4 * c + 9 * c * 8 for c in range(channels, channels + 64, 8))

    transitions = 4 * 128 + 128 * 128 + 4 * 192 + 192 * 128
    expected = 25 * 64 + block(64) + block(128) + block(128) + transitions + 4 * 192 + 768 * 3000 + 3000
    assert networks.build("densenet", 3000).count_params() == expected


def test_crnn_is_cnn_with_two_recurrent_layers():
    def recurrent(inputs: int, units: int) -> int:
        return 2 * 4 * units * (inputs + units + 1)

    added = networks.build("crnn", 100).count_params() - networks.build("cnn", 100).count_params()
    assert added == recurrent(512, 384) + recurrent(768, 256)


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="--model=vgg: must be one of lite, wide, mobile, cnn, crnn, densenet"):
        networks.build("vgg", 10)


ODD = '{"image_data_format": "channels_first", "backend": "theano", "epsilon": 0.1, "floatx": "float64"}'


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["loop", "keras"])
def test_a_training_ignores_the_keras_json_of_the_user(trained, command, tmp_path: pathlib.Path, trainer: str):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(ODD)
    flags = (f"--train_data={trained.records}", f"--eval_data={trained.records}", "--workdir=run", f"--trainer={trainer}")
    done = command("ocr_train", *flags, "--steps=2", "--batch_size=4", env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "keras_json", ['{"image_data_format": "channels_first", "epsilon": 0.1, "floatx": "float16"}', "[]", '{"floatx": "?"}']
)
def test_networks_are_the_same_whatever_keras_json_says(tmp_path: pathlib.Path, keras_json: str):
    (tmp_path / "keras.json").write_text(keras_json)
    code = (
        "from ocr.model import networks; m = networks.build('lite', 5); "
        "print(m.output.shape, *{getattr(w.dtype, 'name', w.dtype) for w in m.weights})"
    )
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "(None, None, 5) float32\n", done.stderr
