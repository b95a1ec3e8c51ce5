"""A command that a signal stops saves what must be saved, and says so.

Signals go to real processes, except where a test needs to see inside.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tools.cli import signals

STOPPING = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
STOPPING_NAMES = [number.name for number, _ in STOPPING]


@pytest.mark.parametrize(("number", "status"), STOPPING, ids=STOPPING_NAMES)
def test_a_command_may_finish_its_work_after_a_signal(
    invoke, last_json, monkeypatch: pytest.MonkeyPatch, number: int, status: int
):
    def main(*_: object) -> dict:
        with signals.stop_on_signal() as stop:
            os.kill(os.getpid(), number)
            while not stop():
                time.sleep(0.01)
        return {"saved": True, "interrupted": True}

    monkeypatch.setattr("tools.render_lines.main", main)
    done = invoke("render_lines", "--output=lines")
    assert (done.returncode, last_json(done)) == (status, {"saved": True, "interrupted": True})
    assert done.stderr == f"\n{number.name}: saving, then exiting; send it again to exit at once\n"
    monkeypatch.undo()
    assert invoke("render_lines", "--help").returncode == 0, "a later command in the same process is not interrupted"


@pytest.mark.slow
def test_a_training_that_was_stopped_by_a_signal_resumes(trained, tmp_path: pathlib.Path):
    line = [sys.executable, "-m", "tools.ocr_train", f"--train_data={trained.records}", f"--eval_data={trained.records}"]
    line += ["--workdir=run", "--steps=100000", "--batch_size=4", "--log_every=1"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        journal = tmp_path / "run" / "metrics.jsonl"
        while not (journal.exists() and journal.read_text()):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    result = json.loads(out.splitlines()[-1])
    assert result["interrupted"] is True
    assert result["steps"] > 0
    assert "saving, then exiting" in err
    more = [*line[:-3], f"--steps={result['steps'] + 2}", *line[-2:]]
    done = subprocess.run(more, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"resuming from step {result['steps']}" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == result["steps"] + 2


def test_a_second_signal_ends_the_process_at_once(tmp_path: pathlib.Path):
    # A call that does not return to Python stands in for a long step of TensorFlow.
    code = (
        "import ctypes; from tools.cli import signals\n"
        "with signals.stop_on_signal():\n"
        "    print('ready', flush=True)\n"
        "    for _ in range(4): ctypes.CDLL(None).usleep(30_000_000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert "send it again to exit at once" in process.stderr.readline() + process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


SLOW_IMPORT = (
    "import logging, time, types\n"
    "time.sleep(1)\n"
    "get_logger = logging.getLogger\n"
    "config = types.SimpleNamespace(list_physical_devices=lambda kind: [])\n"
)


@pytest.mark.parametrize("tensorflow", ["stand-in", pytest.param("real", marks=pytest.mark.slow)])
def test_a_signal_during_the_import_of_tensorflow_is_not_lost(tmp_path: pathlib.Path, tensorflow: str):
    if tensorflow == "stand-in":
        (tmp_path / "tensorflow.py").write_text(SLOW_IMPORT)
    code = (
        "import os, signal, sys, threading; from absl import flags; from tools.cli import command, tensorflow_import\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "def main(*_):\n"
        "    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    tensorflow_import.import_tensorflow()\n"
        "    return {'done': True}\n"
        "command.run(main, flags.FlagValues(), '')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, '{"interrupted": true}\n')


def test_interrupted_rendering_leaves_nothing_behind(tmp_path: pathlib.Path):
    line = [sys.executable, "-m", "tools.render_lines", "--output=lines", "--count=1000000"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob(".lines.partial/*/*.png")):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert json.loads(out) == {"interrupted": True}
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_nohup_started_goes_on_after_sighup(tmp_path: pathlib.Path):
    code = "import os, signal; from absl import flags; from tools.cli import command\n"
    code += "command.run(lambda v, a: os.kill(os.getpid(), signal.SIGHUP) or {}, flags.FlagValues(), '')"
    for nohup, expected in ((["nohup"], (0, "{}\n")), ([], (129, '{"interrupted": true}\n'))):
        done = subprocess.run([*nohup, sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == expected


def test_a_command_saves_its_work_though_its_terminal_is_gone(tmp_path: pathlib.Path):
    code = (
        "import fcntl, pathlib, sys, termios, time; from absl import flags; from tools.cli import command, signals\n"
        "def main(*_):\n"
        "    with signals.stop_on_signal() as stop:\n"
        "        while not stop():\n"
        "            sys.stderr.write('\\rworking'); sys.stderr.flush(); time.sleep(0.01)\n"
        "        time.sleep(0.2); print('saving', file=sys.stderr); pathlib.Path('saved').touch()\n"
        "    return {'interrupted': True}\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "command.run(main, flags.FlagValues(), '')"
    )
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        assert b"working" in os.read(ours, 100)
        os.close(ours)
        assert process.wait(timeout=20) == 129
    assert (tmp_path / "saved").exists()
