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
from trainings import config, digits_config, journal, metric, tensors

from ocr import charset as charsets
from ocr.data import dummy
from ocr.model import networks
from ocr.saving import export
from ocr.saving.workdir import Workdir
from ocr.training import train
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

MOMENTS = int(os.environ.get("SURVIVAL_MOMENTS", "1"))


@pytest.fixture
def stopped(records: str, tmp_path: pathlib.Path) -> pathlib.Path:
    """Returns the workdir of a training that was stopped after 4 of 12 steps."""
    answers = iter([False, True])
    assert train.train(config(records, tmp_path / "stopped"), stop=lambda: next(answers))["steps"] == 4
    return tmp_path / "stopped"


def test_a_stopped_training_resumes_and_ends_with_the_same_weights(records: str, finished: pathlib.Path, stopped: pathlib.Path):
    assert any(np.abs(value).sum() > 0 for name, value in tensors(stopped, 4).items() if "optimizer" in name)
    done = train.train(config(records, stopped))
    assert done["steps"] == 12
    assert list(metric(stopped, "loss")) == [4, 8, 12]
    assert list(metric(stopped, "eval_loss")) == [6, 12]
    assert metric(stopped, "learning_rate")[12] == pytest.approx(0, abs=1e-6)
    one, other = tensors(finished, 12), tensors(stopped, 12)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_training_that_is_stopped_at_once_changes_nothing(records: str, run: pathlib.Path):
    before = tensors(run, 12)
    again = train.train(config(records, run, steps=20), stop=lambda: True)
    assert (again["steps"], again["interrupted"]) == (12, True)
    assert Workdir(run).newest() == 12
    for name, value in tensors(run, 12).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.slow
