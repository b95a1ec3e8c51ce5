import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ocr import charset as charsets
from ocr import keras_compat
from ocr.config import TrainConfig
from ocr.data import dataset as sets
from ocr.data import pipeline
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.saving.workdir import Workdir
from ocr.training import devices, optimizer
from ocr.training.steps import Steps

SGD = {"optimizer": "sgd", "learning_rate": 0.001, "schedule": "constant", "clip_norm": 5.0}


def _plain(x, mask, batch_norm):
    """A network without batch norm or dropout."""
    for filters, stride in ((8, 2), (16, 2)):
        x = layers.Conv2D(filters, 3, stride, "same", activation="tanh")(x)
    x = layers.Multiply()([layers.MaxPooling2D((8, 1))(x), mask])
    return layers.Reshape((-1, 16))(x)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(networks.NETWORKS, "plain", networks.Network(_plain, 4, "glorot_uniform"))


class Taken:
    """Steps on some replicas, from the same first weights each time."""

    def __init__(self, classes: int, replicas: int, batch_size: int, objective: type[Objective] = Objective, **fields):
        fields = {"model": "plain", "seed": 3, **SGD, **fields}
        config = TrainConfig("-", "-", "-", batch_size=batch_size, **fields)
        keras.utils.set_random_seed(config.seed)
        found = devices.find("auto", replicas)
        assert found.replicas == replicas
        with found.strategy.scope():
            self.model = networks.build(config.model, classes, config.precision, synchronized=replicas > 1)
            self.optimizer = optimizer.build(config, self.model, 1000)
        self.steps = Steps(objective(self.model), self.optimizer, found, batch_size)

    def losses(self, batches: tf.data.Dataset, count: int) -> list[float]:
        """Takes steps one at a time; returns their mean losses."""
        iterator, found = iter(batches), []
        for _ in range(count):
            self.steps.run(iterator, tf.constant(1, tf.int64))
            sums = self.steps.totals()
            found.append(sums.nats / sums.lines if sums.lines else float("nan"))
            self.steps.reset_totals()
        return found

    def state(self) -> list[np.ndarray]:
        """Returns all that a step may change but the scale, of each replica."""
        variables = [
            *self.optimizer.weights,
            *networks.statistics(self.model),
            *tf.nest.flatten(self.optimizer.state["moments"]),
        ]
        variables += [*self.optimizer.state["averages"], self.optimizer.steps]
        return [one.numpy().copy() for variable in variables for one in getattr(variable, "values", [variable])]


@pytest.fixture(scope="module")
def digits(trained) -> tuple[sets.Mixture, charsets.Charset]:
    return sets.mix(str(trained.records), 4), charsets.charset_by_name("digits")


def batch_of(count: int, seed: int = 0, label_length: int = 3) -> dict[str, np.ndarray]:
    """Returns random lines of digits."""
    rng = np.random.default_rng(seed)
    return {
        "pixels": rng.integers(0, 256, (count, 32, 48), np.uint8),
        "width": np.full(count, 48, np.int32),
        "labels": rng.integers(0, 10, (count, label_length)).astype(np.int32),
        "label_lengths": np.full(count, label_length, np.int32),
        "filename": np.array([f"{seed}-{index}.png".encode() for index in range(count)]),
    }


def dataset(*batches: dict[str, np.ndarray]) -> tf.data.Dataset:
    spec = {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype.type if name != "filename" else tf.string)
            for name, value in batches[0].items()}  # fmt: skip
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)


@pytest.mark.parametrize(("model", "rate", "tolerance"), [("plain", 0.001, 1e-4), ("lite", 0.0003, 1e-3)])
def test_replicas_compute_what_one_device_does(digits, model: str, rate: float, tolerance: float):
    # With batch norm, higher rates let rounding alone grow: at 0.001 one device differs from itself by 0.2% after 50 steps,
    # once with oneDNN and once without.
    data, charset = digits
    batches = pipeline.training_batches(data, charset, 16, seed=0)
    found = {n: Taken(charset.num_classes, n, 16, model=model, learning_rate=rate).losses(batches, 50) for n in (1, 2, 4)}
    assert found[1][-1] < 0.8 * found[1][0]
    for replicas in (2, 4):
        np.testing.assert_allclose(found[replicas], found[1], rtol=tolerance)


