import fcntl
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf

# Commands that tests start as `python -m tools.NAME` are those of this checkout, in whatever folder they run.
_ROOT = str(pathlib.Path(__file__).resolve().parent.parent)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))

# Tests send signals that nohup, or a shell that starts them in the background, has set to be ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# Four logical devices on the CPU stand in for four GPUs; they must be configured before TensorFlow is used.
_CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 4)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--limit_s", type=float, default=0.0, help="fail fast tests that take more seconds; 0: no limit")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what only a proof has, unless it is among those in PROOF."""
    proof = item.get_closest_marker("proof")
    if proof and proof.args[0] not in os.environ.get("PROOF", "").split():
        pytest.skip(f"make {proof.args[0]} has it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Fails tests of the fast tier that take too long; mark them `slow`, for `make test-all`, or make them faster."""
    report = yield
    limit_s = item.config.getoption("--limit_s")
    fast = not item.get_closest_marker("slow")
    if limit_s and fast and call.when == "call" and report.passed and call.duration > limit_s:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: took {call.duration:.1f} s, a test of the fast tier may take {limit_s:g} s"
    return report


@pytest.fixture
def invoke(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Returns a function that runs a command line in an empty folder within this process.

    It returns what `command` returns, but does not wait for TensorFlow to load. Use it for commands that are refused, or that
    leave TensorFlow's state unchanged.
    """

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
    """Returns a function that runs a command line in an empty folder in a process of its own, as a user would."""

    def run(name: str, *arguments: object, **options) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", f"tools.{name}", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, check=False, **options)

    return run


@pytest.fixture
def last_json():
    """Returns a function that reads the JSON object on the last line of what a command printed."""
    return lambda done: json.loads(done.stdout.splitlines()[-1])


class Trained(NamedTuple):
    """A small recogniser of digits, from lines to export. All tests share it: read it, copy it, never change it."""

    lines: pathlib.Path
    records: pathlib.Path
    workdir: pathlib.Path
    export: pathlib.Path
    result: dict
    seconds: float


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Trained:
    """Renders, packs, trains and exports for real, once for all processes of pytest-xdist; about half a minute.

    Several runs share it in the folder TRAINED, if there is such a variable.
    """
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # the parent folder is that of the whole run
        base = base.parent
    base = pathlib.Path(os.environ.get("TRAINED", base))
    folder, summary = base / "trained", base / "trained.json"
    with open(base / "trained.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not summary.exists():
            begun = time.monotonic()
            result = _train(folder)
            summary.write_text(json.dumps({"result": result, "seconds": time.monotonic() - begun}))
    return Trained(*(folder / name for name in ("lines", "records", "run", "export")), **json.loads(summary.read_text()))


def _train(folder: pathlib.Path) -> dict:
    from ocr.config import TrainConfig
    from ocr.data import convert
    from ocr.data.convert_config import ConvertConfig
    from ocr.saving import export
    from ocr.synthesis import render
    from ocr.training import train

    shutil.rmtree(folder, ignore_errors=True)  # left by a process that failed
    drawing = {"charset": "digits", "width": 112, "min_chars": 2, "max_chars": 6}
    for split, count, seed in (("train", 2000, 1), ("eval", 200, 2)):
        lines = folder / "lines" / split
        render.render(render.RenderConfig(output=str(lines), count=count, seed=seed, **drawing))
        packing = {"images": str(lines), "labels": str(lines / "labels.txt"), "charset": "digits"}
        convert.convert(ConvertConfig(output=str(folder / "records"), split=split, num_shards=2, **packing))
    data = {"train_data": str(folder / "records"), "eval_data": str(folder / "records")}
    config = TrainConfig(
        **data, workdir=str(folder / "run"), steps=300, batch_size=16, log_every=20, eval_every=100, checkpoint_every=100
    )
    result = train.train(config)
    export.export(str(folder / "run"), str(folder / "export"))
    return result


@pytest.fixture
def unchecked_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the checks of what is exported, which take half the time, where a test is about something else."""
    monkeypatch.setattr("ocr.saving.check_export.inspect", lambda *_: [])


@pytest.fixture(scope="session")
def files(trained: Trained) -> list[bytes]:
    return [path.read_bytes() for path in sorted((trained.lines / "eval").glob("*.png"))]
