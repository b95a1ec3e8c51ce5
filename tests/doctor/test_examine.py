"""Each fault is planted and must be reported by its code; healthy data and networks have no finding.

The fast tier examines each case; the slow one runs trainings. `make doctor-proof` runs more of them, with three seeds.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from typing import NamedTuple

import faults
import keras
import pytest
import tensorflow as tf
from keras import layers

from ocr import charset as charsets
from ocr.config import TrainConfig
from ocr.data import dataset, dummy, mixture
from ocr.doctor.case import Case, build_case
from ocr.doctor.examine import examine
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.training import train
from tfrecords.errors import IntegrityError

DIGITS = charsets.charset_by_name("digits")
PROOF = os.environ.get("PROOF") == "doctor-proof"
SEEDS = range(3 if PROOF else 1)
LAYERS_AND_LABELS = ["bad_gradients", "alphabet_differs", "labels_shifted", "labels_out_of_range"]


def config(records: pathlib.Path, workdir: pathlib.Path, **fields) -> TrainConfig:
    short = {"steps": 30, "batch_size": 16, "log_every": 10, "eval_every": 15, "checkpoint_every": 1000, "warmup_steps": 5}
    data = {"train_data": str(records), "eval_data": str(records), "workdir": str(workdir)}
    return TrainConfig(**{**data, **short, **fields})


def doctor_json(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / "doctor.json").read_text("utf-8"))


def codes(report: dict) -> list[str]:
    return [finding["code"] for finding in report["findings"]]


def build(records: pathlib.Path, model: str = "lite", objective: type[Objective] = Objective) -> Case:
    """Builds the case of a training on records that has not begun."""
    frame = networks.network(model).frame
    data, held_out = mixture.mix(str(records), frame), dataset.find(str(records), "eval")
    network = objective(networks.build(model, DIGITS.num_classes))
    return build_case(network, DIGITS, data, held_out, frame)[0]


class Drawn(NamedTuple):
    """A folder of lines, `training` and `held_out`, and the seed that they were drawn with."""

    folder: pathlib.Path
    seed: int


@pytest.fixture(scope="module", params=SEEDS)
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn")
    faults.draw(folder / "training", 600, 10 * request.param)
    faults.draw(folder / "held_out", 300, 10 * request.param + 1)
    return Drawn(folder, request.param)


@pytest.fixture(scope="module")
def records(drawn: Drawn) -> pathlib.Path:
    faults.pack(drawn.folder / "training")
    faults.pack(drawn.folder / "held_out", split="eval")
    return drawn.folder / "records"


@pytest.fixture(scope="module")
def healthy(records: pathlib.Path) -> Case:
    return build(records)


def plant_in_code(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plants one of LAYERS_AND_LABELS."""
    build_network, encode = networks.build, charsets.Charset.encode_graph
    if code == "bad_gradients":
        lite = networks.NETWORKS["lite"]
        monkeypatch.setitem(networks.NETWORKS, "lite", dataclasses.replace(lite, body=faults.stop_gradient(lite.body)))
    elif code == "alphabet_differs":
        monkeypatch.setattr(networks, "build", lambda name, classes, *more: build_network(name, classes + 3, *more))
    elif code == "labels_shifted":
        monkeypatch.setattr(charsets.Charset, "encode_graph", lambda self, text: encode(self, text) + 1)
    else:
        monkeypatch.setattr(charsets.Charset, "encode_graph", lambda self, text: encode(self, text) * 2)


# ---- before the first step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "code", "model"),
    [pytest.param(*fault, marks=[pytest.mark.slow] if fault[2] == "cnn" else []) for fault in faults.OBJECTIVES],
)
def test_a_fault_of_network_or_loss_is_found(healthy: Case, objective: type, code: str, model: str):
    network = networks.build(model, healthy.charset.num_classes)
    weights = [weight.numpy() for weight in network.trainable_variables]
    few = {"training": healthy.training[:2], "held_out": healthy.held_out[:2]}
    findings = examine(dataclasses.replace(healthy, objective=objective(network), **few))
    assert [(finding.code, finding.definite) for finding in findings] == [(code, True)]
    assert all((old == new.numpy()).all() for old, new in zip(weights, network.trainable_variables, strict=True))


