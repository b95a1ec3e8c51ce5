import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from trainings import config, journal, metric

from ocr import charset as charsets
from ocr.saving import export
from ocr.saving.workdir import Workdir
from ocr.training import train
from tfrecords import schema, shards, writer
from tfrecords.errors import InputError, IntegrityError


def test_an_alphabet_without_a_needed_character_is_refused_before_anything_is_written(records: str, tmp_path: pathlib.Path):
    with pytest.raises(InputError, match=r"the alphabet lacks '一' \(U\+4E00\)"):
        train.train(config(records, tmp_path / "run", charset="digits"))
    assert not (tmp_path / "run").exists()


@pytest.mark.alike
@pytest.mark.parametrize("steps", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_lines_too_long_for_the_network_are_skipped(steps: int, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture):
    charset = charsets.charset_by_name("digits")
    with writer.SplitWriter(tmp_path, "lines", "train", charset.file_text()) as out:
        for index in range(32):
            text = "12345678" if index % 16 == 3 else "12"
            pixels = np.random.default_rng(index).bytes(32 * 40)
            out.add(schema.Record(pixels, "raw", 32, 40, 1, text, f"{index}.png").serialize(), index, text, 40)
        made = {"charset": charset.fingerprint, "image_format": "raw", "pixels_per_frame": 4}
        out.finish(**made)
    train.train(config(str(tmp_path), tmp_path / "run", model="cnn", steps=2), stop=lambda: not steps)
    assert "2 lines are too long for frames of 8 pixels and skipped: 3.png, 19.png" in caplog.text
    assert np.isfinite(list(metric(tmp_path / "run", "loss").values())).all()
    assert len(metric(tmp_path / "run", "loss")) == bool(steps)


@pytest.mark.alike
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoded": b"\x89PNG\r\n\x1a\nxxx", "image_format": "png"}, "cannot be read"),
        ({"encoded": b"abc"}, "cannot be read"),
        ({"encoded": b"", "width": 0}, "cannot be read"),
        ({"text": "é"}, r"its text has 'é' .*, which its manifest does not list"),
        (None, "not a record|cannot be read"),
    ],
    ids=["damaged png", "too few raw pixels", "empty", "text not in the manifest", "not a record"],
)
def test_an_unusable_record_is_named(records: str, tmp_path: pathlib.Path, changes: dict | None, message: str):
    shutil.copytree(records, tmp_path / "records")
    path = next((tmp_path / "records").glob("*.manifest.json"))
    described = json.loads(path.read_text())
    shard = path.with_name(described["shards"][0]["file"])
    serialized = [one.numpy() for one in tf.data.TFRecordDataset(str(shard))]
    one = schema.Record(bytes(32 * 48), "raw", 32, 48, 1, "一", "bad.png")
    serialized[5] = one._replace(**changes).serialize() if changes else b"\xff\xff\xffgarbage"
    with tf.io.TFRecordWriter(str(shard)) as out:
        for each in serialized:
            out.write(each)
    described["shards"][0] = dataclasses.asdict(shards.describe(shard, shard.name))
    path.write_text(json.dumps(described))
    with pytest.raises(IntegrityError, match=f"record 6: .*({message})"):
        train.train(config(str(tmp_path / "records"), tmp_path / "run"))


@pytest.mark.alike
@pytest.mark.slow
def test_a_workdir_is_locked_by_its_training(records: str, tmp_path: pathlib.Path):
    def meanwhile() -> bool:
        with pytest.raises(InputError, match="another process is writing"):
            train.train(config(records, tmp_path / "run"))
        return True

    assert train.train(config(records, tmp_path / "run"), stop=meanwhile)["steps"] == 0
    # Without a checkpoint another configuration is allowed.
    assert train.train(config(records, tmp_path / "run", batch_size=4, steps=1))["steps"] == 1


def test_a_split_without_lines_is_refused(records: str, tmp_path: pathlib.Path):
    made = {"charset": charsets.charset_by_name("digits").fingerprint, "image_format": "raw", "pixels_per_frame": 4}
    with writer.SplitWriter(tmp_path / "none", "lines", "eval", charsets.charset_by_name("digits").file_text()) as out:
        out.finish(**made)
    with pytest.raises(InputError, match="split eval has no lines"):
        train.train(config(records, tmp_path / "run", eval_data=str(tmp_path / "none")))


def test_keras_fit_takes_the_steps_of_the_loop(records: str, finished: pathlib.Path, tmp_path: pathlib.Path):
    done = iter([False, True])
    train.train(config(records, tmp_path / "run", trainer="keras"), stop=lambda: next(done))
    assert metric(tmp_path / "run", "loss") == pytest.approx({4: metric(finished, "loss")[4]}, rel=1e-4)


@pytest.mark.slow
def test_both_trainers_take_the_same_steps(records: str, tmp_path: pathlib.Path):
    for trainer in ("loop", "keras"):
        train.train(config(records, tmp_path / trainer, trainer=trainer, steps=20, log_every=1, eval_every=20))
    loop, fit = (list(metric(tmp_path / trainer, "loss").values()) for trainer in ("loop", "keras"))
    assert len(loop) == 20
    np.testing.assert_allclose(fit, loop, rtol=1e-4)
    assert metric(tmp_path / "keras", "cer") == metric(tmp_path / "loop", "cer")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "--steps=0: must be 1 to 1000000000"),
        ({"optimizer": "magic"}, "--optimizer=magic: must be one of adam, adamw, sgd"),
        ({"learning_rate": 0.0}, "--learning_rate=0.0: must be 1e-30 to 1e\\+30"),
        ({"learning_rate": float("nan")}, "--learning_rate=nan: must be 1e-30 to 1e\\+30"),
        ({"clip_norm": float("inf")}, "--clip_norm=inf: must be 0 to 1e\\+30"),
        ({"model": "vgg"}, "--model=vgg"),
        ({"train_data": "/nowhere"}, "/nowhere: no such folder"),
    ],
    ids=["steps", "optimizer", "learning_rate", "learning_rate NaN", "clip_norm", "model", "train_data"],
)
def test_invalid_settings_are_refused(records: str, tmp_path: pathlib.Path, fields: dict, message: str):
    with pytest.raises(InputError, match=message):
        train.train(config(records, tmp_path / "run", **fields))
    assert not (tmp_path / "run").exists()


@pytest.mark.alike
def test_a_frame_loss_needs_records_with_positions_of_characters(records: str, tmp_path: pathlib.Path):
    with pytest.raises(InputError, match=r"--frame_loss=0.5: the records of --train_data=.* lack the positions"):
        train.train(config(records, tmp_path, frame_loss=0.5))
    assert train.train(config(records, tmp_path, steps=1))["steps"] == 1


@pytest.mark.slow
def test_bfloat16_trains_as_float32_does_and_its_weights_are_float32(records: str, tmp_path: pathlib.Path, unchecked_exports):
    losses = {}
    for precision in ("float32", "mixed_bfloat16"):
        # Few narrow lines: processors without AMX are slow.
        train.train(config(records, tmp_path / precision, precision=precision, log_every=12, eval_every=12))
        losses[precision] = journal(tmp_path / precision)[0]["loss"]
    assert losses["mixed_bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    run = tmp_path / "mixed_bfloat16"
    assert export.export(str(run), str(tmp_path / "export"))["version"] == 1
    assert {tf.as_dtype(weight.dtype) for weight in Workdir(run).load().model.trainable_variables} == {tf.float32}
