import contextlib
import pathlib

import pytest
from ten_records import FIELDS, record, texts, write

from tfrecords import files, writer
from tfrecords.errors import InputError, IntegrityError


def test_records_are_spread_over_numbered_shards(tmp_path: pathlib.Path):
    manifest = write(tmp_path, num_shards=4, positions=10)
    assert [(s.file, s.records) for s in manifest.shards] == [
        (f"lines-train.tfrecord-{i:05d}-of-00004", count) for i, count in enumerate((3, 2, 3, 2))
    ]


def test_a_new_shard_begins_when_the_last_one_is_full(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer, "SHARD_BYTES", 500)
    manifest = write(tmp_path)
    assert len(manifest.shards) > 2
    assert all(shard.bytes <= 500 for shard in manifest.shards)
    assert texts(tmp_path) == [f"第{i}行" for i in range(10)]


def test_an_existing_split_is_not_overwritten(tmp_path: pathlib.Path):
    write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="split train is already there"):
        write(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failed_writer_leaves_nothing(tmp_path: pathlib.Path):
    def fail() -> None:
        with writer.SplitWriter(tmp_path, "lines", "train", "") as out:
            out.add(b"x", 0, "x", 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_split_has_one_writer_at_a_time(tmp_path: pathlib.Path):
    with writer.SplitWriter(tmp_path, "lines", "train", "") as out:
        out.add(b"x", 0, "x", 1)
        with pytest.raises(InputError, match="another process is writing"):
            writer.SplitWriter(tmp_path, "lines", "train", "").__enter__()
        write(tmp_path, split="eval")  # another split has its own lock
    assert write(tmp_path).records == 10


def test_leftovers_of_a_killed_run_are_removed(tmp_path: pathlib.Path):
    for name in (".lines-train.partial", ".lines-train.partial/deep"):
        (tmp_path / name).mkdir()
    (tmp_path / ".lines-train.partial" / "deep" / "00000").write_bytes(b"x")
    (tmp_path / "lines-train.tfrecord-00001-of-00009").write_bytes(b"published before the manifest")
    manifest = write(tmp_path)
    shards = {path.name for path in tmp_path.glob("*tfrecord*")}
    assert shards == {shard.file for shard in manifest.shards}
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_at_the_last_step_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def interrupt(folder: pathlib.Path, **options) -> pathlib.Path:
    """Writes two of four shards, and fails; returns the staging folder."""
    with contextlib.suppress(RuntimeError), writer.SplitWriter(folder, "lines", "train", "第行\n", 4, 10, **options) as out:
        for index in range(7):
            out.add(record(index).serialize(), index, record(index).text, record(index).width)
        raise RuntimeError
    return folder / ".lines-train.partial"


def test_an_interrupted_split_is_resumed_to_the_same_bytes(tmp_path: pathlib.Path):
    complete = write(tmp_path / "complete", num_shards=4, positions=10)
    assert interrupt(tmp_path / "interrupted").is_dir()
    assert write(tmp_path / "interrupted", num_shards=4, positions=10, resume=True) == complete
    assert {p.name: p.read_bytes() for p in (tmp_path / "interrupted").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "complete").iterdir()
    }


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("progress.json", lambda content: b"[]"),
        ("progress.json", lambda content: b"{}"),
        ("progress.json", lambda content: content[:-30]),
        ("progress.json", lambda content: content.replace(b'"position": 5', b'"position": 3')),
        ("progress.json", lambda content: content.replace(b'"rejects_bytes": 0', b'"rejects_bytes": 9')),
        ("00000", lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:]),
        ("00001", lambda content: content[:-1]),
    ],
)
def test_resuming_refuses_files_that_have_changed(tmp_path: pathlib.Path, file: str, change):
    path = interrupt(tmp_path) / file
    assert change(path.read_bytes()) != path.read_bytes()
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(IntegrityError, match=r"partial/(progress|0000|lines-train\.rejects)"):
        write(tmp_path, num_shards=4, positions=10, resume=True)
    assert write(tmp_path, num_shards=4, positions=10).records == 10  # starts over


def test_resuming_refuses_other_settings(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    interrupt(tmp_path, provenance={"labels": "a"})
    with pytest.raises(InputError, match="labels: saved a, given b"):
        write(tmp_path, num_shards=4, positions=10, provenance={"labels": "b"}, resume=True)
    with pytest.raises(InputError, match="labels: saved a, given None"):
        write(tmp_path, num_shards=4, positions=10, resume=True)
    monkeypatch.setattr(writer.SplitWriter, "_publish", lambda _: 1 / 0)  # killed just before the last step
    with pytest.raises(ZeroDivisionError):
        write(tmp_path, num_shards=4, positions=10, provenance={"labels": "a"}, resume=True)
    with pytest.raises(InputError, match="labels: saved a, given b"):
        write(tmp_path, num_shards=4, positions=10, provenance={"labels": "b"}, resume=True)


def test_two_splits_that_finish_at_the_same_time_must_share_an_alphabet(tmp_path: pathlib.Path):
    with writer.SplitWriter(tmp_path, "lines", "train", "第行\n") as out:
        out.add(record(1).serialize(), 0, "第1行", 281)
        with writer.SplitWriter(tmp_path, "lines", "eval", "other\n") as meanwhile:
            meanwhile.add(record(2).serialize(), 0, "第2行", 282)
            meanwhile.finish(**FIELDS)
        with pytest.raises(InputError, match="another alphabet"):
            out.finish(**FIELDS)
    assert (tmp_path / "charset.txt").read_text() == "other\n"
