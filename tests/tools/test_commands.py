"""What users and scripts rely on: exit status, one line on stderr, one JSON object at the end."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

COMMANDS = ("render_lines", "make_tfrecords", "ocr_train", "ocr_eval", "ocr_export", "ocr_predict", "ocr_bench")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_every_flag(invoke, name: str):
    done = invoke(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n  {name} " in done.stdout
    assert "--flagfile" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 130


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("render_lines --output=x", "--count: has to be given"),
        ("render_lines --output=x --count=many", "--count=many: must be a whole number"),
        ("render_lines --output=x --count=5 stray", "stray: no flag"),
        ("render_lines --output=. --count=5", ".: the folder that this was started in"),
        ("make_tfrecords --images=. --labels=/dev/stdin --charset=alnum --output=y", "/dev/stdin: not a regular file"),
        ("render_lines --flagfile=/nowhere", "/nowhere"),
        ("render_lines --output=x --count=5 --colour=red", "colour"),
        ("render_lines --output=x --count=5 --fonts=/nowhere/*.ttf", "--fonts=/nowhere/*.ttf: matches no file"),
        ("make_tfrecords --images=/nowhere --labels=x --charset=alnum --output=y", "--images=/nowhere: no such folder"),
        ("make_tfrecords --output=y", "--images: has to be given"),
        ("make_tfrecords --dummy=5 --output=y", "--num_classes: has to be given with --dummy"),
        ("ocr_train --train_data=/nowhere --eval_data=x --workdir=y", "/nowhere: no such folder"),
        ("ocr_eval --model=/nowhere --data=/nowhere", "/nowhere: no such folder"),
        ("ocr_export --workdir=/nowhere --export_dir=y", "/nowhere: no training in it"),
        ("ocr_predict --saved_model=/nowhere a.png", "/nowhere: no exported model in it"),
        ("ocr_predict --saved_model=/nowhere", "no image named"),
        ("ocr_predict --saved_model=/nowhere --picture=x.gif a.png", "--picture=x.gif: must end in .png"),
        ("ocr_predict --saved_model=/nowhere --picture=x.png --picture_font=/etc/hosts a.png", "--picture_font=/etc/hosts"),
        ("render_lines --output= --count=5", "--output: has to be given"),
        ("render_lines --output=x --count=5 --seed=-1", "--seed=-1: must be 0 to"),
        ("render_lines --output=x --count=5 --height=100000", "--height=100000: must be 8 to 1000"),
        ("make_tfrecords --dummy=5 --num_classes=9 --seed=-1 --output=y", "--seed=-1: must be 0 to"),
        ("make_tfrecords --dummy=5 --num_classes=9 --output=y --num_shards=3", "--num_shards: not taken with --dummy"),
        ("make_tfrecords --images=. --labels=x --charset=alnum --output=y --seed=3", "--seed: taken only with --dummy"),
        ("ocr_train --train_data=a --eval_data=b --workdir=", "--workdir: has to be given"),
        ("ocr_train --train_data=a --eval_data=b --workdir=c --seed=4294967296", "--seed=4294967296: must be 0 to"),
        ("ocr_train --train_data=a --eval_data=b --workdir=c\udcff", "--workdir: its value is not UTF-8"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line_with_status_1(invoke, tmp_path: pathlib.Path, line: str, told: str):
    done = invoke(*line.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_damage_has_status_2_and_one_line(command, trained, tmp_path: pathlib.Path):
    records = tmp_path / "records"
    records.mkdir()
    for path in trained.records.iterdir():
        (records / path.name).write_bytes(path.read_bytes())
    shard = records / "lines-train.tfrecord-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:-30])
    done = command("ocr_train", f"--train_data={records}", f"--eval_data={records}", "--workdir=run")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "lines-train.tfrecord-00001-of-00002: has" in done.stderr
    shard.write_bytes(bytes(shard.stat().st_size + 30))  # of the right size, and nothing but zeros
    done = command("ocr_train", f"--train_data={records}", f"--eval_data={records}", "--workdir=run", "--steps=5")
    assert done.returncode == 2
    assert "lines-train.tfrecord-00001-of-00002: damaged" in done.stderr.splitlines()[-1]


def test_a_bug_has_status_70_and_its_traceback(tmp_path: pathlib.Path):
    code = "from absl import flags; from tools import command; command.run(lambda v, a: 1 / 0, flags.FlagValues(), '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_full_disk_is_told_and_leaves_nothing(command, tmp_path: pathlib.Path):
    # A limit on the size of files stands in for a disk that is full.
    script = (
        "import resource, errno, sys; from tfrecords import files\n"
        "real = files.os.fsync\n"
        "def full(_): raise OSError(errno.ENOSPC, 'No space left on device', 'lines')\n"
        "files.os.fsync = full\n"
        "sys.argv = ['render_lines', '--output=lines', '--count=3', '--workers=1']\n"
        "from tools import render_lines; render_lines.run()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: --output=lines: no space left on the disk"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_stopped_saves_and_goes_on(trained, tmp_path: pathlib.Path, number: int, status: int):
    line = [sys.executable, "-m", "tools.ocr_train", f"--train_data={trained.records}", f"--eval_data={trained.records}"]
    line += ["--workdir=run", "--steps=100000", "--batch_size=4", "--log_every=1"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        journal = tmp_path / "run" / "metrics.jsonl"
        while not (journal.exists() and journal.read_text()):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    result = json.loads(out.splitlines()[-1])
    assert result["interrupted"] is True
    assert result["steps"] > 0
    assert "saving, then leaving" in err
    more = [*line[:-3], f"--steps={result['steps'] + 2}", *line[-2:]]
    done = subprocess.run(more, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"going on from step {result['steps']}" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == result["steps"] + 2


def test_a_second_signal_leaves_at_once(tmp_path: pathlib.Path):
    # A call that does not return to Python stands in for a long step of TensorFlow's.
    code = (
        "import ctypes, sys; from tools import command\n"
        "with command.stop_on_signal():\n"
        "    print('ready', flush=True)\n"
        "    for _ in range(4): ctypes.CDLL(None).usleep(30_000_000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert "once more to leave at once" in process.stderr.readline() + process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


def test_a_signal_while_tensorflow_is_imported_is_not_lost(tmp_path: pathlib.Path):
    code = (
        "import os, signal, sys, threading; from absl import flags; from tools import command\n"
        "def main(*_):\n"
        "    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    command.import_tensorflow()\n"
        "    return {'done': True}\n"
        "command.run(main, flags.FlagValues(), '')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, '{"interrupted": true}\n')


def test_without_stderr_a_command_still_does_its_work(tmp_path: pathlib.Path):
    shell = f"{sys.executable} -m tools.make_tfrecords --dummy=3 --num_classes=5 --output={tmp_path}/records 2>&- 0<&-"
    done = subprocess.run(shell, shell=True, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["records"] == 3


def test_rendering_that_is_stopped_leaves_nothing(tmp_path: pathlib.Path):
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


def test_names_that_would_break_the_table_are_escaped(trained, command, tmp_path: pathlib.Path):
    shutil.copy(next((trained.lines / "eval").glob("*.png")), tmp_path / "a\tb\nc.png")
    os.mkfifo(tmp_path / "fifo")
    done = command("ocr_predict", f"--saved_model={trained.export}", "a\tb\nc.png", "fifo", "/dev/zero")
    assert done.returncode == 1
    names, texts, confidences = zip(*(line.split("\t") for line in done.stdout.splitlines()), strict=True)
    assert names == ("a\\tb\\nc.png", "fifo", "/dev/zero")
    assert [bool(text) for text in texts] == [True, False, False]
    assert float(confidences[0]) > 0.5
    assert done.stderr.splitlines() == ["fifo: not a regular file", "/dev/zero: not a regular file"]


def test_a_worker_that_is_killed_ends_the_rendering(tmp_path: pathlib.Path):
    line = [sys.executable, "-m", "tools.render_lines", "--output=lines", "--count=100000", "--workers=2"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob(".lines.partial/*/*.png")):
            assert process.poll() is None
            time.sleep(0.1)
        subprocess.run(["pkill", "-9", "-P", str(process.pid), "-f", "spawn_main"], check=True)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "error: --workers=2: one of them was killed, for want of memory perhaps"
    assert list(tmp_path.iterdir()) == []


def test_a_standard_output_that_is_full_is_told(tmp_path: pathlib.Path):
    shell = f"{sys.executable} -m tools.render_lines --output={tmp_path}/lines --count=3 --workers=1 > /dev/full"
    done = subprocess.run(shell, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: standard output: No space left on device"


def test_flags_come_from_a_file_too(command, last_json, tmp_path: pathlib.Path):
    (tmp_path / "recipe").write_text("--count=3\n--charset=digits\n")
    done = command("render_lines", "--flagfile=recipe", "--output=lines")
    assert done.returncode == 0, done.stderr
    assert last_json(done)["lines"] == 3
