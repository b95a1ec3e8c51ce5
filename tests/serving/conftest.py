import contextlib
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import tensorflow as tf

from ocr.serving import warmup
from ocr.serving.serve_config import ServeConfig

READY = r"gRPC at (\S+:\d+), REST and a page at (https?://\S+:\d+)/"


class Server(NamedTuple):
    """A server in a process of its own."""

    process: subprocess.Popen
    grpc: str
    rest: str
    exports: pathlib.Path

    def end(self, number: int = signal.SIGTERM) -> tuple[int, dict]:
        """Stops it; returns its exit status and its JSON result."""
        self.process.send_signal(number)
        stdout, _ = self.process.communicate(timeout=60)
        return self.process.returncode, json.loads(stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def cold_exports(trained, tmp_path_factory) -> pathlib.Path:
    """A folder of one export without warm-up requests, which take five times as long as loading it."""
    folder = tmp_path_factory.mktemp("cold") / "export"
    return shutil.copytree(trained.export, folder, ignore=shutil.ignore_patterns(warmup.NAME))


@pytest.fixture
def exports(cold_exports, tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of one export without warm-up requests, for a server of its own."""
    return shutil.copytree(cold_exports, tmp_path / "export")


@pytest.fixture(scope="session")
def small_exports(tmp_path_factory) -> pathlib.Path:
    """A folder of one export that loads at once and reads every file as the same text, which is in its one variable."""
    folder = tmp_path_factory.mktemp("small") / "export"
    model = tf.Module()
    model.text = tf.Variable("from a variable")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
    def read(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(image_bytes)
        return {"text": tf.fill(rows, model.text), "confidence": tf.ones(rows), "status": tf.zeros(rows, tf.int32)}

    tf.saved_model.save(model, str(folder / "1"), signatures={"serving_default": read})
    return folder


@pytest.fixture(scope="session")
def start_server():
    """Returns a function that serves a folder of exports on free ports, as a user would."""

    def start(exports: pathlib.Path, *arguments: str, descriptors: int = 0) -> Server:
        limit = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh"] if descriptors else []
        line = [*limit, sys.executable, "-m", "tools.ocr_serve", f"--export_dir={exports}", "--grpc_port=0", "--rest_port=0"]
        log = exports.parent / "log"
        with open(log, "w", encoding="utf-8") as stderr:
            process = subprocess.Popen(
                [*line, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=exports.parent
            )
        while not (ready := re.search(READY, log.read_text("utf-8"))):
            assert process.poll() is None, log.read_text("utf-8")
            time.sleep(0.1)
        return Server(process, ready[1], ready[2], exports)

    return start


@pytest.fixture(scope="session")
def server(trained, start_server, tmp_path_factory):
    """A server that the tests share, which must end as it should."""
    exports = tmp_path_factory.mktemp("served") / "export"
    shutil.copytree(trained.export, exports)
    running = start_server(exports)
    yield running
    assert running.end() == (143, {"interrupted": True, "version": 1})


class Addresses(NamedTuple):
    grpc: str
    rest: str
    stop: threading.Event


@pytest.fixture
def serve_in_thread(caplog: pytest.LogCaptureFixture):
    """Returns a context in which a thread serves a folder of exports, a few seconds faster than a process."""
    from ocr.serving import server

    @contextlib.contextmanager
    def serving(exports: pathlib.Path, **options: object) -> Iterator[Addresses]:
        config, stop = ServeConfig(str(exports), grpc_port=0, rest_port=0, **options), threading.Event()
        thread = threading.Thread(target=server.serve, args=(config, stop.is_set))
        with caplog.at_level("INFO", "ocr"):
            thread.start()
            try:
                while not (ready := re.search(READY, caplog.text)):
                    assert thread.is_alive()
                    time.sleep(0.05)
                yield Addresses(ready[1], ready[2], stop)
            finally:
                stop.set()
                thread.join(60)
        assert not thread.is_alive()

    return serving
