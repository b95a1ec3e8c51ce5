"""Optimizers and augmentation of TensorFlow Addons (tfa) where it is installed, and the refusal where it is not."""

import importlib.util
import os
import pathlib
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from ocr import addons, config
from ocr.config import TrainConfig
from ocr.data import convert, dummy
from ocr.data.convert_config import ConvertConfig
from ocr.images import augment, augment_tfa
from ocr.serving import saved_model
from ocr.synthesis import render
from ocr.training import optimizer, train
from tfrecords.errors import InputError

INSTALLED = importlib.util.find_spec("tensorflow_addons") is not None
needs_addons = pytest.mark.skipif(not INSTALLED, reason="TensorFlow Addons, which needs TensorFlow 2.15, is not installed")


def settings(records: pathlib.Path, workdir: pathlib.Path, **fields) -> TrainConfig:
    return TrainConfig(train_data=str(records), eval_data=str(records), workdir=str(workdir), **fields)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tfa:Ftrl", "--optimizer=tfa:Ftrl: must be one of tfa:LAMB, tfa:LazyAdam, tfa:Lookahead, tfa:NovoGrad, tfa:Rect"),
        ("tfa:LAMB:", "'' is not one of its arguments: beta_1, beta_2, epsilon, weight_decay"),
        ("tfa:LAMB:lr=0.5", "'lr' is not one of its arguments: beta_1"),
        ("tfa:LAMB:beta_1", "beta_1 must be a number, 0 to 0.999999"),
        ("tfa:LAMB:beta_1=x", "beta_1 must be a number"),
        ("tfa:LAMB:beta_1=nan", "beta_1 must be a number"),
        ("tfa:LAMB:beta_2=1", "beta_2 must be a number"),
        ("tfa:LAMB:epsilon=0", "epsilon must be a number, 1e-12 to 1"),
        ("tfa:LAMB:weight_decay=-5", "weight_decay must be a number, 0 to 1000"),
        ("tfa:LAMB:beta_1=0.9,beta_1=0.1", "beta_1 is given twice"),
        ("tfa:Lookahead:sync_period=0", "sync_period must be a whole number, 1 to 1e"),
        ("tfa:Lookahead:sync_period=2.5", "sync_period must be a whole number"),
        ("tfa:RectifiedAdam:sma_threshold=0", "sma_threshold must be a number, 4 to"),
    ],
)
def test_an_invalid_optimizer_of_tfa_is_refused(spec: str, message: str):
    with pytest.raises(InputError, match=message):
        settings(pathlib.Path("records"), pathlib.Path("run"), optimizer=spec)


def test_the_augmenter_tfa_without_augmentation_is_refused():
    with pytest.raises(InputError, match="--augmenter=tfa: taken only with --augment above 0"):
        settings(pathlib.Path("records"), pathlib.Path("run"), augmenter="tfa")


@pytest.mark.skipif(INSTALLED, reason="TensorFlow Addons is installed")
@pytest.mark.parametrize(
    ("fields", "closest"),
    [
        ({"optimizer": "tfa:Lookahead"}, "adamw with --ema"),
        ({"augmenter": "tfa", "augment": 0.5}, "ours, which cuts no holes"),
    ],
)
def test_without_tfa_the_closest_alternative_is_named(tmp_path: pathlib.Path, monkeypatch, fields: dict, closest: str):
    needed = rf"pip install 'line-ocr\[addons\]' with Python 3.11; the closest alternative is {closest}"
    with pytest.raises(InputError, match=needed):
        train.train(settings(tmp_path, tmp_path / "run", **fields))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # as if it were installed beside Keras 3
    with pytest.raises(InputError, match=needed):
        train.train(settings(tmp_path, tmp_path / "run", **fields))
    assert not (tmp_path / "run").exists()


def test_the_configuration_of_a_training_with_tfa_can_be_read_without_it(tmp_path: pathlib.Path):
    saved = settings(tmp_path, tmp_path, optimizer="tfa:LAMB", augmenter="tfa", augment=0.5)
    fingerprints = dict.fromkeys(config.FINGERPRINTS, "0")
    config.write(tmp_path / "config.json", saved, fingerprints)
    assert config.read(tmp_path / "config.json") == (saved, fingerprints)


