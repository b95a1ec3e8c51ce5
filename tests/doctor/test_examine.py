"""Each fault is planted in a real run and must be named with its code; a healthy run has no finding.

`make doctor-proof` does so with three seeds.
"""

import contextlib
import json
import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image, ImageOps

from ocr import charset as charsets
from ocr.config import ConvertConfig, TrainConfig
from ocr.data import convert, dummy
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.synthesis import render
from ocr.training import run, train
from tfrecords.errors import IntegrityError

SEEDS = range(int(os.environ.get("DOCTOR_SEEDS", "1")))


def config(records: pathlib.Path, workdir: pathlib.Path, **fields) -> TrainConfig:
    short = {"steps": 30, "batch_size": 16, "log_every": 10, "eval_every": 15, "checkpoint_every": 1000, "warmup_steps": 5}
    data = {"train_data": str(records), "eval_data": str(records), "workdir": str(workdir)}
    return TrainConfig(**{**data, **short, **fields})


def report(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / "doctor.json").read_text("utf-8"))


def codes(told: dict) -> list[str]:
    return [finding["code"] for finding in told["findings"]]


class Probabilities(Objective):
    def logits(self, batch, training):
        values, frames = super().logits(batch, training)
        return tf.nn.softmax(values), frames


class SoftmaxInLoss(Objective):
    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(tf.nn.softmax(logits), frames, batch)


class LogOfProbabilities(Objective):
    def logits(self, batch, training):
        values, frames = super().logits(batch, training)
        return tf.math.log(tf.nn.softmax(values) + 1e-7), frames


class KerasBackend(Probabilities):
    """As `K.ctc_batch_cost` has it: the network gives probabilities, the loss takes their logarithm."""

    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(tf.math.log(logits + 1e-7), frames, batch)


class LogInLoss(Objective):
    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(tf.math.log(tf.nn.softmax(logits) + 1e-7), frames, batch)


class BlankFirst(Objective):
    def ctc_loss(self, logits, frames, batch):
        args = batch["labels"], logits, batch["label_lengths"], frames
        return tf.nn.ctc_loss(*args, logits_time_major=False, blank_index=0)


class HalfTheFrames(Objective):
    def logits(self, batch, training):
        values, frames = super().logits(batch, training)
        return values, frames // 2


class TooManyFrames(Objective):
    def logits(self, batch, training):
        values, _ = super().logits(batch, training)
        return values, batch["width"]


class HalfTheFramesInLoss(Objective):
    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(logits, frames // 2, batch)


class PaddingIsLabels(Objective):
    def ctc_loss(self, logits, frames, batch):
        padded = tf.fill(tf.shape(batch["label_lengths"]), tf.shape(batch["labels"])[1])
        return super().ctc_loss(logits, frames, {**batch, "label_lengths": padded})


class NextLinesLabels(Objective):
    def ctc_loss(self, logits, frames, batch):
        moved = {name: tf.roll(batch[name], 1, 0) for name in ("labels", "label_lengths")}
        return super().ctc_loss(logits, frames, {**batch, **moved})


class NeverTrains(Objective):
    def logits(self, batch, training):
        return super().logits(batch, training=False)


class AlwaysTrains(Objective):
    def logits(self, batch, training):
        return super().logits(batch, training=True)


class Summed(Objective):
    def reduce(self, nats):
        return tf.add_n([tf.reduce_sum(nats), *self.model.losses])


class BrokenGradient(Objective):
    def ctc_loss(self, logits, frames, batch):
        return super().ctc_loss(logits, frames, batch) + tf.sqrt(0.0 * tf.reduce_sum(logits))


def cut_off(image, mask, batch_norm):
    return layers.Lambda(tf.stop_gradient)(networks._lite(image, mask, batch_norm))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("learner", "code", "model"),
    [
        (Probabilities, "probabilities_as_logits", "lite"),
        (SoftmaxInLoss, "probabilities_as_logits", "lite"),
        (LogOfProbabilities, "log_epsilon", "lite"),
        (KerasBackend, "log_epsilon", "lite"),
        (LogInLoss, "log_epsilon", "lite"),
        (BlankFirst, "blank_index", "lite"),
        (HalfTheFrames, "frame_mismatch", "lite"),
        (TooManyFrames, "frame_mismatch", "lite"),
        (HalfTheFramesInLoss, "frame_mismatch", "lite"),
        (PaddingIsLabels, "labels_out_of_range", "lite"),
        (NextLinesLabels, "labels_shuffled", "lite"),
        (AlwaysTrains, "dropout_in_eval", "lite"),
        (NeverTrains, "batchnorm_frozen", "lite"),
        (AlwaysTrains, "dropout_in_eval", "cnn"),
        (Summed, "loss_summed", "lite"),
        (BrokenGradient, "bad_gradients", "lite"),
    ],
)
def test_a_fault_of_network_or_loss_stops_the_run_before_its_first_step(
    trained, tmp_path: pathlib.Path, monkeypatch, objective: type, code: str, model: str, seed: int
):
    monkeypatch.setattr(run, "Learner", objective)
    with pytest.raises(IntegrityError, match=f"doctor: {code}: "):
        train.train(config(trained.records, tmp_path / "run", model=model, seed=seed))
    assert codes(report(tmp_path / "run")) == [code]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("code", ["bad_gradients", "alphabet_differs", "labels_shifted", "labels_out_of_range"])