def test_uneven_replicas_and_one_without_a_line_that_fits_weigh_right():
    batches = [batch_of(10, seed) for seed in range(5)]
    for batch in batches:
        batch["label_lengths"][7:] = 3
        batch["labels"] = np.pad(batch["labels"], [(0, 0), (0, 10)], constant_values=1)
        batch["label_lengths"][[0, 7, 8, 9]] = 13  # with equal neighbours: more than 12 frames; all that the last replica has
    one, four = (Taken(11, n, 10, learning_rate=0.01) for n in (1, 4))
    np.testing.assert_allclose(four.losses(dataset(*batches), 5), one.losses(dataset(*batches), 5), rtol=1e-5)
    for weight, other in zip(one.optimizer.weights, four.optimizer.weights, strict=True):
        np.testing.assert_allclose(weight.numpy(), other.numpy(), rtol=1e-4, atol=1e-6)


def test_the_norm_that_clips_is_that_of_the_sum():
    for replicas in (1, 2):
        taken = Taken(11, replicas, 8, clip_norm=1.0, learning_rate=1.0)
        before = [weight.numpy() for weight in taken.optimizer.weights]
        taken.losses(dataset(batch_of(8)), 1)
        moved = [weight.numpy() - old for weight, old in zip(taken.optimizer.weights, before, strict=True)]
        assert np.sqrt(sum(np.square(step).sum() for step in moved)) == pytest.approx(1.0, rel=1e-4)


class Planted(Objective):
    """A learner with an infinity in the gradient of one replica, at the lines whose first label is 9."""

    value = float("inf")

    def ctc_loss(self, logits, frames, batch):
        found = super().ctc_loss(logits, frames, batch)
        bad = tf.reduce_any(batch["labels"][:, 0] == 9)

        @tf.custom_gradient
        def through(x):
            return x, lambda upstream: upstream * tf.where(bad, self.value, 1.0)

        return through(found)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_an_infinity_on_one_replica_leaves_all_of_them_as_they_were(precision: str, optimizer: str):
    good, bad = batch_of(4, 1), batch_of(4, 2)
    for batch in (good, bad):
        batch["labels"][:, 0] = 1
    bad["labels"][3, 0] = 9  # a row of replica 1
    taken = Taken(11, 2, 4, Planted, optimizer=optimizer, precision=precision, ema=0.9)
    taken.losses(dataset(good), 1)
    before, scale = taken.state(), float(tf.identity(taken.optimizer.scale))
    taken.losses(dataset(bad), 1)
    for now, then in zip(taken.state(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    halved = float(tf.identity(taken.optimizer.scale)) == scale / 2
    assert halved == (precision == "mixed_float16")
    # Where there is no scale to blame, the lines are named.
    failures = taken.steps.skipped()
    assert failures.files == ([] if halved else [f"2-{index}.png" for index in range(4)])
    assert (failures.steps, failures.row) == (([], 0) if halved else ([2], 1))
    taken.losses(dataset(good), 1)
    assert any((now != then).any() for now, then in zip(taken.state(), before, strict=True))
    assert taken.steps.skipped().steps == []


def test_batch_norm_forgets_a_batch_that_was_left_out():
    good, bad = batch_of(4, 1), batch_of(4, 2)
    good["labels"][:, 0], bad["labels"][:, 0] = 1, 9
    taken = Taken(11, 2, 4, Planted, model="lite")
    taken.losses(dataset(good), 1)
    before = taken.state()
    taken.losses(dataset(bad), 1)
    for now, then in zip(taken.state(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_scale_doubles_after_a_long_calm():
    taken = Taken(11, 1, 4, precision="mixed_float16")
    taken.optimizer.state["calm"].assign(999)
    taken.optimizer.scale.assign(256.0)
    taken.losses(dataset(batch_of(4)), 1)
    assert float(taken.optimizer.scale) == 512.0
    assert int(taken.optimizer.state["calm"]) == 0


# ---- several processes ----------------------------------------------------------------------------------------------------

together = pytest.mark.skipif(keras_compat.MAJOR == "2", reason="several workers need Keras 3")


@pytest.mark.skipif(keras_compat.MAJOR != "2", reason="with Keras 3 they can")
def test_several_workers_are_refused_with_keras_2(trained, tmp_path: pathlib.Path):
    worker = start_worker(0, free_ports(2), trained.records, tmp_path / "run")
    said = worker.communicate(timeout=300)[1].splitlines()[-1]
    assert (worker.returncode, said) == (1, "error: TF_CONFIG: several workers need TensorFlow 2.16 or newer, not 2.15.1")


def start_worker(index: int, ports: list[int], records: pathlib.Path, workdir: pathlib.Path, *flags: str) -> subprocess.Popen:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    told = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
    line = [sys.executable, "-m", "tools.ocr_train", f"--train_data={records}", f"--eval_data={records}"]
    line += [f"--workdir={workdir}", "--steps=30", "--batch_size=16", "--log_every=5", "--eval_every=30"]
    line += ["--checkpoint_every=5", "--schedule=constant", "--optimizer=sgd", "--learning_rate=0.0003", *flags]
    environment = {**os.environ, "TF_CONFIG": told if ports else ""}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], workers: list[subprocess.Popen]) -> None:
    """Waits for workers that run to come somewhere, five minutes at most."""
    begun = time.monotonic()
    while not condition():
        assert all(worker.poll() is None for worker in workers), "a worker has ended"
        assert time.monotonic() < begun + 300, "the workers stand still"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def losses(workdir: pathlib.Path) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@together
def test_two_workers_train_as_one_process_does_and_go_on_after_one_is_killed(trained, tmp_path: pathlib.Path):
    one = start_worker(0, [], trained.records, tmp_path / "one")
    assert one.communicate(timeout=300)[0].startswith("{"), one.stderr
    workers = [start_worker(index, ports, trained.records, tmp_path / "two") for ports in [free_ports(2)] for index in (0, 1)]
    wait_for((tmp_path / "two" / "checkpoints" / "ckpt-10.index").exists, workers)
    workers[1].send_signal(signal.SIGKILL)
    workers[1].communicate()
    said = workers[0].communicate(timeout=300)[1].splitlines()[-1]
    assert said.startswith("error: worker 0 of 2 has lost another one; start all of them again"), said
    assert workers[0].returncode == 2
    assert len(losses(tmp_path / "two")) < 6
    workers = [start_worker(index, ports, trained.records, tmp_path / "two") for ports in [free_ports(2)] for index in (0, 1)]
    for worker in workers:
        printed, said = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
        assert "going on from step" in said
        assert json.loads(printed.splitlines()[-1])["steps"] == 30
    assert len(losses(tmp_path / "two")) == 6
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "multiworker"}, "--strategy=multiworker: the environment's TF_CONFIG has to name the workers"),
        ({"strategy": "one", "replicas": 2}, "--replicas=2: --strategy=one takes one device"),
        ({"replicas": 100}, "--replicas=100: TensorFlow is in use already, with fewer CPU devices"),
    ],
)
def test_devices_that_there_are_not_are_refused(fields: dict, message: str):
    with pytest.raises(devices.InputError, match=message):
        devices.find(**fields)