@needs_addons
@pytest.mark.parametrize(
    "name",
    ["LAMB", "LazyAdam:amsgrad=1", "Lookahead:sync_period=2", "NovoGrad:grad_averaging=1", "RectifiedAdam:weight_decay=0.1"],
)
def test_the_adapter_takes_the_steps_of_the_wrapped_optimizer(name: str):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(3, 4)).astype("f"), rng.normal(size=4).astype("f")]
    gradients = [[rng.normal(size=value.shape).astype("f") for value in values] for _ in range(7)]
    ours, alone = ([tf.Variable(value) for value in values] for _ in range(2))
    adapter = optimizer.KerasOptimizerAdapter(ours, [], addons.build(f"tfa:{name}", 0.5), lambda done: 0.1 / (1.0 + done))
    theirs = addons.build(f"tfa:{name}", 0.5)
    for step, gradient in enumerate(gradients):
        adapter.apply([tf.constant(one) for one in gradient], tf.constant(1.0), tf.constant(step != 3), [])
        if step != 3:  # one is skipped
            theirs.learning_rate.assign(0.1 / (1.0 + step - (step > 3)))
            theirs.apply_gradients(zip([tf.constant(one) for one in gradient], alone, strict=True))
    for one, other in zip(ours, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@needs_addons
@pytest.mark.parametrize(
    "fields",
    [{"optimizer": "tfa:LAMB"}, {"optimizer": "tfa:Lookahead:sync_period=3"}, {"augmenter": "tfa", "augment": 1.0}],
    ids=lambda fields: fields.get("optimizer", "tfa.image"),
)
def test_a_training_with_tfa_that_resumes_ends_like_an_uninterrupted_one(fields: dict, tmp_path: pathlib.Path):
    dummy.convert(str(tmp_path / "records"), 64, 11, width=48, max_label_length=3)
    often = {"steps": 8, "batch_size": 8, "log_every": 4, "eval_every": 4, "checkpoint_every": 4, "warmup_steps": 2, "ema": 0.9}
    for workdir, stops in (("uninterrupted", []), ("run", [False, True])):
        training = settings(tmp_path / "records", tmp_path / workdir, **often, **fields)
        for answers in ([iter(stops)] if stops else []) + [None]:
            train.train(training, stop=(lambda answers=answers: next(answers)) if answers else lambda: False)
    one, other = (
        tf.train.load_checkpoint(str(tmp_path / name / "checkpoints" / "ckpt-8")) for name in ("uninterrupted", "run")
    )
    names = [name for name in one.get_variable_to_shape_map() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert any("theirs" in name for name in names) == ("optimizer" in fields)
    for name in names:
        if "save_counter" not in name:
            np.testing.assert_allclose(one.get_tensor(name), other.get_tensor(name), rtol=1e-4, atol=1e-5, err_msg=name)


@needs_addons
@pytest.mark.proof("addons-proof")
@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "tfa:LAMB", "learning_rate": 0.01},
        {"optimizer": "tfa:LazyAdam"},
        {"optimizer": "tfa:Lookahead"},
        {"optimizer": "tfa:NovoGrad", "learning_rate": 0.01},
        {"optimizer": "tfa:RectifiedAdam"},
        {"augmenter": "tfa", "augment": 0.5},
    ],
    ids=lambda fields: fields.get("optimizer", "tfa.image"),
)
def test_a_training_with_tfa_reads_within_two_minutes(trained, fields: dict, tmp_path: pathlib.Path):
    done = train.train(settings(trained.records, tmp_path / "run", steps=500, batch_size=16, **fields))
    print(f"\n{fields}: CER {done['cer']:.2%} after {done['seconds']:.0f} s")
    assert done["cer"] < 0.01
    assert done["seconds"] < 120


# ---- tfa.image ------------------------------------------------------------------------------------------------------------


