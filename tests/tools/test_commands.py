"""What users and scripts rely on: exit status, one line on stderr, one JSON object at the end.

Most cases run within this process; exit codes are tested on real processes.
"""

import errno
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest
import tensorflow as tf

import ocr
import tools
from tfrecords import files

NOT_COMMANDS = ("__init__", "demo")
COMMANDS = sorted(path.stem for path in pathlib.Path(tools.__file__).parent.glob("*.py") if path.stem not in NOT_COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_every_flag(invoke, name: str):
    done = invoke(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n  {name} " in done.stdout
    assert "--flagfile" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 130


@pytest.mark.parametrize("name", sorted({*COMMANDS} - {"ocr_export"}))
def test_version_is_printed_by_every_command(invoke, name: str):
    done = invoke(name, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"line-ocr {ocr.__version__}\n", "")
    assert "\n  --version\n" in invoke(name, "--help").stdout


def test_version_of_ocr_export_is_that_of_the_export(invoke):
    done = invoke("ocr_export", "--version=first", "--workdir=w", "--export_dir=x")
    assert (done.returncode, done.stderr) == (1, "error: --version=first: must be a whole number\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("render_lines --output=x", "--count: has to be given"),
        ("render_lines --output=x --count=many", "--count=many: must be a whole number"),
        ("render_lines --output=x --count=5 stray", "stray: not a flag"),
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
        (
            "ocr_export --saved_model=x --export_dir=y --format=onnx --turned_lines",
            "--turned_lines=True: not taken with --format=onnx",
        ),
        ("ocr_predict --saved_model=/nowhere a.png", "/nowhere: no exported model in it"),
        ("ocr_predict --saved_model=/nowhere", "no image named"),
        ("ocr_predict --saved_model=/nowhere --min_confidence=90 a.png", "--min_confidence=90.0: must be 0 to 1"),
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
        (
            "ocr_bench",
            "name one of ctc, ctc_sizes, decode, input, convert, train, read, score, "
            "questions, language, turned, reread, edge, all",
        ),
        ("ocr_bench ctc knitting", "knitting: no such benchmark; name one of ctc,"),
        ("ocr_bench ctc --accuracy=records", "--accuracy: taken only with the benchmark read alone"),
        ("ocr_bench read --accuracy=records --json=x", "--accuracy: taken without --json and --compare"),
        ("ocr_bench ctc --settings=fast", "--settings=fast: must be one of both, ours, stock"),
        ("ocr_bench ctc --json=/nowhere/x", "--json=/nowhere/x: no such folder"),
        ("ocr_bench ctc --compare=/nowhere", "--compare=/nowhere: No such file or directory"),
    ],
)
def test_an_invalid_input_is_refused_in_one_line_with_status_1(invoke, tmp_path: pathlib.Path, line: str, message: str):
    done = invoke(*line.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_has_status_2_and_one_line(invoke, trained, tmp_path: pathlib.Path):
    records = tmp_path / "records"
    records.mkdir()
    for path in trained.records.iterdir():
        (records / path.name).write_bytes(path.read_bytes())
    shard = records / "lines-train.tfrecord-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:-30])
    done = invoke("ocr_train", f"--train_data={records}", f"--eval_data={records}", "--workdir=run")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "lines-train.tfrecord-00001-of-00002: has" in done.stderr
    shard.write_bytes(bytes(shard.stat().st_size + 30))  # of the right size, but all zeros
    done = invoke("ocr_train", f"--train_data={records}", f"--eval_data={records}", "--workdir=run", "--steps=5")
    assert done.returncode == 2
    assert "lines-train.tfrecord-00001-of-00002: damaged" in done.stderr.splitlines()[-1]


def test_a_bug_has_status_70_and_its_traceback(tmp_path: pathlib.Path):
    code = "from absl import flags; from tools.cli import command; command.run(lambda v, a: 1 / 0, flags.FlagValues(), '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_full_disk_is_reported_and_leaves_nothing_behind(invoke, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "lines")

    monkeypatch.setattr(files.os, "fsync", fsync)  # in place of a disk that is full
    done = invoke("render_lines", "--output=lines", "--count=3", "--workers=1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: --output=lines: no space left on the disk"
    assert list(tmp_path.iterdir()) == []


def test_file_names_with_tabs_or_line_ends_are_escaped(trained, invoke, tmp_path: pathlib.Path):
    shutil.copy(next((trained.lines / "eval").glob("*.png")), tmp_path / "a\tb\nc.png")
    os.mkfifo(tmp_path / "fifo")
    done = invoke("ocr_predict", f"--saved_model={trained.export}", "a\tb\nc.png", "fifo", "/dev/zero")
    assert done.returncode == 1
    names, texts, confidences = zip(*(line.split("\t") for line in done.stdout.splitlines()), strict=True)
    assert names == ("a\\tb\\nc.png", "fifo", "/dev/zero")
    assert [bool(text) for text in texts] == [True, False, False]
    assert float(confidences[0]) > 0.5
    assert done.stderr.splitlines() == ["fifo: not a regular file", "/dev/zero: not a regular file"]


def test_rendering_ends_if_a_worker_is_killed(tmp_path: pathlib.Path):
    line = [sys.executable, "-m", "tools.render_lines", "--output=lines", "--count=100000", "--workers=2"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob(".lines.partial/*/*.png")):
            assert process.poll() is None
            time.sleep(0.1)
        subprocess.run(["pkill", "-9", "-P", str(process.pid), "-f", "spawn_main"], check=True)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "error: --workers=2: a worker was killed, perhaps because memory ran out"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_than_linux_are_refused_in_one_line(platform: str):
    code = f"import sys; sys.platform = {platform!r}; import tools.render_lines"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: line-ocr runs on Linux only: on Windows in WSL 2, on macOS in a Linux container\n"


GPU_COMMANDS = {
    "ocr_predict": ["--saved_model=none", "line.png"],
    "ocr_eval": ["--model=none", "--data=none"],
    "ocr_serve": ["--export_dir=none"],
    "ocr_train": ["--train_data=none", "--eval_data=none", "--workdir=run"],
}


@pytest.mark.parametrize("name", GPU_COMMANDS)
def test_gpus_memory_grows_as_it_is_needed(invoke, monkeypatch: pytest.MonkeyPatch, name: str):
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in (0, 1)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: gpus if kind == "GPU" else [])
    grows = {
        flag: invoke(name, *GPU_COMMANDS[name], *flag.split()) for flag in ("", "--gpu_memory_growth", "--nogpu_memory_growth")
    }
    # There are no such GPUs, so TensorFlow refuses to change the first of them.
    refused = {
        flag: "Unrecognized device: PhysicalDevice(name='/physical_device:GPU:0'" in done.stderr for flag, done in grows.items()
    }
    assert refused == {"": name != "ocr_train", "--gpu_memory_growth": True, "--nogpu_memory_growth": False}