@pytest.mark.parametrize("code", LAYERS_AND_LABELS)
def test_a_fault_of_layers_or_labels_is_found(records: pathlib.Path, monkeypatch, code: str):
    plant_in_code(code, monkeypatch)
    assert [(finding.code, finding.definite) for finding in examine(build(records))] == [(code, True)]


@pytest.mark.parametrize("model", ["lite", pytest.param("cnn", marks=pytest.mark.slow)])
def test_a_healthy_network_has_no_finding(healthy: Case, model: str):
    assert examine(dataclasses.replace(healthy, objective=Objective(networks.build(model, healthy.charset.num_classes)))) == []


# What is definite stops a training, whatever it is: one fault stands for all.
@pytest.mark.parametrize(("objective", "code", "model"), faults.OBJECTIVES if PROOF else faults.OBJECTIVES[:1])
def test_a_fault_of_network_or_loss_stops_the_run_before_its_first_step(
    records: pathlib.Path, drawn: Drawn, tmp_path: pathlib.Path, monkeypatch, objective: type, code: str, model: str
):
    monkeypatch.setattr(train, "Objective", objective)
    with pytest.raises(IntegrityError, match=f"doctor: {code}: "):
        train.train(config(records, tmp_path / "run", model=model, seed=drawn.seed))
    assert codes(doctor_json(tmp_path / "run")) == [code]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("code", LAYERS_AND_LABELS if PROOF else LAYERS_AND_LABELS[:1])
def test_a_fault_of_layers_or_labels_stops_the_run_before_its_first_step(
    records: pathlib.Path, drawn: Drawn, tmp_path: pathlib.Path, monkeypatch, code: str
):
    plant_in_code(code, monkeypatch)
    with pytest.raises(IntegrityError, match=f"doctor: {code}: "):
        train.train(config(records, tmp_path / "run", seed=drawn.seed))
    assert codes(doctor_json(tmp_path / "run")) == [code]


@pytest.mark.slow
def test_a_finding_can_be_overridden(trained, tmp_path: pathlib.Path, monkeypatch, caplog):
    monkeypatch.setattr(train, "Objective", faults.Summed)
    assert train.train(config(trained.records, tmp_path / "run", override=True))["steps"] == 30
    assert codes(doctor_json(tmp_path / "run")) == ["loss_summed"]
    assert "doctor: loss_summed: " in caplog.text


# ---- during the training ---------------------------------------------------------------------------------------------------

RATES = [
    ("rate_high", {"learning_rate": 30.0}),
    ("rate_low", {"learning_rate": 1e-7, "optimizer": "sgd"}),
    ("rate_high", {"learning_rate": 100.0, "optimizer": "sgd", "clip_norm": 0.0}),
    ("rate_low", {"learning_rate": 1e-8}),
]


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("code", "fields"), RATES if PROOF else RATES[:1], ids=str)
def test_a_rate_that_is_far_off_is_found_in_training(trained, tmp_path: pathlib.Path, code: str, fields: dict, seed: int):
    settings = config(trained.records, tmp_path / "run", schedule="constant", seed=seed, steps=60, eval_every=60, **fields)
    with contextlib.suppress(IntegrityError):  # the loss may become non-finite
        train.train(settings)
    assert codes(doctor_json(tmp_path / "run")) == [code]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_network_gone_blank_is_distinguished_from_the_plateau(trained, tmp_path: pathlib.Path, monkeypatch, seed: int):
    models = []

    class Recorded(Objective):
        def __init__(self, model: keras.Model):
            super().__init__(model)
            models.append(model)

    calls = iter(range(100))

    def kill_activations() -> bool:
        if next(calls) == 2:  # after 20 steps the last activations go dead, and with them every gradient below
            norm = [layer for layer in models[0].layers if isinstance(layer, layers.BatchNormalization)][-1]
            norm.gamma.assign(tf.zeros_like(norm.gamma))
            norm.beta.assign(-tf.ones_like(norm.beta))
        return False

    monkeypatch.setattr(train, "Objective", Recorded)
    settings = config(trained.records, tmp_path / "run", seed=seed, eval_every=10, schedule="constant", steps=60)
    train.train(settings, stop=kill_activations)
    assert codes(doctor_json(tmp_path / "run")) == ["collapsed_blank"]
    evaluations = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if "cer" in line]
    assert evaluations[0]["cer"] > 0.8  # on the plateau it reads next to nothing either


