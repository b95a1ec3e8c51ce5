import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from ocr import charset as charsets
from ocr.config import TrainConfig
from ocr.data import dummy
from ocr.model import networks
from ocr.saving import export
from ocr.saving.workdir import Workdir
from ocr.training import train
from tfrecords import files, schema, shards, writer
from tfrecords.errors import InputError, IntegrityError


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dummy")
    dummy.convert(str(folder), 64, 11, width=48, max_label_length=3)
    return str(folder)


def config(records: str, workdir: pathlib.Path, **fields) -> TrainConfig:
    often = {"steps": 12, "batch_size": 8, "log_every": 4, "eval_every": 6, "checkpoint_every": 4, "warmup_steps": 2}
    return TrainConfig(**{"train_data": records, "eval_data": records, "workdir": str(workdir), **often, **fields})


def figures(workdir: pathlib.Path, name: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


@pytest.fixture(scope="module")
def finished(records: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Trains; returns the workdir, not to be written to."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train.train(config(records, workdir))
    return workdir


@pytest.fixture
def run(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """Returns the workdir of a training of 12 steps."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_training_that_was_stopped_goes_on_where_it_was(records: str, tmp_path: pathlib.Path):
    asked = iter([False, True])
    first = train.train(config(records, tmp_path / "run"), stop=lambda: next(asked))
    assert first["steps"] == 4
    newest = str(tmp_path / "run" / "checkpoints" / "ckpt-4")
    before = {name: tf.train.load_variable(newest, name) for name, _ in tf.train.list_variables(newest)[1:]}
    moments = [name for name in before if "optimizer" in name]
    assert any(np.abs(before[name]).sum() > 0 for name in moments)

    again = train.train(config(records, tmp_path / "run"), stop=lambda: True)  # nothing done: nothing changed
    assert again["steps"] == 4
    done = train.train(config(records, tmp_path / "run"))
    assert done["steps"] == 12
    assert list(figures(tmp_path / "run", "loss")) == [4, 8, 12]
    assert list(figures(tmp_path / "run", "eval_loss")) == [6, 12]
    assert figures(tmp_path / "run", "learning_rate")[12] == pytest.approx(0, abs=1e-6)


def test_a_training_that_was_stopped_ends_with_the_weights_of_one_that_was_not(records: str, tmp_path: pathlib.Path):
    fields = {"model": "cnn", "steps": 8, "ema": 0.9, "eval_every": 3, "log_every": 5, "batch_size": 4}  # cnn has dropout
    whole = train.train(config(records, tmp_path / "whole", **fields))
    asked = iter([False, True])
    assert train.train(config(records, tmp_path / "run", **fields), stop=lambda: next(asked))["steps"] == 3
    assert train.train(config(records, tmp_path / "run", **fields))["best_step"] == whole["best_step"]
    one, other = (tf.train.load_checkpoint(str(tmp_path / name / "checkpoints" / "ckpt-8")) for name in ("whole", "run"))
    names = [name for name in one.get_variable_to_shape_map() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert any("moments" in name for name in names)
    assert any("averages" in name for name in names)
    for name in names:
        if "save_counter" not in name:
            np.testing.assert_allclose(one.get_tensor(name), other.get_tensor(name), rtol=1e-4, atol=1e-5, err_msg=name)
    assert figures(tmp_path / "run", "loss")[8] == pytest.approx(figures(tmp_path / "whole", "loss")[8], rel=1e-5)


@pytest.mark.alike
def test_lines_of_the_journal_beyond_the_checkpoint_are_dropped(records: str, run: pathlib.Path):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 14, "loss": 1.0}\n{"step": 16, "lo')  # of a run that was killed
    train.train(config(records, run, steps=16))
    assert list(figures(run, "loss")) == [4, 8, 12, 16]


@pytest.mark.alike
def test_a_workdir_of_another_configuration_is_refused_difference_by_difference(
    records: str, run: pathlib.Path, tmp_path: pathlib.Path
):
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
    shutil.copytree(records, tmp_path / "moved")  # where the data lies may change
    assert train.train(config(str(tmp_path / "moved"), run, steps=13, log_every=1))["steps"] == 13


def test_a_workdir_of_another_keras_is_not_called_damaged(records: str, run: pathlib.Path):
    told = json.loads((run / "config.json").read_text("utf-8"))
    told["fingerprints"]["keras"] = "1"
    (run / "config.json").write_text(json.dumps(told), "utf-8")
    with pytest.raises(InputError, match=r"keras: saved 1, given \d"):
        train.train(config(records, run))
    with pytest.raises(
        InputError, match=r"trained with Keras 1, whose checkpoints Keras \d cannot read; run ocr_export where it"
    ):
        Workdir(run).load()


def test_a_network_that_reads_nothing_yet_can_be_exported(run: pathlib.Path, tmp_path: pathlib.Path):
    assert export.export(str(run), str(tmp_path / "export"))["version"] == 1


def test_an_alphabet_that_lacks_a_character_is_refused_before_anything_is_written(records: str, tmp_path: pathlib.Path):
    with pytest.raises(InputError, match=r"the alphabet lacks '一' \(U\+4E00\)"):
        train.train(config(records, tmp_path / "run", charset="digits"))
    assert not (tmp_path / "run").exists()


@pytest.mark.alike
def test_lines_that_do_not_fit_the_network_are_counted_named_and_left_out(tmp_path: pathlib.Path, capsys):
    charset = charsets.charset_by_name("digits")
    with writer.SplitWriter(tmp_path, "lines", "train", charset.file_text()) as out:
        for index in range(32):
            text = "12345678" if index % 16 == 3 else "12"
            pixels = np.random.default_rng(index).bytes(32 * 40)
            out.add(schema.Record(pixels, "raw", 32, 40, 1, text, f"{index}.png").serialize(), index, text, 40)
        made = {"charset": charset.fingerprint, "image_format": "raw", "pixels_per_frame": 4}
        out.finish(**made)
    train.train(config(str(tmp_path), tmp_path / "run", model="cnn", steps=2))
    assert "2 lines are too long for frames of 8 pixels and left out: 3.png, 19.png" in capsys.readouterr().err
    assert np.isfinite(list(figures(tmp_path / "run", "loss").values())).all()


def test_a_loss_that_is_no_number_stops_the_training(records: str, tmp_path: pathlib.Path):
    settings = config(records, tmp_path / "run", learning_rate=1e30, optimizer="sgd", schedule="constant", steps=40)
    with pytest.raises(IntegrityError, match=r"the loss or a gradient was not finite in \d+ steps in a row, up to step"):
        train.train(settings)


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(records: str, run: pathlib.Path, capsys):
    checkpoints = run / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("*.index")) == ["ckpt-12.index", "ckpt-4.index", "ckpt-8.index"]
    newest = checkpoints / "ckpt-12.data-00000-of-00001"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert train.train(config(records, run), stop=lambda: True)["steps"] == 8
    said = capsys.readouterr().err
    assert "ckpt-12: damaged checkpoint" in said
    assert "going on from step 8" in said
    for path in checkpoints.glob("*.index"):
        path.write_bytes(b"")
    with pytest.raises(IntegrityError, match="ckpt-4: damaged checkpoint"):
        train.train(config(records, run))


def test_lost_checkpoints_are_not_taken_for_a_beginning(records: str, run: pathlib.Path):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(IntegrityError, match=r"no checkpoint in it, though step \d+ was evaluated"):
        train.train(config(records, run))


def test_weights_and_figures_of_the_best_evaluation_stay_together(run: pathlib.Path, monkeypatch):
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
        ("best/metrics.json", '{"step": 1}', r"metrics.json: damaged"),
        ("best/metrics.json", "[]", r"metrics.json: damaged"),
        ("best/metrics.json", '{"step": 1, "cer": 1e999}', r"metrics.json: damaged"),
        ("best/metrics.json", '{"step": -1, "cer": 1}', r"metrics.json: damaged"),
        ("config.json", "{}", r"config.json: damaged"),
        ("config.json", '{"fingerprints": {"alphabet": 3}}', r"config.json: damaged"),
        (
            "config.json",
            '{"fingerprints": {"alphabet": "", "train_data": "", "eval_data": "", "keras": 3}}',
            r"config.json: damaged",
        ),
    ],
)
def test_a_damaged_file_of_a_workdir_is_named(records: str, run: pathlib.Path, name: str, content: str, message: str):
    (run / name).write_text(content)
    with pytest.raises(IntegrityError, match=message):
        train.train(config(records, run))


@pytest.mark.parametrize("name", ["checkpoints", "best", "events"])
def test_a_file_where_a_workdir_has_a_folder_is_named(records: str, tmp_path: pathlib.Path, name: str):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("")
    with pytest.raises(InputError, match=f"{name}: not a folder"):
        train.train(config(records, tmp_path / "run"))


@pytest.mark.alike
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoded": b"\x89PNG\r\n\x1a\nxxx", "image_format": "png"}, "cannot be read"),
        ({"encoded": b"abc"}, "cannot be read"),
        ({"encoded": b"", "width": 0}, "cannot be read"),
        ({"text": "é"}, r"its text has 'é' .*, which its manifest does not list"),
        (None, "no record|cannot be read"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(records: str, tmp_path: pathlib.Path, changes: dict | None, message: str):
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
def test_one_training_at_a_time_in_a_workdir(records: str, tmp_path: pathlib.Path):
    def meanwhile() -> bool:
        with pytest.raises(InputError, match="another process is writing"):
            train.train(config(records, tmp_path / "run"))
        return True

    assert train.train(config(records, tmp_path / "run"), stop=meanwhile)["steps"] == 0
    # Without a checkpoint nothing binds it to that configuration.
    assert train.train(config(records, tmp_path / "run", batch_size=4, steps=1))["steps"] == 1


def test_weights_that_are_no_numbers_are_not_saved(records: str, tmp_path: pathlib.Path):
    blown = {"learning_rate": 1e30, "optimizer": "sgd", "schedule": "constant", "steps": 1}
    with pytest.raises(IntegrityError, match="not finite"):
        train.train(config(records, tmp_path / "run", **blown))
    assert not list((tmp_path / "run").glob("*/ckpt-*"))


def test_a_split_without_lines_is_refused(records: str, tmp_path: pathlib.Path):
    made = {"charset": charsets.charset_by_name("digits").fingerprint, "image_format": "raw", "pixels_per_frame": 4}
    with writer.SplitWriter(tmp_path / "none", "lines", "eval", charsets.charset_by_name("digits").file_text()) as out:
        out.finish(**made)
    with pytest.raises(InputError, match="split eval has no lines"):
        train.train(config(records, tmp_path / "run", eval_data=str(tmp_path / "none")))


def test_a_training_that_is_stopped_tells_of_all_its_steps(records: str, tmp_path: pathlib.Path):
    asked = iter([False, True])
    train.train(config(records, tmp_path / "run", log_every=100, eval_every=100, checkpoint_every=100), lambda: next(asked))
    assert list(figures(tmp_path / "run", "loss")) == [10]


def test_both_trainers_take_the_same_steps(records: str, tmp_path: pathlib.Path):
    for trainer in ("loop", "keras"):
        train.train(config(records, tmp_path / trainer, trainer=trainer, steps=20, log_every=1, eval_every=20))
    loop, fit = (list(figures(tmp_path / trainer, "loss").values()) for trainer in ("loop", "keras"))
    assert len(loop) == 20
    np.testing.assert_allclose(fit, loop, rtol=1e-4)
    assert figures(tmp_path / "keras", "cer") == figures(tmp_path / "loop", "cer")


@pytest.mark.parametrize("trainer", ["loop", "keras"])
def test_a_training_stops_when_it_gets_no_better(records: str, tmp_path: pathlib.Path, trainer: str):
    # With a rate of next to nothing the best evaluation is one of the first.
    still = {"learning_rate": 1e-12, "optimizer": "sgd", "schedule": "constant", "eval_every": 1, "log_every": 1}
    done = train.train(config(records, tmp_path / "run", steps=200, trainer=trainer, patience=3, **still))
    assert done["steps"] < 200
    assert done["steps"] == done["best_step"] + 3


@pytest.mark.parametrize("trainer", ["loop", "keras"])
def test_the_schedule_of_confusing_ctc_falls_by_epochs(records: str, tmp_path: pathlib.Path, trainer: str):
    # 64 lines in batches of 16: an epoch is 4 steps.
    fields = {"schedule": "epoch_decay", "learning_rate": 0.0005, "optimizer": "adam", "batch_size": 16, "log_every": 2}
    train.train(config(records, tmp_path / "run", trainer=trainer, **fields))
    rates = figures(tmp_path / "run", "learning_rate")
    assert rates == pytest.approx({2: 5e-4, 4: 2e-4, 6: 2e-4, 8: 8e-5, 10: 8e-5, 12: 3.2e-5})


@pytest.mark.alike
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_learning_rate_follows_its_schedule(schedule: str, records: str, tmp_path: pathlib.Path):
    settings = config(records, tmp_path, optimizer="sgd", schedule=schedule, learning_rate=0.01, steps=6, log_every=1)
    train.train(dataclasses.replace(settings, eval_every=6))
    rates = list(figures(tmp_path, "learning_rate").values())
    cosine = [0.005, 0.01, *(0.005 * (1 + np.cos(np.pi * k / 4)) for k in range(1, 5))]
    np.testing.assert_allclose(rates, cosine if schedule == "cosine" else [0.01] * 6, rtol=1e-4, atol=1e-8)


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
)
def test_what_cannot_be_used_is_refused(records: str, tmp_path: pathlib.Path, fields: dict, message: str):
    with pytest.raises(InputError, match=message):
        train.train(config(records, tmp_path / "run", **fields))
    assert not (tmp_path / "run").exists()


def test_a_frame_loss_wants_lines_that_tell_where_their_characters_are(records: str, tmp_path: pathlib.Path):
    with pytest.raises(InputError, match=r"--frame_loss=0.5: the lines of --train_data=.* do not tell where"):
        train.train(config(records, tmp_path, frame_loss=0.5))
    assert train.train(config(records, tmp_path, steps=1))["steps"] == 1
