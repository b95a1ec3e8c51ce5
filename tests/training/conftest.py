import pathlib
import shutil

import pytest
from trainings import config, digits_config

from ocr.data import dummy
from ocr.training import train


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns a folder of 64 dummy lines."""
    folder = tmp_path_factory.mktemp("dummy")
    dummy.convert(str(folder), 64, 11, width=48, max_label_length=3)
    return str(folder)


@pytest.fixture(scope="session")
def finished(records: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the workdir of a training of 12 steps, not to be written to."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train.train(config(records, workdir))
    return workdir


@pytest.fixture
def run(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """Returns a copy of the workdir of a training of 12 steps."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="session")
def saved(trained, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the workdir of a training of 10 steps on lines of digits, not to be written to."""
    workdir = tmp_path_factory.mktemp("saved") / "run"
    train.train(digits_config(trained, workdir, steps=10))
    return workdir
