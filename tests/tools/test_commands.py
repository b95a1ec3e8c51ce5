"""What users and scripts rely on: exit status, one line on stderr, one JSON object at the end.

Most cases run within this process; exit codes, closed streams and signals are tested on real processes.
"""

import errno
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

import ocr
import tools
from tfrecords import files
from tools import command

NOT_COMMANDS = ("__init__", "command", "demo")
COMMANDS = sorted(path.stem for path in pathlib.Path(tools.__file__).parent.glob("*.py") if path.stem not in NOT_COMMANDS)


STOPPING = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
STOPPING_NAMES = [number.name for number, _ in STOPPING]


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
        ("ocr_bench", "name one of ctc, decode, input, convert, train, read, all"),
        ("ocr_bench ctc knitting", "knitting: no such benchmark; name one of ctc,"),
        ("ocr_bench ctc --accuracy=records", "--accuracy: taken only with the benchmark read alone"),
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
    code = "from absl import flags; from tools import command; command.run(lambda v, a: 1 / 0, flags.FlagValues(), '')"
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


@pytest.mark.parametrize(("number", "status"), STOPPING, ids=STOPPING_NAMES)
def test_a_command_may_finish_its_work_after_a_signal(
    invoke, last_json, monkeypatch: pytest.MonkeyPatch, number: int, status: int
):
    def main(*_: object) -> dict:
        with command.stop_on_signal() as stop:
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
@pytest.mark.parametrize(("number", "status"), STOPPING, ids=STOPPING_NAMES)
def test_a_training_that_was_stopped_by_a_signal_resumes(trained, tmp_path: pathlib.Path, number: int, status: int):
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
    assert "saving, then exiting" in err
    more = [*line[:-3], f"--steps={result['steps'] + 2}", *line[-2:]]
    done = subprocess.run(more, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"resuming from step {result['steps']}" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == result["steps"] + 2


def test_a_second_signal_ends_the_process_at_once(tmp_path: pathlib.Path):
    # A call that does not return to Python stands in for a long step of TensorFlow.
    code = (
        "import ctypes, sys; from tools import command\n"
        "with command.stop_on_signal():\n"
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
        "import os, signal, sys, threading; from absl import flags; from tools import command\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "def main(*_):\n"
        "    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    command.import_tensorflow()\n"
        "    return {'done': True}\n"
        "command.run(main, flags.FlagValues(), '')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, '{"interrupted": true}\n')


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


def test_a_full_standard_output_is_reported(tmp_path: pathlib.Path):
    shell = f"{sys.executable} -m tools.render_lines --output={tmp_path}/lines --count=3 --workers=1 > /dev/full"
    done = subprocess.run(shell, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: standard output: No space left on device"


def test_flags_are_read_from_a_flag_file(invoke, last_json, tmp_path: pathlib.Path):
    (tmp_path / "recipe").write_text("--count=3\n--charset=digits\n")
    done = invoke("render_lines", "--flagfile=recipe", "--output=lines")
    assert done.returncode == 0, done.stderr
    assert last_json(done)["lines"] == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["--count=3", "# of Windows", "--flagfile=inner"])
def test_a_flag_file_may_have_a_byte_order_mark(invoke, last_json, tmp_path: pathlib.Path, first: str, encoding: str):
    (tmp_path / "recipe").write_text(f"{first}\r\n--charset=digits\r\n--count=3\r\n", encoding)
    (tmp_path / "inner").write_text("--seed=2\n", encoding)
    done = invoke("render_lines", "--output=lines", "--flagfile", "recipe")
    assert done.returncode == 0, done.stderr
    assert last_json(done)["lines"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--count=3\n--charset=\xff\n", "is not UTF-8"),
        (b"--flagfile=recipe", "names itself"),
        (None, "No such file or directory"),
    ],
)
def test_a_flag_file_that_cannot_be_read_is_refused(invoke, tmp_path: pathlib.Path, content: bytes | None, message: str):
    if content:
        (tmp_path / "recipe").write_bytes(content)
    done = invoke("render_lines", "--flagfile=recipe", "--output=lines")
    assert (done.returncode, done.stderr) == (1, f"error: --flagfile=recipe: {message}\n")


@pytest.mark.parametrize(
    ("line", "flag", "value"),
    [
        ("render_lines --output=~/lines --count=1", "output", "{home}/lines"),
        ("render_lines --output=~ --count=1", "output", "{home}"),
        ("render_lines --output=x --count=1 --fonts=~/a/*.ttf:2,~/b.ttf", "fonts", ["{home}/a/*.ttf:2", "{home}/b.ttf"]),
        ("render_lines --output=x --count=1 --charset=chinese_ocr:~/file", "charset", "chinese_ocr:{home}/file"),
        ("render_lines --output=./~/a~b --count=1", "output", "./~/a~b"),
        ("render_lines --output=~nobody-here/x --count=1", "output", "~nobody-here/x"),
        ("render_lines --output=a,~/b --count=1", "output", "a,~/b"),
        (
            "ocr_train --train_data=~/a:3,~/b@eval --eval_data=~@eval --workdir=~root/w",
            "train_data",
            "{home}/a:3,{home}/b@eval",
        ),
        ("ocr_train --train_data=a --eval_data=~@eval --workdir=w", "eval_data", "{home}@eval"),
        ("ocr_export --workdir=w --export_dir=x --serving_base_path=~/models", "serving_base_path", "~/models"),
    ],
)
def test_home_is_put_in_the_place_of_a_tilde(invoke, monkeypatch, tmp_path: pathlib.Path, line: str, flag: str, value):
    name, *arguments = line.split()
    taken = {}
    monkeypatch.setattr(f"tools.{name}.main", lambda values, _: taken.update(values))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert invoke(name, *arguments).returncode == 0
    given = [one.format(home=tmp_path) for one in value] if isinstance(value, list) else value.format(home=tmp_path)
    assert taken[flag] == given


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


def test_a_command_that_nohup_started_goes_on_after_sighup(tmp_path: pathlib.Path):
    code = "import os, signal; from absl import flags; from tools import command\n"
    code += "command.run(lambda v, a: os.kill(os.getpid(), signal.SIGHUP) or {}, flags.FlagValues(), '')"
    for nohup, expected in ((["nohup"], (0, "{}\n")), ([], (129, '{"interrupted": true}\n'))):
        done = subprocess.run([*nohup, sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == expected


def test_a_command_saves_its_work_though_its_terminal_is_gone(tmp_path: pathlib.Path):
    code = (
        "import fcntl, pathlib, sys, termios, time; from absl import flags; from tools import command\n"
        "def main(*_):\n"
        "    with command.stop_on_signal() as stop:\n"
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


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_than_linux_are_refused_in_one_line(platform: str):
    code = f"import sys; sys.platform = {platform!r}; import tools.render_lines"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: line-ocr runs on Linux only: on Windows in WSL 2, on macOS in a Linux container\n"


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