# ---- faults of files -------------------------------------------------------------------------------------------------------


def plant_in_files(drawn: Drawn, code: str, folder: pathlib.Path) -> None:
    """Plants one of `faults.FILES` in a copy of lines, and packs it into `folder / "records"`."""
    training, held_out = (shutil.copytree(drawn.folder / name, folder / name) for name in ("training", "held_out"))
    faults.plant(code, training, held_out, drawn.seed)
    charset = "ascii" if code == "blanks_around_texts" else "digits"
    faults.pack(training, charset=charset)
    faults.pack(held_out, split="eval", charset=charset)


@pytest.mark.alike
@pytest.mark.parametrize(("code", "definite"), faults.FILES)
def test_a_fault_of_the_data_is_found_by_ocr_doctor(
    invoke, last_json, drawn: Drawn, tmp_path: pathlib.Path, code: str, definite: bool
):
    plant_in_files(drawn, code, tmp_path)
    done = invoke("ocr_doctor", "--data=records")
    assert codes(last_json(done)) == [code]
    assert done.stderr.startswith(f"{code}: ")
    assert done.returncode == (2 if definite else 0)


@pytest.mark.slow
@pytest.mark.alike
# `ocr_doctor` examines the same way: one fault that stops a training and one that does not stand for all.
@pytest.mark.parametrize(("code", "definite"), faults.FILES if PROOF else faults.FILES[1:3])
def test_a_fault_of_the_data_is_found_by_a_training(drawn: Drawn, tmp_path: pathlib.Path, code: str, definite: bool):
    plant_in_files(drawn, code, tmp_path)
    stopped = pytest.raises(IntegrityError, match=f"^doctor: {code}: ") if definite else contextlib.nullcontext()
    with stopped:
        train.train(config(tmp_path / "records", tmp_path / "run"), stop=lambda: True)
    assert codes(doctor_json(tmp_path / "run")) == [code]
    assert (tmp_path / "run" / "metrics.jsonl").exists() != definite  # else it was about to take its first step


@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
def test_lines_that_are_too_long_for_the_network_are_found(invoke, last_json, tmp_path: pathlib.Path, seed: int):
    faults.pack(faults.draw(tmp_path / "training", 100, seed, min_chars=10, max_chars=16))
    assert codes(last_json(invoke("ocr_doctor", "--data=records", "--model=cnn"))) == ["infeasible_lines"]
    assert codes(last_json(invoke("ocr_doctor", "--data=records", "--model=lite"))) == []


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
def test_lines_that_are_too_long_for_the_network_do_not_stop_a_training(tmp_path: pathlib.Path, seed: int):
    faults.pack(faults.draw(tmp_path / "training", 100, seed, min_chars=10, max_chars=16))
    train.train(config(tmp_path / "records", tmp_path / "run", model="cnn"), stop=lambda: True)
    assert codes(doctor_json(tmp_path / "run")) == ["infeasible_lines"]


@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
def test_an_alphabet_other_than_the_trainings_is_found(invoke, last_json, trained, tmp_path: pathlib.Path, seed: int):
    faults.pack(faults.draw(tmp_path / "training", 50, seed, charset="alnum"), charset="alnum")
    done = invoke("ocr_doctor", "--data=records", f"--workdir={trained.workdir}")
    assert done.returncode == 2
    assert codes(last_json(done)) == ["alphabet_differs"]
    (tmp_path / "records" / "charset.txt").write_text("0\n1\n")
    assert codes(last_json(invoke("ocr_doctor", "--data=records"))) == ["alphabet_differs"]


