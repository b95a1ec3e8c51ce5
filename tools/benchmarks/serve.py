"""Times `ocr_serve` under load, against calling the export in this process with full batches."""

import concurrent.futures
import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from ocr.serving import saved_model
from ocr.serving.client import Client

from .. import ocr_serve
from .timing import Comparison, compare

_CLIENTS = 32
_REQUESTS = 20  # of each client
_BATCH = 32


def bench_serve(files: list[bytes]) -> Comparison:
    """Times 32 concurrent clients that each send one line at a time.

    Args:
      files: the contents of image files.

    Returns:
      The result of `timing.compare`; the ratio is the speed of the server relative to full batches in this process.
    """
    read = saved_model.load(saved_model.PRETRAINED)
    lines = [files[number % len(files)] for number in range(_CLIENTS * _REQUESTS)]

    def in_process() -> None:
        for start in range(0, len(lines), _BATCH):
            read(lines[start : start + _BATCH])

    with _server() as address, contextlib.ExitStack() as opened:
        clients = [opened.enter_context(Client(address)) for _ in range(_CLIENTS)]
        pool = opened.enter_context(concurrent.futures.ThreadPoolExecutor(_CLIENTS))

        def work(number: int) -> None:
            for line in lines[number * _REQUESTS : (number + 1) * _REQUESTS]:
                clients[number]([line])

        def through_server() -> None:
            list(pool.map(work, range(_CLIENTS)))

        return compare(through_server, {f"ocr_serve, {_CLIENTS} clients, over full batches in process": in_process}, "serving")


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """Serves the shipped model; yields the gRPC address."""
    command = [
        sys.executable,
        "-m",
        ocr_serve.__name__,
        f"--export_dir={saved_model.PRETRAINED}",
        "--grpc_port=0",
        "--rest_port=0",
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log"
        with open(log, "wb") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            while not (match := re.search(r"gRPC at (\S+),", log.read_text("utf-8"))):
                if process.poll() is not None:
                    raise RuntimeError(log.read_text("utf-8"))
                time.sleep(0.1)
            yield match[1]
        finally:
            process.terminate()
            process.wait()