def test_a_fault_of_layers_or_labels_stops_the_run_before_its_first_step(
    trained, tmp_path: pathlib.Path, monkeypatch, code: str, seed: int
):
    build, encode = networks.build, charsets.Charset.encode_graph
    if code == "bad_gradients":
        monkeypatch.setitem(networks.NETWORKS, "lite", networks.Network(cut_off, 4))
    elif code == "alphabet_differs":
        monkeypatch.setattr(networks, "build", lambda name, classes, *more: build(name, classes + 3, *more))
    elif code == "labels_shifted":
        monkeypatch.setattr(charsets.Charset, "encode_graph", lambda self, text: encode(self, text) + 1)
    else:
        monkeypatch.setattr(charsets.Charset, "encode_graph", lambda self, text: encode(self, text) * 2)
    with pytest.raises(IntegrityError, match=f"doctor: {code}: "):
        train.train(config(trained.records, tmp_path / "run", seed=seed))
    assert codes(report(tmp_path / "run")) == [code]


def test_a_fault_can_be_overridden(trained, tmp_path: pathlib.Path, monkeypatch, capsys):
    monkeypatch.setattr(run, "Learner", Summed)
    assert train.train(config(trained.records, tmp_path / "run", override=True))["steps"] == 30
    assert codes(report(tmp_path / "run")) == ["loss_summed"]
    assert "doctor: loss_summed: " in capsys.readouterr().err


# ---- faults that show while it runs --------------------------------------------------------------------------------------


@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("rate_high", {"learning_rate": 30.0}),
        ("rate_high", {"learning_rate": 100.0, "optimizer": "sgd", "clip_norm": 0.0}),
        ("rate_low", {"learning_rate": 1e-8}),
        ("rate_low", {"learning_rate": 1e-7, "optimizer": "sgd"}),
    ],
)
def test_a_rate_that_is_far_off_is_named_while_it_runs(trained, tmp_path: pathlib.Path, code: str, fields: dict, seed: int):
    settings = config(trained.records, tmp_path / "run", schedule="constant", seed=seed, steps=60, eval_every=60, **fields)
    with contextlib.suppress(IntegrityError):  # a rate may be so high that no number is left
        train.train(settings)
    assert codes(report(tmp_path / "run")) == [code]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_network_that_sees_nothing_any_more_is_told_from_the_plateau(trained, tmp_path: pathlib.Path, monkeypatch, seed: int):
    made = []

    class Kept(Objective):
        def __init__(self, model: keras.Model, frame_loss: float = 0.0):
            super().__init__(model, frame_loss)
            made.append(model)

    asked = iter(range(100))

    def dies_later() -> bool:
        if next(asked) == 2:  # after 20 steps the last activations go dead, and with them every gradient below
            norm = [layer for layer in made[0].layers if isinstance(layer, layers.BatchNormalization)][-1]
            norm.gamma.assign(tf.zeros_like(norm.gamma))
            norm.beta.assign(-tf.ones_like(norm.beta))
        return False

    monkeypatch.setattr(run, "Learner", Kept)
    settings = config(trained.records, tmp_path / "run", seed=seed, eval_every=10, schedule="constant", steps=60)
    train.train(settings, stop=dies_later)
    assert codes(report(tmp_path / "run")) == ["collapsed_blank"]
    evaluated = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if "cer" in line]
    assert evaluated[0]["cer"] > 0.8  # on the plateau it read next to nothing either