@pytest.mark.proof("train-proof")
def test_a_resumed_training_with_dropout_and_ema_ends_with_the_same_weights(records: str, tmp_path: pathlib.Path):
    fields = {"model": "cnn", "steps": 8, "ema": 0.9, "eval_every": 3, "log_every": 5, "batch_size": 4}  # cnn has dropout
    uninterrupted = train.train(config(records, tmp_path / "uninterrupted", **fields))
    answers = iter([False, True])
    assert train.train(config(records, tmp_path / "run", **fields), stop=lambda: next(answers))["steps"] == 3
    assert train.train(config(records, tmp_path / "run", **fields))["best_step"] == uninterrupted["best_step"]
    one, other = (
        tf.train.load_checkpoint(str(tmp_path / name / "checkpoints" / "ckpt-8")) for name in ("uninterrupted", "run")
    )
    names = [name for name in one.get_variable_to_shape_map() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert any("moments" in name for name in names)
    assert any("averages" in name for name in names)
    for name in names:
        if "save_counter" not in name:
            np.testing.assert_allclose(one.get_tensor(name), other.get_tensor(name), rtol=1e-4, atol=1e-5, err_msg=name)
    assert metric(tmp_path / "run", "loss")[8] == pytest.approx(metric(tmp_path / "uninterrupted", "loss")[8], rel=1e-5)


@pytest.mark.alike
def test_metrics_of_later_steps_than_the_checkpoint_are_dropped(records: str, run: pathlib.Path):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 14, "loss": 1.0}\n{"step": 16, "lo')  # left by a run that was killed
    train.train(config(records, run, steps=16))
    assert list(metric(run, "loss")) == [4, 8, 12, 16]


@pytest.mark.alike
def test_another_configuration_is_refused_and_every_difference_named(records: str, run: pathlib.Path, tmp_path: pathlib.Path):
    other = tmp_path / "other"
    dummy.convert(str(other), 64, 11, width=48, max_label_length=3, seed=1)
    for fields, message in (
        ({"batch_size": 4, "seed": 1}, r"batch_size: saved 8, given 4; seed: saved 0, given 1"),
        ({"model": "cnn"}, "model: saved lite, given cnn"),
        ({"train_data": str(other)}, r"train_data: saved \w{12}, given \w{12}"),
    ):
        with pytest.raises(InputError, match=message):
            train.train(config(records, run, **fields))
    (tmp_path / "charset.txt").write_text(charsets.Charset("".join(map(chr, range(0x4E00, 0x4E00 + 20)))).file_text())
    with pytest.raises(InputError, match=r"alphabet: saved \w{12}, given \w{12}"):
        train.train(config(records, run, charset=str(tmp_path / "charset.txt")))


@pytest.mark.alike
def test_a_training_resumes_with_data_that_was_moved(records: str, run: pathlib.Path, tmp_path: pathlib.Path):
    shutil.copytree(records, tmp_path / "moved")
    assert train.train(config(str(tmp_path / "moved"), run, steps=13, log_every=1))["steps"] == 13


def test_a_workdir_of_another_keras_is_refused_by_version(records: str, run: pathlib.Path):
    saved = json.loads((run / "config.json").read_text("utf-8"))
    saved["fingerprints"]["keras"] = "1"
    (run / "config.json").write_text(json.dumps(saved), "utf-8")
    with pytest.raises(InputError, match=r"keras: saved 1, given \d"):
        train.train(config(records, run))
    with pytest.raises(
        InputError, match=r"trained with Keras 1, whose checkpoints Keras \d cannot read; run ocr_export where it"
    ):
        Workdir(run).load()


@pytest.mark.slow
def test_a_network_that_reads_nothing_is_exported_as_the_next_version(trained, run: pathlib.Path, tmp_path: pathlib.Path):
    exports = tmp_path / "export"
    shutil.copytree(trained.export / "1", exports / "7")
    assert export.export(str(run), str(exports))["version"] == 8
    assert sorted(path.name for path in exports.iterdir()) == ["7", "8"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    records: str, run: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    checkpoints = run / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("*.index")) == ["ckpt-12.index", "ckpt-4.index", "ckpt-8.index"]
    newest = checkpoints / "ckpt-12.data-00000-of-00001"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert train.train(config(records, run), stop=lambda: True)["steps"] == 8
    said = caplog.text
    assert "ckpt-12: damaged checkpoint" in said
    assert "resuming from step 8" in said
    for path in checkpoints.glob("*.index"):
        path.write_bytes(b"")
    with pytest.raises(IntegrityError, match="ckpt-4: damaged checkpoint"):
        train.train(config(records, run))


def test_lost_checkpoints_do_not_start_a_new_training(records: str, run: pathlib.Path):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(IntegrityError, match=r"no checkpoint in it, though step \d+ was evaluated"):
        train.train(config(records, run))


def test_weights_and_metrics_of_the_best_evaluation_stay_consistent(run: pathlib.Path, monkeypatch):
    workdir = Workdir(run)
    model, charset, *_ = workdir.load()
    before, best = [value.copy() for value in model.get_weights()], workdir.best()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        workdir.keep_best(networks.build("lite", charset.num_classes), 17, {"cer": 0.0})
    monkeypatch.undo()
    assert workdir.best() == best
    for one, other in zip(before, workdir.load()[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    workdir.keep_best(model, 18, {"cer": 0.0})
    assert sorted(path.name for path in (run / "best").glob("*.index")) == ["ckpt-18.index"]
    for path in (run / "best").glob("ckpt-18.*"):
        path.unlink()
    with pytest.raises(IntegrityError, match="best/ckpt-18: damaged"):
        workdir.load()


@pytest.mark.alike
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", "[1]\n", r"metrics.jsonl: line 1: damaged"),
        ("best/metrics.json", "[1]", r"metrics.json: damaged"),
        ("config.json", "{}", r"config.json: damaged"),
        ("config.json", '{"fingerprints": {"alphabet": 3}}', r"config.json: damaged"),
        (
            "config.json",
            '{"fingerprints": {"alphabet": "", "train_data": "", "eval_data": "", "keras": 3}}',
            r"config.json: damaged",
        ),
    ],
    ids=[
        "journal line without a step",
        "metrics are a list of one",
        "empty configuration",
        "fingerprint is a number",
        "version of Keras is a number",
    ],
)
def test_a_damaged_file_of_a_workdir_is_named(records: str, run: pathlib.Path, name: str, content: str, message: str):
    (run / name).write_text(content)
    with pytest.raises(IntegrityError, match=message):
        train.train(config(records, run))


@pytest.mark.parametrize("content", ["[1]", '{"step": 1}', "[]", '{"step": 1, "cer": 1e999}', '{"step": -1, "cer": 1}'])
def test_damaged_metrics_of_the_best_evaluation_are_named(tmp_path: pathlib.Path, content: str):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "metrics.json").write_text(content)
    with pytest.raises(IntegrityError, match=r"best/metrics\.json: damaged"):
        Workdir(tmp_path).best()