def grains(widths: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns lines of random grey squares, with the given widths."""
    grain = np.random.default_rng(0).integers(0, 256, (len(widths), 8, 50), np.uint8).repeat(4, 1).repeat(4, 2)
    return tf.constant(grain * (np.arange(200) < widths[:, None, None])), tf.constant(widths, tf.int32)


@needs_addons
def test_rotation_and_shear_of_tfa_equal_ours():
    rng = np.random.default_rng(1)
    pixels, width = grains(rng.integers(1, 201, 300))
    room = tf.constant(rng.uniform(0, 1, 300).astype("f"))
    geometry = augment._geometry(32, width, tf.constant(rng.uniform(-1, 1, (300, 3)).astype("f")), room)
    ours, theirs = (warp(pixels, width, *geometry).numpy().astype(int) for warp in (augment._warp, augment_tfa.warp))
    assert np.abs(ours - pixels.numpy()).mean() > 10
    assert np.abs(ours - theirs).max() <= 1


@needs_addons
def test_cutout_of_tfa_fills_squares_with_the_mean_grey_of_the_line():
    pixels, width = grains(np.full(300, 120))
    place = tf.constant(np.random.default_rng(2).uniform(0, 1, (300, 2)).astype("f"))
    cut = augment_tfa.cut_out(pixels, width, place, 8).numpy()
    for line, before, (across, along) in zip(cut, pixels.numpy(), place.numpy(), strict=True):
        rows, columns = np.nonzero(line != before)
        assert np.ptp(rows) < 8
        assert np.ptp(columns) < 8
        assert len(rows) > 12  # at least a quarter of the square is within the line
        assert np.unique(line[rows, columns]).tolist() == [round(before[:, :120].mean())]
        assert abs(rows.mean() - across * 32) < 5
        assert abs(columns.mean() - along * 120) < 5
    assert augment_tfa.cut_out(pixels[:0], width[:0], place[:0], 8).shape == [0, 32, 200]


@needs_addons
def test_with_tfa_some_lines_have_holes_and_the_seed_decides_which():
    pixels, width = tf.fill([400, 32, 120], tf.constant(200, tf.uint8)), tf.fill([400], 90)
    pixels = tf.where(tf.range(120) < 45, tf.constant(40, tf.uint8), pixels) * tf.cast(tf.range(120) < 90, tf.uint8)
    seed = tf.constant([3, 4], tf.int64)
    ours, theirs, again = (augment.augment(pixels, width, 1.0, seed, given).numpy() for given in (False, True, True))
    np.testing.assert_array_equal(theirs, again)
    assert not theirs[:, :, 90:].any()
    different = (np.abs(ours.astype(int) - theirs) > 2).any(axis=(1, 2))
    assert 0.2 < different.mean() < 0.4


# ---- a newer TensorFlow in another environment -----------------------------------------------------------------------------

OTHER = os.environ.get("OTHER_PYTHON")


@pytest.mark.skipif(not OTHER, reason="needs another environment: make test-addons")
def test_exports_and_records_are_the_same_with_the_newer_tensorflow(trained, tmp_path: pathlib.Path):
    def there(name: str, *arguments: object) -> list[str]:
        line = [str(OTHER), "-m", f"tools.{name}", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=True).stdout.splitlines()

    drawn = {"charset": "digits", "width": 112, "min_chars": 2, "max_chars": 6}
    render.render(render.RenderConfig(output=str(tmp_path / "lines"), count=500, seed=5, **drawn))
    images = sorted((tmp_path / "lines").glob("*.png"))
    texts = saved_model.load(trained.export)([image.read_bytes() for image in images])[0]
    rows = [row.split("\t") for row in there("ocr_predict", f"--saved_model={trained.export}", *images)]
    assert [row[1] for row in rows] == texts
    assert len(set(texts)) > 400

    # Records are byte-identical.
    packed = ["--images=lines", "--labels=lines/labels.txt", "--charset=digits"]
    there("make_tfrecords", *packed, "--output=theirs")
    packing = {"images": str(tmp_path / "lines"), "labels": str(tmp_path / "lines" / "labels.txt"), "charset": "digits"}
    convert.convert(ConvertConfig(output=str(tmp_path / "ours"), **packing))
    ours, theirs = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("ours", "theirs"))
    assert ours == theirs