# ---- faults that data files carry ----------------------------------------------------------------------------------------


def pack(folder: pathlib.Path, split: str = "train", charset: str = "digits") -> None:
    """Packs lines into records beside them."""
    packing = {"images": str(folder), "labels": str(folder / "labels.txt"), "charset": charset}
    convert.convert(ConvertConfig(output=str(folder.parent / "records"), split=split, **packing))


def drawn(folder: pathlib.Path, count: int, seed: int, **fields) -> pathlib.Path:
    drawing = {"charset": "digits", "width": 112, "min_chars": 2, "max_chars": 6, **fields}
    render.render(render.RenderConfig(output=str(folder), count=count, seed=seed, **drawing))
    return folder


def relabel(folder: pathlib.Path, change) -> None:
    rows = [line.split("\t") for line in (folder / "labels.txt").read_text("utf-8").splitlines()]
    (folder / "labels.txt").write_text("".join(f"{line}\n" for line in change(rows)), "utf-8")


def plant(code: str, training: pathlib.Path, held_out: pathlib.Path, seed: int) -> None:
    if code == "labels_shuffled":
        order = np.random.default_rng(seed).permutation(600)
        relabel(training, lambda rows: [f"{rows[i][0]}\t{rows[j][1]}" for i, j in enumerate(order)])
    elif code == "labels_shifted":  # ids that count from 0
        relabel(training, lambda rows: [" ".join([name, *text]) for name, text in rows])
    elif code == "images_alike":
        first, *others = sorted(training.glob("*.png"))
        for other in others:
            shutil.copy(first, other)
    elif code == "images_inverted":
        for path in held_out.glob("*.png"):
            ImageOps.invert(Image.open(path)).save(path)


@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("code", "definite"),
    [("labels_shuffled", False), ("labels_shifted", False), ("images_alike", True), ("images_inverted", False)],
)
def test_a_fault_of_the_data_is_named_on_the_command_line(
    command, last_json, tmp_path: pathlib.Path, code: str, definite: bool, seed: int
):
    training = drawn(tmp_path / "training", 600, 10 * seed)
    held_out = drawn(tmp_path / "held_out", 300, 10 * seed + 1)
    plant(code, training, held_out, seed)
    pack(training)
    pack(held_out, split="eval")
    done = command("ocr_doctor", "--data=records")
    assert codes(last_json(done)) == [code]
    assert done.stderr.startswith(f"{code}: ")
    flags = ("--train_data=records", "--eval_data=records", "--workdir=run", "--steps=2", "--batch_size=8")
    started = command("ocr_train", *flags)
    assert (done.returncode, started.returncode) == ((2, 2) if definite else (0, 0)), started.stderr
    assert codes(report(tmp_path / "run")) == [code]
    if definite:
        assert f"error: doctor: {code}: " in started.stderr
        assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
def test_lines_that_are_too_long_for_the_network_are_named(command, last_json, tmp_path: pathlib.Path, seed: int):
    pack(drawn(tmp_path / "training", 300, seed, min_chars=10, max_chars=16))
    done = command("ocr_doctor", "--data=records", "--model=cnn")
    assert codes(last_json(done)) == ["infeasible_lines"]
    assert codes(last_json(command("ocr_doctor", "--data=records", "--model=lite"))) == []
    flags = ("--train_data=records", "--eval_data=records", "--workdir=run", "--steps=1", "--batch_size=4", "--model=cnn")
    assert command("ocr_train", *flags).returncode == 0
    assert codes(report(tmp_path / "run")) == ["infeasible_lines"]


