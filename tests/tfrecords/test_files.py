import os
import pathlib

import pytest

from tfrecords import files
from tfrecords.errors import InputError, IntegrityError


def test_an_atomic_directory_is_made_by_one_process_at_a_time(tmp_path: pathlib.Path):
    with files.atomic_directory(tmp_path / "new") as staging:
        (staging / "file").write_text("complete")
        with pytest.raises(InputError, match="another process is writing"), files.atomic_directory(tmp_path / "new"):
            pass
    assert (tmp_path / "new" / "file").read_text() == "complete"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("make", [os.mkfifo, pathlib.Path.mkdir])
def test_reading_something_other_than_a_regular_file_does_not_block(tmp_path: pathlib.Path, make):
    make(tmp_path / "odd")
    with pytest.raises(OSError, match=r"regular|directory"):
        files.read_at_most(tmp_path / "odd", 10)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[1]", "not an object"),
        ("null", "not an object"),
        ('{"b": 1}', "no a"),
        ('{"a": NaN}', "NaN in it"),
        ("{", "Expecting"),
    ],
)
def test_json_that_was_not_written_is_damage(tmp_path: pathlib.Path, content: str, fault: str):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(IntegrityError, match=rf"file\.json: damaged \({fault}"):
        files.read_json(tmp_path / "file.json", "a")
