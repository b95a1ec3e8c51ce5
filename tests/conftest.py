import importlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf

# Four devices that share the processor stand in for four GPUs; that has to be said before TensorFlow is used.
_CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 4)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--limit_s", type=float, default=0.0, help="a test that takes longer than this fails; 0: no limit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Keeps the fast tier fast: what takes longer is marked `slow`, which `make test-all` runs, or is made faster."""
    report = yield
    limit_s = item.config.getoption("--limit_s")
    if limit_s and call.when == "call" and report.passed and call.duration > limit_s:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: took {call.duration:.1f} s, a test of the fast tier may take {limit_s:g} s"
    return report


@pytest.fixture
def invoke(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Returns a function that runs a command line in an empty folder within this process: what `command` returns, in a
    hundredth of the time. For commands that are refused, or that leave TensorFlow's state as it was."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
        module = importlib.import_module(f"tools.{name}")
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        line = [name, *map(str, arguments)]
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", line)
            try:
                with pytest.raises(SystemExit) as ended:
                    module.run()
            finally:
                module.FLAGS.unparse_flags()
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return subprocess.CompletedProcess(line, ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def command(tmp_path: pathlib.Path):
    """Returns a function that runs a command line in an empty folder, as a user would."""

    def run(name: str, *arguments: object, **options) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", f"tools.{name}", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, check=False, **options)

    return run


@pytest.fixture
def last_json():
    """Returns a function that reads the JSON object on the last line of what a command printed."""
    return lambda done: json.loads(done.stdout.splitlines()[-1])


class Trained(NamedTuple):
    """A small recogniser of digits, from lines to export."""

    lines: pathlib.Path
    records: pathlib.Path
    workdir: pathlib.Path
    export: pathlib.Path
    result: dict
    seconds: float


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Renders, packs, trains and exports for real; about half a minute."""
    from ocr.config import ConvertConfig, TrainConfig
    from ocr.data import convert
    from ocr.saving import export
    from ocr.synthesis import render
    from ocr.training import train

    begun = time.monotonic()
    here = tmp_path_factory.mktemp("trained")
    drawing = {"charset": "digits", "width": 112, "min_chars": 2, "max_chars": 6}
    for split, count, seed in (("train", 2000, 1), ("eval", 200, 2)):
        folder = here / "lines" / split
        render.render(render.RenderConfig(output=str(folder), count=count, seed=seed, **drawing))
        packing = {"images": str(folder), "labels": str(folder / "labels.txt"), "charset": "digits"}
        convert.convert(ConvertConfig(output=str(here / "records"), split=split, num_shards=2, **packing))
    data = {"train_data": str(here / "records"), "eval_data": str(here / "records")}
    config = TrainConfig(
        **data, workdir=str(here / "run"), steps=400, batch_size=16, log_every=20, eval_every=100, checkpoint_every=100
    )
    result = train.train(config)
    export.export(str(here / "run"), str(here / "export"))
    return Trained(here / "lines", here / "records", here / "run", here / "export", result, time.monotonic() - begun)


@pytest.fixture(scope="session")
def files(trained: Trained) -> list[bytes]:
    return [path.read_bytes() for path in sorted((trained.lines / "eval").glob("*.png"))]


class Server(NamedTuple):
    process: subprocess.Popen
    grpc: str
    rest: str
    exports: pathlib.Path

    def end(self, number: int = signal.SIGTERM) -> tuple[int, dict]:
        """Ends it; returns its exit status, and what it printed last."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=60)
        return self.process.returncode, json.loads(printed.splitlines()[-1])


@pytest.fixture
def exports(trained: Trained, tmp_path: pathlib.Path) -> pathlib.Path:
    """Returns a folder of one export, for a server of its own."""
    shutil.copytree(trained.export, tmp_path / "export")
    return tmp_path / "export"


@pytest.fixture(scope="session")
def start_server():
    """Returns a function that serves a folder of exports, on ports that are free."""

    def start(exports: pathlib.Path, *arguments: str) -> Server:
        line = [
            sys.executable,
            "-m",
            "tools.ocr_serve",
            f"--export_dir={exports}",
            "--grpc_port=0",
            "--rest_port=0",
            *arguments,
        ]
        log = exports.parent / "log"
        with open(log, "w", encoding="utf-8") as stderr:
            process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=exports.parent)
        while not (told := re.search(r"gRPC at (\S+:\d+), REST and a page at (https?://\S+:\d+)/", log.read_text("utf-8"))):
            assert process.poll() is None, log.read_text("utf-8")
            time.sleep(0.1)
        return Server(process, told[1], told[2], exports)

    return start
