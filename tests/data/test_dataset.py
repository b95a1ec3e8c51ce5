import pathlib

import pytest
from small_splits import DIGITS, write

from tfrecords.errors import InputError


def test_an_alphabet_that_lacks_a_character_is_refused_by_name(tmp_path: pathlib.Path):
    split = write(tmp_path, ["12", "3a"], [40, 40])
    with pytest.raises(InputError, match=r"the alphabet lacks 'a' \(U\+0061\) of split train"):
        split.check_writable_with(DIGITS)


def test_the_fingerprint_depends_on_the_records_alone(tmp_path: pathlib.Path):
    one = write(tmp_path / "one", ["1", "2"], [40, 40])
    same = write(tmp_path / "two", ["1", "2"], [40, 40])
    other = write(tmp_path / "three", ["1", "3"], [40, 40])
    assert one.fingerprint == same.fingerprint != other.fingerprint