@pytest.mark.alike
@pytest.mark.parametrize("name", ["checkpoints", "best", "events"])
def test_a_file_in_place_of_a_folder_is_named(records: str, tmp_path: pathlib.Path, name: str):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("")
    with pytest.raises(InputError, match=f"{name}: not a folder"):
        train.train(config(records, tmp_path / "run"))


def command_line(trained, workdir: pathlib.Path, **fields) -> list[str]:
    config = dataclasses.asdict(digits_config(trained, workdir, **fields))
    return [sys.executable, "-m", "tools.ocr_train", *(f"--{name}={value}" for name, value in config.items())]


def reached(workdir: pathlib.Path) -> int:
    """Returns the last step in the journal."""
    path = workdir / "metrics.jsonl"
    return max(
        [json.loads(line)["step"] for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")], default=0
    )


@pytest.mark.slow
def test_a_training_killed_again_and_again_ends_with_the_same_bits(trained, tmp_path: pathlib.Path):
    fields = {"steps": 50, "deterministic": True, "ema": 0.9, "augment": 0.5, "patience": 100, "eval_every": 15}
    subprocess.run(command_line(trained, tmp_path / "uninterrupted", **fields), check=True, capture_output=True)
    line, draw = command_line(trained, tmp_path / "run", **fields), random.Random(0)
    for moment in sorted(draw.sample(range(35), MOMENTS)):
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
            while running.poll() is None and (
                not (tmp_path / "run" / "metrics.jsonl").exists() or reached(tmp_path / "run") < moment
            ):
                time.sleep(0.05)
            time.sleep(draw.uniform(0.0, 0.5))
            assert running.poll() is None, "it ended before it could be killed"
            running.kill()
    subprocess.run(line, check=True, capture_output=True)
    uninterrupted, run = (tensors(tmp_path / name, 50) for name in ("uninterrupted", "run"))
    assert uninterrupted.keys() == run.keys()
    different = [name for name in uninterrupted if not np.array_equal(uninterrupted[name], run[name])]
    assert not different
    clocked = ("lines_per_second", "input_wait")
    for line, other in zip(journal(tmp_path / "run"), journal(tmp_path / "uninterrupted"), strict=True):
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


@pytest.mark.alike
@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "emptied",
        pytest.param("0.01", marks=pytest.mark.slow),
        "0.3",
        pytest.param("0.99", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("part", ["ckpt-10.index", "ckpt-10.data-00000-of-00001"])
def test_the_checkpoint_before_a_damaged_one_is_used(saved, trained, tmp_path: pathlib.Path, part: str, how: str, caplog):
    shutil.copytree(saved, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / part, how)
    workdir = Workdir(tmp_path / "run")
    model = networks.build("lite", 11)
    parts = {"model": model}
    if how.startswith("0") and part.startswith("ckpt-10.data"):
        # The flipped bit may be in a moment of the optimizer, so all of the checkpoint has to be read.
        assert train.train(digits_config(trained, tmp_path / "run", steps=10), stop=lambda: True)["steps"] == 5
    else:
        assert workdir.restore(parts)
    said = caplog.text
    assert "ckpt-10: damaged checkpoint" in said
    assert "using the one before" in said


@pytest.mark.alike
@pytest.mark.slow
def test_a_checkpoint_saved_after_a_damaged_one_stays(saved, trained, tmp_path: pathlib.Path):
    shutil.copytree(saved, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / "ckpt-10.index", "emptied")
    train.train(digits_config(trained, tmp_path / "run", steps=6, keep_checkpoints=1, eval_every=100))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("*.index")] == ["ckpt-6.index"]


def test_checkpoints_without_a_configuration_are_refused(saved, trained, tmp_path: pathlib.Path):
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(IntegrityError, match=r"config\.json: missing, though there are checkpoints"):
        train.train(digits_config(trained, tmp_path / "run", model="cnn"))
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.alike
def test_a_full_disk_keeps_the_older_checkpoint(saved, trained, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    shutil.copytree(saved, tmp_path / "run")
    before = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = subprocess.run(
        command_line(trained, tmp_path / "run", steps=15), capture_output=True, text=True, preexec_fn=little_room
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: --workdir=")
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == before
    assert train.train(digits_config(trained, tmp_path / "run", steps=15))["steps"] == 15
    assert "resuming from step 10" in caplog.text
