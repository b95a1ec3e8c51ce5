"""Optimizers of TensorFlow Addons, where it is installed; and what is said where it is not."""

import importlib.util
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from ocr import addons, dummy, optimizer, train
from ocr.config import TrainConfig
from tfrecords.errors import InputError

INSTALLED = importlib.util.find_spec("tensorflow_addons") is not None
with_them = pytest.mark.skipif(not INSTALLED, reason="TensorFlow Addons, which needs TensorFlow 2.15, is not installed")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tfa:Ftrl", "--optimizer=tfa:Ftrl: must be one of tfa:LAMB, tfa:LazyAdam, tfa:Lookahead, tfa:NovoGrad, tfa:Rect"),
        ("tfa:LAMB:beta_1", "'beta_1' is no ARGUMENT=NUMBER"),
        ("tfa:LAMB:beta_1=x", "'beta_1=x' is no ARGUMENT=NUMBER"),
    ],
)
def test_what_is_no_optimizer_of_theirs_is_refused(spec: str, message: str):
    with pytest.raises(InputError, match=message):
        TrainConfig(train_data="records", eval_data="records", workdir="run", optimizer=spec)


@pytest.mark.skipif(INSTALLED, reason="TensorFlow Addons is installed")
def test_without_addons_the_closest_of_ours_is_named():
    with pytest.raises(InputError, match=r"pip install 'line-ocr\[addons\]' with Python 3.11; .* adamw with --ema comes clo"):
        TrainConfig(train_data="records", eval_data="records", workdir="run", optimizer="tfa:Lookahead")


@with_them
def test_an_argument_that_they_do_not_take_is_refused():
    with pytest.raises(InputError, match=r"--optimizer=tfa:LAMB:momentum=0.5: .*momentum"):
        addons.made("tfa:LAMB:momentum=0.5", 0.1)


@with_them
@pytest.mark.parametrize("name", ["LAMB", "LazyAdam", "Lookahead:sync_period=2", "NovoGrad", "RectifiedAdam:weight_decay=0.1"])
def test_steps_are_those_that_their_optimizer_takes_by_itself(name: str):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(3, 4)).astype("f"), rng.normal(size=4).astype("f")]
    gradients = [[rng.normal(size=value.shape).astype("f") for value in values] for _ in range(7)]
    ours, alone = ([tf.Variable(value) for value in values] for _ in range(2))
    borrowed = optimizer.Borrowed(ours, [], addons.made(f"tfa:{name}", 0.5), lambda done: 0.1 / (1.0 + done))
    theirs = addons.made(f"tfa:{name}", 0.5)
    for step, gradient in enumerate(gradients):
        borrowed.apply([tf.constant(one) for one in gradient], tf.constant(1.0), tf.constant(step != 3), [])
        if step != 3:  # one is left out
            theirs.learning_rate.assign(0.1 / (1.0 + step - (step > 3)))
            theirs.apply_gradients(zip([tf.constant(one) for one in gradient], alone, strict=True))
    for one, other in zip(ours, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@with_them
@pytest.mark.parametrize("name", ["LAMB", "Lookahead:sync_period=3"])
def test_a_training_with_them_that_was_stopped_ends_as_one_that_was_not(name: str, tmp_path: pathlib.Path):
    dummy.convert(str(tmp_path / "records"), 64, 11, width=48, max_label_length=3)
    data = dict.fromkeys(("train_data", "eval_data"), str(tmp_path / "records"))
    often = {"steps": 8, "batch_size": 8, "log_every": 4, "eval_every": 4, "checkpoint_every": 4, "warmup_steps": 2, "ema": 0.9}
    for workdir, stops in (("whole", []), ("run", [False, True])):
        config = TrainConfig(**data, workdir=str(tmp_path / workdir), optimizer=f"tfa:{name}", **often)
        for asked in ([iter(stops)] if stops else []) + [None]:
            train.train(config, stop=(lambda asked=asked: next(asked)) if asked else lambda: False)
    one, other = (tf.train.load_checkpoint(str(tmp_path / name / "checkpoints" / "ckpt-8")) for name in ("whole", "run"))
    names = [name for name in one.get_variable_to_shape_map() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert any("theirs" in name for name in names)
    for name in names:
        if "save_counter" not in name:
            np.testing.assert_allclose(one.get_tensor(name), other.get_tensor(name), rtol=1e-4, atol=1e-5, err_msg=name)
