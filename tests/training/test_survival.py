import dataclasses
import json
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from ocr import charset as charsets
from ocr.config import TrainConfig
from ocr.data import dataset
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.saving import export, warm_start
from ocr.saving.workdir import Workdir
from ocr.training import train
from tfrecords.errors import InputError, IntegrityError

MOMENTS = int(os.environ.get("SURVIVAL_MOMENTS", "2"))


def settings(trained, workdir: pathlib.Path, **fields) -> TrainConfig:
    often = {"steps": 20, "batch_size": 16, "log_every": 5, "eval_every": 10, "checkpoint_every": 5, "warmup_steps": 5}
    data = {"train_data": str(trained.records), "eval_data": str(trained.records)}
    return TrainConfig(**{**data, "workdir": str(workdir), **often, **fields})


def command_line(trained, workdir: pathlib.Path, **fields) -> list[str]:
    config = dataclasses.asdict(settings(trained, workdir, **fields))
    return [sys.executable, "-m", "tools.ocr_train", *(f"--{name}={value}" for name, value in config.items())]


def tensors(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / f"ckpt-{step}"))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith(("_CHECK", "save_counter"))]
    return {name: reader.get_tensor(name) for name in names}


def lines(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def reached(workdir: pathlib.Path) -> int:
    """Returns the last step that a journal tells of."""
    path = workdir / "metrics.jsonl"
    return max(
        [json.loads(line)["step"] for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")], default=0
    )


def test_a_training_that_is_killed_again_and_again_ends_with_the_same_bits(trained, tmp_path: pathlib.Path):
    fields = {"steps": 80, "deterministic": True, "ema": 0.9, "augment": 0.5, "patience": 100, "eval_every": 15}
    subprocess.run(command_line(trained, tmp_path / "whole", **fields), check=True, capture_output=True)
    line, draw = command_line(trained, tmp_path / "run", **fields), random.Random(0)
    for moment in sorted(draw.sample(range(50), MOMENTS)):
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
            while running.poll() is None and (
                not (tmp_path / "run" / "metrics.jsonl").exists() or reached(tmp_path / "run") < moment
            ):
                time.sleep(0.05)
            time.sleep(draw.uniform(0.0, 0.5))
            assert running.poll() is None, "it has ended before it could be killed"
            running.kill()
    subprocess.run(line, check=True, capture_output=True)
    whole, run = (tensors(tmp_path / name, 80) for name in ("whole", "run"))
    assert whole.keys() == run.keys()
    different = [name for name in whole if not np.array_equal(whole[name], run[name])]
    assert not different
    clocked = ("lines_per_second", "input_wait")
    for line, other in zip(lines(tmp_path / "run"), lines(tmp_path / "whole"), strict=True):
        assert line.keys() == other.keys()
        assert {name: line[name] for name in line if name not in clocked} == {n: other[n] for n in other if n not in clocked}


def damage(path: pathlib.Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "emptied":
        content = bytearray()
    else:
        content[int(float(how) * len(content))] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("saved") / "run"
    train.train(settings(trained, workdir, steps=10))
    return workdir


@pytest.mark.alike
@pytest.mark.parametrize("how", ["truncated", "emptied", "0.01", "0.3", "0.6", "0.99"])
@pytest.mark.parametrize("part", ["ckpt-10.index", "ckpt-10.data-00000-of-00001"])
def test_of_a_damaged_checkpoint_the_one_before_is_taken(saved, trained, tmp_path: pathlib.Path, part: str, how: str, capsys):
    shutil.copytree(saved, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / part, how)
    workdir = Workdir(tmp_path / "run")
    model = networks.build("lite", 11)
    parts = {"model": model}
    if how.startswith("0") and part.startswith("ckpt-10.data"):
        # The flipped bit may lie in a moment: all of it has to be read for that to be seen.
        assert train.train(settings(trained, tmp_path / "run", steps=10), stop=lambda: True)["steps"] == 5
    else:
        assert workdir.restore(parts)
    said = capsys.readouterr().err
    assert "ckpt-10: damaged checkpoint" in said
    assert "taking the one before" in said


@pytest.mark.alike
def test_what_is_saved_after_a_damaged_checkpoint_stays(saved, trained, tmp_path: pathlib.Path):
    shutil.copytree(saved, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / "ckpt-10.index", "emptied")
    train.train(settings(trained, tmp_path / "run", steps=6, keep_checkpoints=1, eval_every=100))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("*.index")] == ["ckpt-6.index"]


def test_checkpoints_without_their_configuration_are_not_gone_on_with(saved, trained, tmp_path: pathlib.Path):
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(IntegrityError, match=r"config\.json: gone, though there are checkpoints"):
        train.train(settings(trained, tmp_path / "run", model="cnn"))
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_first_weights_may_come_from_a_training_or_an_export_with_another_alphabet(trained, tmp_path: pathlib.Path):
    theirs, ours = charsets.charset_by_name("digits"), charsets.Charset("9a0")
    for source in (trained.workdir, trained.export):
        model = networks.build("lite", ours.num_classes)
        kernel, _ = model.get_layer("logits").get_weights()
        assert warm_start.take_weights(model, ours, str(source)) == 2
        other = Workdir(trained.workdir).load().model
        their_kernel, their_bias = other.get_layer("logits").get_weights()
        for weight, origin in zip(model.weights[:-2], other.weights[:-2], strict=True):
            np.testing.assert_array_equal(weight.numpy(), origin.numpy())
        for mine, its in ((0, 9), (2, 0), (ours.blank, theirs.blank)):
            np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0][:, mine], their_kernel[:, its])
            assert model.get_layer("logits").get_weights()[1][mine] == their_bias[its]
        np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0][:, 1], kernel[:, 1])  # what "a" had


