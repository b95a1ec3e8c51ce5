import os
import pathlib
import random

import pytest

from ocr.data.sources.lmdb_file import DamagedError, LmdbFile


def test_values_are_those_that_the_library_wrote(tmp_path: pathlib.Path):
    lmdb = pytest.importorskip("lmdb")
    rng, truth = random.Random(0), {}
    with lmdb.open(str(tmp_path), map_size=2**26) as environment:
        for _ in range(3):  # several transactions, values that are replaced and keys that are gone
            with environment.begin(write=True) as transaction:
                for _ in range(1500):
                    key = b"%0*d" % (rng.randint(1, 60), rng.randint(0, 3000))
                    truth[key] = rng.randbytes(rng.choice((0, 1, 30, 2000, 2100, 4096, 20_000)))
                    transaction.put(key, truth[key])
                for key in rng.sample(sorted(truth), 300):
                    transaction.delete(key)
                    del truth[key]
    file = LmdbFile(os.open(tmp_path / "data.mdb", os.O_RDONLY))
    assert {key: file.get(key, 10**6) for key in truth} == truth
    assert file.get(max(truth, key=lambda key: len(truth[key])), 5000) == max(truth.values(), key=len)[:5000]
    absent = {b"", b"\xff" * 20, *(key + b"\0" for key in truth), *(key[:-1] for key in truth)} - truth.keys()
    assert {file.get(key, 10**6) for key in absent} == {None}


@pytest.mark.parametrize("content", [b"", b"junk" * 5000])
def test_another_file_is_refused(tmp_path: pathlib.Path, content: bytes):
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(DamagedError, match="not a database of LMDB"):
        LmdbFile(os.open(tmp_path / "data.mdb", os.O_RDONLY))
