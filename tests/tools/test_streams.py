"""Standard streams: closed, full, and what is shown on them."""

import json
import logging
import os
import pathlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("line", "key"),
    [
        pytest.param("render_lines --count=3 --workers=1", "lines", id="without TensorFlow"),
        pytest.param("make_tfrecords --dummy=3 --num_classes=5", "records", id="with TensorFlow", marks=pytest.mark.slow),
    ],
)
def test_a_command_works_with_stdin_and_stderr_closed(tmp_path: pathlib.Path, line: str, key: str):
    shell = f"{sys.executable} -m tools.{line} --output={tmp_path}/output 2>&- 0<&-"
    done = subprocess.run(shell, shell=True, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)[key] == 3


def test_a_full_standard_output_is_reported(tmp_path: pathlib.Path):
    shell = f"{sys.executable} -m tools.render_lines --output={tmp_path}/lines --count=3 --workers=1 > /dev/full"
    done = subprocess.run(shell, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: standard output: No space left on device"


ABORTING = "import os, signal\nos.write(2, b'the last words\\n')\n"


@pytest.mark.parametrize(
    "end", ["os.abort()", "os.kill(os.getpid(), signal.SIGILL)", "os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "1 / 0"]
)
def test_what_tensorflow_says_before_it_aborts_is_shown(command, tmp_path: pathlib.Path, end: str):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(ABORTING + end)
    done = command("ocr_predict", "line.png")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "the last words"


@pytest.mark.skipif(os.getuid() != 0, reason="needs to start a namespace of processes")
def test_the_same_for_the_first_process_of_a_container(tmp_path: pathlib.Path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(f"{ABORTING}os.abort()")
    line = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "tools.ocr_predict", "line.png"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "the last words"


def test_log_records_of_this_project_are_shown_as_bare_messages(invoke, monkeypatch: pytest.MonkeyPatch):
    def main(*_: object) -> dict:
        logging.getLogger("ocr.training").info("step %d", 5)
        logging.getLogger("tfrecords").warning("rejected")
        logging.getLogger("ocr").debug("hidden")
        logging.getLogger("urllib3").info("hidden too")
        return {}

    monkeypatch.setattr("tools.render_lines.main", main)
    loggers = [logging.getLogger(name) for name in ("ocr", "tfrecords", "tools")]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    for _ in range(2):  # a second command in the same process shows them once, too
        done = invoke("render_lines", "--output=lines")
        assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "step 5\nrejected\n")
    assert [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers] == before