def test_a_training_from_the_weights_of_another_one_reads_at_once(trained, tmp_path: pathlib.Path):
    fields = {"steps": 1, "learning_rate": 1e-9, "eval_every": 1, "ema": 0.9, "init_from": str(trained.export), "replicas": 2}
    assert train.train(settings(trained, tmp_path / "run", **fields))["cer"] < 0.02
    # Going on, it is not looked at again.
    assert (
        train.train(settings(trained, tmp_path / "run", **{**fields, "steps": 2, "init_from": "/gone", "replicas": 0}))["steps"]
        == 2
    )


@pytest.mark.parametrize(
    ("source", "model", "error", "message"),
    [
        ("/nowhere", "lite", InputError, "--init_from=/nowhere: no such folder"),
        (None, "cnn", InputError, "has the network lite, this training cnn"),
        ("cut", "lite", IntegrityError, "damaged export"),
    ],
)
def test_weights_that_cannot_be_taken_are_refused(trained, tmp_path: pathlib.Path, source, model: str, error, message: str):
    if source == "cut":
        source = str(shutil.copytree(trained.export, tmp_path / "cut"))
        damage(tmp_path / "cut" / "1" / "saved_model.pb", "truncated")
    with pytest.raises(error, match=message):
        train.train(settings(trained, tmp_path / "run", model=model, init_from=source or str(trained.export)))


class Poisoned(Objective):
    """A learner whose loss is no number for lines with a 7."""

    def ctc_loss(self, logits, frames, batch):
        own = tf.sequence_mask(batch["label_lengths"], tf.shape(batch["labels"])[1])
        bad = tf.reduce_any((batch["labels"] == 7) & own, axis=1)
        return tf.where(bad, float("nan"), super().ctc_loss(logits, frames, batch))


