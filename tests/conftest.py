import json
import os
import pathlib
import subprocess
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


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