@pytest.mark.alike
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shift", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_shifted_evaluation_labels_are_found_once_the_network_reads(
    invoke, last_json, trained, tmp_path: pathlib.Path, shift: int, seed: int
):
    lines = faults.draw(tmp_path / "shifted", 100, seed)
    faults.relabel(lines, lambda rows: [f"{name}\t{''.join(str((int(c) + shift) % 10) for c in text)}" for name, text in rows])
    faults.pack(lines, split="eval")
    report = last_json(invoke("ocr_doctor", "--data=records", f"--workdir={trained.workdir}"))
    assert codes(report) == ["labels_shifted"]
    assert report["standing"].startswith("loss ")


# ---- healthy runs ----------------------------------------------------------------------------------------------------------


def test_a_training_that_reads_has_no_finding(trained, invoke, last_json):
    assert doctor_json(trained.workdir)["findings"] == []
    report = last_json(invoke("ocr_doctor", f"--data={trained.records}", f"--workdir={trained.workdir}"))
    assert report["findings"] == []
    levels = report["references"]
    assert levels["uniform"] > levels["double_softmax"] > levels["blank"] >= levels["entropy"] - 1


HEALTHY = [
    {"model": "cnn", "batch_size": 4, "optimizer": "adam", "learning_rate": 0.0005},
    {"model": "crnn", "batch_size": 4, "learning_rate": 0.001},
    {"model": "densenet", "batch_size": 8, "learning_rate": 0.001},
    {"model": "lite"},
    {"learning_rate": 0.0001},
    {"learning_rate": 0.01, "optimizer": "adam", "schedule": "constant", "batch_size": 4},
    {"optimizer": "sgd", "learning_rate": 0.1},
]


@pytest.mark.slow
@pytest.mark.parametrize("fields", HEALTHY if PROOF else HEALTHY[3:4], ids=str)
def test_a_healthy_run_has_no_finding(trained, tmp_path: pathlib.Path, fields: dict):
    train.train(config(trained.records, tmp_path / "run", **{"steps": 40, "eval_every": 40, **fields}))
    assert codes(doctor_json(tmp_path / "run")) == []


@pytest.mark.slow
@pytest.mark.proof("doctor-proof")
@pytest.mark.alike
def test_a_healthy_run_on_lines_of_many_widths_has_no_finding(tmp_path: pathlib.Path):
    for split, seed in (("train", 1), ("eval", 2)):
        style = {"charset": "alnum", "width": 0, "min_chars": 1, "max_chars": 12, "degrade": "scan"}
        faults.pack(faults.draw(tmp_path / split, 400, seed, **style), split, "alnum")
    train.train(config(tmp_path / "records", tmp_path / "run"))
    assert codes(doctor_json(tmp_path / "run")) == []


@pytest.mark.alike
def test_unrelated_labels_of_dummy_data_are_no_finding(invoke, last_json, tmp_path: pathlib.Path):
    dummy.convert(str(tmp_path / "records"), 600, 12, width=120, max_label_length=5)
    assert codes(last_json(invoke("ocr_doctor", "--data=records"))) == []


@pytest.mark.slow
@pytest.mark.proof("doctor-proof")
@pytest.mark.alike
@pytest.mark.parametrize(("model", "rate"), [("lite", 0.003), ("cnn", 0.0005)])
def test_a_training_on_dummy_data_has_no_finding(tmp_path: pathlib.Path, model: str, rate: float):
    dummy.convert(str(tmp_path / "records"), 600, 12, width=120, max_label_length=5)
    train.train(config(tmp_path / "records", tmp_path / "run", model=model, batch_size=4, learning_rate=rate))
    assert codes(doctor_json(tmp_path / "run")) == []