def test_a_step_that_fails_is_left_out_and_its_lines_named(trained, tmp_path: pathlib.Path, monkeypatch, capsys):
    monkeypatch.setattr("ocr.training.run.Learner", Poisoned)
    fields = {"batch_size": 2, "steps": 12, "override": True, "bad_steps": 100}
    assert train.train(settings(trained, tmp_path / "run", **fields))["steps"] == 12
    assert Workdir(tmp_path / "run").newest() == 12  # though its last step was left out
    told = [line for line in lines(tmp_path / "run") if "left_out" in line]
    left_out, files = ([one for line in told for one in line[name]] for name in ("left_out", "files"))
    assert 0 < len(left_out) < 12
    assert len(files) == 2 * len(left_out)
    texts = dict(line.split("\t") for line in (trained.lines / "train" / "labels.txt").read_text().splitlines())
    assert all("7" in texts[a] + texts[b] for a, b in zip(files[::2], files[1::2], strict=True))
    assert "the loss or a gradient is not finite, nothing was changed; its lines are those of" in capsys.readouterr().err
    assert all(np.isfinite(value).all() for value in tensors(tmp_path / "run", Workdir(tmp_path / "run").newest()).values()
               if value.dtype == np.float32)  # fmt: skip


def test_too_many_failed_steps_end_the_training_and_leave_the_last_good_checkpoint(
    trained, tmp_path: pathlib.Path, monkeypatch
):
    train.train(settings(trained, tmp_path / "run", steps=5))
    before = tensors(tmp_path / "run", 5)
    monkeypatch.setattr("ocr.training.run.Learner", Poisoned)
    fields = {"steps": 50, "override": True, "bad_steps": 3}
    with pytest.raises(IntegrityError, match=r"in \d+ steps in a row, up to step \d+ .*the last good checkpoint is of step 5"):
        train.train(settings(trained, tmp_path / "run", **fields))
    assert Workdir(tmp_path / "run").newest() == 5
    for name, value in tensors(tmp_path / "run", 5).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_training_whose_last_step_failed_is_not_done(trained, tmp_path: pathlib.Path):
    blown = {"learning_rate": 1e30, "schedule": "constant", "steps": 6, "log_every": 100, "checkpoint_every": 100}
    with pytest.raises(IntegrityError, match=r"after step 6 the network gives no numbers: there is no checkpoint yet"):
        train.train(settings(trained, tmp_path / "run", **blown))


@pytest.mark.alike
def test_a_disk_that_fills_leaves_the_older_checkpoint(trained, tmp_path: pathlib.Path):
    line = command_line(trained, tmp_path / "run", steps=5)
    subprocess.run(line, check=True, capture_output=True)
    before = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = subprocess.run(
        command_line(trained, tmp_path / "run", steps=15), capture_output=True, text=True, preexec_fn=little_room
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: --workdir=")
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == before
    done = subprocess.run(command_line(trained, tmp_path / "run", steps=15), capture_output=True, text=True)
    assert "going on from step 5" in done.stderr
    assert done.returncode == 0


def test_bfloat16_trains_as_float32_does(trained, tmp_path: pathlib.Path):
    found = {}
    for precision in ("float32", "mixed_bfloat16"):
        # Few: a processor without AMX takes long for them.
        fields = {"precision": precision, "batch_size": 8, "log_every": 20, "eval_every": 20, "learning_rate": 0.001}
        train.train(settings(trained, tmp_path / precision, **fields))
        found[precision] = lines(tmp_path / precision)[0]["loss"]
    assert found["mixed_bfloat16"] == pytest.approx(found["float32"], rel=0.02)


def test_an_export_of_a_training_in_half_precision_reads_in_full(trained, tmp_path: pathlib.Path):
    train.train(settings(trained, tmp_path / "run", precision="mixed_bfloat16", steps=2, init_from=str(trained.workdir)))
    assert export.export(str(tmp_path / "run"), str(tmp_path / "export"))["version"] == 1
    assert {tf.as_dtype(weight.dtype) for weight in Workdir(tmp_path / "run").load().model.trainable_variables} == {tf.float32}
    assert dataset.find(str(trained.records), "eval").manifest.records
