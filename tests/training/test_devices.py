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

import numpy as np
import pytest
import tensorflow as tf

from ocr import keras_compat
from ocr.saving.workdir import Workdir
from ocr.training import devices

several_workers = pytest.mark.skipif(keras_compat.MAJOR == "2", reason="several workers need Keras 3")


@pytest.mark.skipif(keras_compat.MAJOR != "2", reason="Keras 3 allows several workers")
def test_several_workers_are_refused_with_keras_2(trained, tmp_path: pathlib.Path):
    worker = start_worker(0, free_ports(2), trained.records, tmp_path / "run")
    said = worker.communicate(timeout=300)[1].splitlines()[-1]
    assert (worker.returncode, said) == (1, "error: TF_CONFIG: several workers need TensorFlow 2.16 or newer, not 2.15.1")


def start_worker(index: int, ports: list[int], records: pathlib.Path, workdir: pathlib.Path, *flags: str) -> subprocess.Popen:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    tf_config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
    line = [sys.executable, "-m", "tools.ocr_train", f"--train_data={records}", f"--eval_data={records}"]
    line += [f"--workdir={workdir}", "--steps=30", "--batch_size=16", "--log_every=5", "--eval_every=30"]
    line += ["--checkpoint_every=5", "--schedule=constant", "--optimizer=sgd", "--learning_rate=0.0003", *flags]
    environment = {**os.environ, "TF_CONFIG": tf_config if ports else ""}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], workers: list[subprocess.Popen]) -> None:
    """Waits for a condition while all workers run, five minutes at most."""
    begun = time.monotonic()
    while not condition():
        assert all(worker.poll() is None for worker in workers), "a worker ended"
        assert time.monotonic() < begun + 300, "the workers make no progress"
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


@pytest.mark.slow
@pytest.mark.proof("train-proof")
@several_workers
def test_two_workers_train_as_one_process_does_and_resume_after_a_kill(trained, tmp_path: pathlib.Path):
    one = start_worker(0, [], trained.records, tmp_path / "one")
    assert one.communicate(timeout=300)[0].startswith("{"), one.stderr
    workers = [start_worker(index, ports, trained.records, tmp_path / "two") for ports in [free_ports(2)] for index in (0, 1)]
    wait_for((tmp_path / "two" / "checkpoints" / "ckpt-10.index").exists, workers)
    workers[1].send_signal(signal.SIGKILL)
    workers[1].communicate()
    said = workers[0].communicate(timeout=300)[1].splitlines()[-1]
    assert said.startswith("error: worker 0 of 2 has lost another worker; restart all of them"), said
    assert workers[0].returncode == 2
    assert len(losses(tmp_path / "two")) < 6
    workers = [start_worker(index, ports, trained.records, tmp_path / "two") for ports in [free_ports(2)] for index in (0, 1)]
    for worker in workers:
        printed, said = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
        assert "resuming from step" in said
        assert json.loads(printed.splitlines()[-1])["steps"] == 30
    assert len(losses(tmp_path / "two")) == 6
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "multiworker"}, "--strategy=multiworker: the environment's TF_CONFIG must name the workers"),
        ({"strategy": "one", "replicas": 2}, "--replicas=2: --strategy=one uses one device"),
        ({"replicas": 100}, "--replicas=100: TensorFlow is already in use, with fewer CPU devices"),
    ],
)
def test_unavailable_devices_are_refused(fields: dict, message: str):
    tf.config.list_logical_devices()  # from now on TensorFlow is in use
    with pytest.raises(devices.InputError, match=message):
        devices.find(**fields)


@pytest.mark.slow
@several_workers
def test_a_signal_to_one_worker_stops_and_saves_all(trained, tmp_path: pathlib.Path):
    ports, flags = free_ports(2), ("--steps=100000", "--checkpoint_every=100000", "--eval_every=100000")
    workers = [start_worker(index, ports, trained.records, tmp_path / "run", *flags) for index in (0, 1)]
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists() and len(losses(tmp_path / "run")) >= 3, workers)
    workers[1].send_signal(signal.SIGTERM)
    for worker in workers:
        printed, said = worker.communicate(timeout=300)
        assert (worker.returncode, json.loads(printed.splitlines()[-1])["interrupted"]) == (143, True), said
    assert Workdir(tmp_path / "run").newest() >= 15


@several_workers
def test_workers_with_different_flags_are_refused(trained, tmp_path: pathlib.Path):
    ports = free_ports(2)
    flags = ((), ("--log_every=3", "--seed=1"))
    workers = [start_worker(index, ports, trained.records, tmp_path / "run", *flags[index]) for index in (0, 1)]
    for worker, here in zip(workers, ("seed: 0 here; log_every: 5 here", "seed: 1 here; log_every: 3 here"), strict=True):
        said = worker.communicate(timeout=300)[1].splitlines()[-1]
        assert (worker.returncode, said) == (1, f"error: TF_CONFIG: the workers were given different flags: {here}")


@pytest.mark.parametrize(
    "tf_config",
    [
        "{",
        "[]",
        '{"cluster": {"worker": "ab"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": true}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
    ids=["not JSON", "a list", "workers not a list", "a worker twice", "index is a bool", "index too high", "a chief"],
)
def test_an_invalid_tf_config_is_refused(monkeypatch: pytest.MonkeyPatch, tf_config: str):
    monkeypatch.setenv("TF_CONFIG", tf_config)
    with pytest.raises(devices.InputError, match="TF_CONFIG="):
        devices.find()


@pytest.mark.parametrize(
    "tf_config",
    [
        '{"cluster": {"chief": ["host-0:2222"]}, "environment": "cloud", "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"master": ["m:1"], "worker": [], "ps": []}, "task": {"type": "master", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {}, "task": {}}',
        '{"cluster": null}',
        "{}",
        " ",
    ],
    ids=["a chief", "a master", "a worker", "no task", "no cluster", "nothing", "blank"],
)
@pytest.mark.parametrize("strategy", ["auto", "one", "mirrored"])
def test_a_tf_config_of_a_single_machine_changes_nothing(monkeypatch: pytest.MonkeyPatch, strategy: str, tf_config: str):
    monkeypatch.setenv("TF_CONFIG", tf_config)
    assert devices.find(strategy, replicas=1).workers == 1


@pytest.mark.parametrize("strategy", ["one", "mirrored"])
def test_a_tf_config_is_not_read_where_it_is_not_needed(monkeypatch: pytest.MonkeyPatch, strategy: str):
    monkeypatch.setenv("TF_CONFIG", "{")
    assert devices.find(strategy, replicas=1).workers == 1