@together
def test_a_signal_to_one_worker_stops_all_of_them_and_saves(trained, tmp_path: pathlib.Path):
    ports, flags = free_ports(2), ("--steps=100000", "--checkpoint_every=100000", "--eval_every=100000")
    workers = [start_worker(index, ports, trained.records, tmp_path / "run", *flags) for index in (0, 1)]
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists() and len(losses(tmp_path / "run")) >= 3, workers)
    workers[1].send_signal(signal.SIGTERM)
    for worker in workers:
        printed, said = worker.communicate(timeout=300)
        assert (worker.returncode, json.loads(printed.splitlines()[-1])["interrupted"]) == (143, True), said
    assert Workdir(tmp_path / "run").newest() >= 15


@together
def test_workers_that_were_given_different_things_are_refused(trained, tmp_path: pathlib.Path):
    ports = free_ports(2)
    flags = ((), ("--log_every=3", "--seed=1"))
    workers = [start_worker(index, ports, trained.records, tmp_path / "run", *flags[index]) for index in (0, 1)]
    for worker, here in zip(workers, ("seed: 0 here; log_every: 5 here", "seed: 1 here; log_every: 3 here"), strict=True):
        said = worker.communicate(timeout=300)[1].splitlines()[-1]
        assert (worker.returncode, said) == (1, f"error: TF_CONFIG: the workers were given different things: {here}")


@pytest.mark.parametrize(
    "told",
    [
        "{",
        "[]",
        '{"cluster": {"worker": "ab"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": true}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_tf_config_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, told: str):
    monkeypatch.setenv("TF_CONFIG", told)
    with pytest.raises(devices.InputError, match="TF_CONFIG="):
        devices.find()