@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
def test_another_alphabet_than_the_training_is_named(command, last_json, trained, tmp_path: pathlib.Path, seed: int):
    pack(drawn(tmp_path / "training", 50, seed, charset="alnum"), charset="alnum")
    done = command("ocr_doctor", "--data=records", f"--workdir={trained.workdir}")
    assert done.returncode == 2
    assert codes(last_json(done)) == ["alphabet_differs"]
    (tmp_path / "records" / "charset.txt").write_text("0\n1\n")
    assert codes(last_json(command("ocr_doctor", "--data=records"))) == ["alphabet_differs"]


@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("step", [1, -1])
def test_held_out_labels_that_are_shifted_show_once_the_network_reads(
    command, last_json, trained, tmp_path: pathlib.Path, step: int, seed: int
):
    shifted = drawn(tmp_path / "shifted", 100, seed)
    relabel(shifted, lambda rows: [f"{name}\t{''.join(str((int(c) + step) % 10) for c in text)}" for name, text in rows])
    pack(shifted, split="eval")
    told = last_json(command("ocr_doctor", "--data=records", f"--workdir={trained.workdir}"))
    assert codes(told) == ["labels_shifted"]
    assert told["standing"].startswith("loss ")


# ---- healthy runs ---------------------------------------------------------------------------------------------------------


def test_a_training_that_reads_has_no_finding(trained, command, last_json):
    assert report(trained.workdir)["findings"] == []
    told = last_json(command("ocr_doctor", f"--data={trained.records}", f"--workdir={trained.workdir}"))
    assert told["findings"] == []
    references = told["references"]
    assert references["uniform"] > references["double_softmax"] > references["blank"] >= references["entropy"] - 1


HEALTHY = [
    {"model": "lite"},
    {"model": "cnn", "batch_size": 4, "optimizer": "adam", "learning_rate": 0.0005},
    {"model": "crnn", "batch_size": 4, "learning_rate": 0.001},
    {"model": "densenet", "batch_size": 8, "learning_rate": 0.001},
    {"learning_rate": 0.0001},
    {"learning_rate": 0.01, "optimizer": "adam", "schedule": "constant", "batch_size": 4},
    {"optimizer": "sgd", "learning_rate": 0.1},
]


@pytest.mark.parametrize("fields", HEALTHY, ids=str)
def test_a_healthy_run_has_no_finding(trained, tmp_path: pathlib.Path, fields: dict):
    train.train(config(trained.records, tmp_path / "run", **{"steps": 40, "eval_every": 20, **fields}))
    assert codes(report(tmp_path / "run")) == []


@pytest.mark.alike
def test_a_healthy_run_on_lines_of_many_widths_has_no_finding(tmp_path: pathlib.Path):
    for split, seed in (("train", 1), ("eval", 2)):
        looks = {"charset": "alnum", "width": 0, "min_chars": 1, "max_chars": 12, "degrade": "scan"}
        pack(drawn(tmp_path / split, 400, seed, **looks), split, "alnum")
    train.train(config(tmp_path / "records", tmp_path / "run"))
    assert codes(report(tmp_path / "run")) == []


@pytest.mark.alike
@pytest.mark.parametrize(("model", "rate"), [("lite", 0.003), ("cnn", 0.0005)])
def test_on_dummy_data_unrelated_labels_are_no_finding(tmp_path: pathlib.Path, model: str, rate: float):
    dummy.convert(str(tmp_path / "records"), 600, 12, width=120, max_label_length=5)
    train.train(config(tmp_path / "records", tmp_path / "run", model=model, batch_size=4, learning_rate=rate))
    assert codes(report(tmp_path / "run")) == []
