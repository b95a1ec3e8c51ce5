import contextlib
import json
import os
import pathlib

import pytest
import tensorflow as tf

from tfrecords import files, manifest, reader, schema, writer
from tfrecords.errors import InputError, IntegrityError

FIELDS = {"charset": "f" * 64, "image_format": "keep", "pixels_per_frame": 4}


def record(index: int) -> schema.Record:
    return schema.Record(b"\x89PNG" + bytes([index]) * index, "png", 32, 280 + index, 1, f"第{index}行", f"{index}.png")


def write(folder: pathlib.Path, count: int = 10, split: str = "train", **options) -> manifest.Manifest:
    with writer.SplitWriter(folder, "lines", split, "第行\n", **options) as out:
        for index in range(out.position, count):
            out.add(record(index).serialize(), index, record(index).text, record(index).width)
        return out.finish(**FIELDS)


def texts(folder: pathlib.Path, spec: str = "") -> list[str]:
    dataset = reader.records(*reader.find(f"{folder}{spec}", "train")).map(schema.parse)
    return [text.decode() for batch in dataset for text in batch["text"].numpy()]


def test_a_record_comes_back_as_it_was_written():
    # A name that is not UTF-8; and what only drawn lines tell.
    original = record(3)._replace(filename="b\udcffd.png", font="Song 宋", middles=(3, 140, 300))
    parsed = schema.parse(tf.constant([original.serialize()]), middles=True)
    assert parsed.pop("middles").to_list() == [[3, 140, 300]]
    assert {key: value.numpy()[0] for key, value in parsed.items()} == {
        "encoded": original.encoded,
        "format": b"png",
        "height": 32,
        "width": 283,
        "channels": 1,
        "text": "第3行".encode(),
        "filename": b"b\xffd.png",
        "font": "Song 宋".encode(),
    }
    plain = schema.parse(tf.constant([record(3).serialize()]), middles=True)
    assert (plain["font"].numpy()[0], plain["middles"].to_list()) == (b"", [[]])


def test_the_keys_are_those_of_tensorflows_ocr_data_sets():
    example = tf.train.Example.FromString(record(1).serialize())
    keys = ("channels", "encoded", "filename", "format", "height", "text", "width")
    assert sorted(example.features.feature) == [f"image/{key}" for key in keys]


def test_records_are_read_in_the_order_they_were_written(tmp_path: pathlib.Path):
    for options in ({}, {"num_shards": 3, "positions": 10}):
        folder = tmp_path / f"{len(options)}"
        write(folder, **options)
        assert texts(folder) == [f"第{i}行" for i in range(10)]


def test_shards_share_the_records_and_are_named_by_their_number(tmp_path: pathlib.Path):
    made = write(tmp_path, num_shards=4, positions=10)
    assert [(s.file, s.records) for s in made.shards] == [
        (f"lines-train.tfrecord-{i:05d}-of-00004", count) for i, count in enumerate((3, 2, 3, 2))
    ]


def test_a_new_shard_begins_where_the_last_one_is_full(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer, "SHARD_BYTES", 500)
    made = write(tmp_path)
    assert len(made.shards) > 2
    assert all(shard.bytes <= 500 for shard in made.shards)
    assert texts(tmp_path) == [f"第{i}行" for i in range(10)]


def test_the_manifest_counts_what_is_in_the_records(tmp_path: pathlib.Path):
    write(tmp_path)
    _, found = reader.find(str(tmp_path), "train")
    assert found.records == 10
    assert found.characters == {"第": 10, "行": 10} | {str(i): 1 for i in range(10)}
    assert found.lengths == {3: 10}
    assert found.widths == {280 + i: 1 for i in range(10)}
    assert found.shards[0].bytes == (tmp_path / found.shards[0].file).stat().st_size


def test_a_split_is_chosen_by_name_or_preference(tmp_path: pathlib.Path):
    write(tmp_path, split="train")
    assert reader.find(str(tmp_path), "eval")[1].split == "train"
    write(tmp_path, split="eval")
    assert reader.find(str(tmp_path), "eval")[1].split == "eval"
    assert reader.find(f"{tmp_path}@train", "eval")[1].split == "train"
    with pytest.raises(InputError, match="has the splits eval, train"):
        reader.find(str(tmp_path), "test")
    with pytest.raises(InputError, match="has the splits eval, train"):
        reader.find(f"{tmp_path}@test", "eval")


def test_a_split_that_is_there_is_not_written_again(tmp_path: pathlib.Path):
    write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="split train is already there"):
        write(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_writer_that_fails_leaves_nothing(tmp_path: pathlib.Path):
    def fail() -> None:
        with writer.SplitWriter(tmp_path, "lines", "train", "") as out:
            out.add(b"x", 0, "x", 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_shard_of_another_size_is_named(tmp_path: pathlib.Path, damage: str):
    shard = tmp_path / write(tmp_path, num_shards=2, positions=10).shards[1].file
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-20])
    else:
        shard.unlink()
    with pytest.raises(IntegrityError, match=r"00001-of-00002.*its manifest says"):
        reader.find(str(tmp_path), "train")


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', "{"])
def test_a_damaged_manifest_is_named(tmp_path: pathlib.Path, content: str):
    write(tmp_path)
    (tmp_path / "lines-train.manifest.json").write_text(content)
    with pytest.raises(IntegrityError, match=r"lines-train\.manifest\.json: damaged"):
        reader.find(str(tmp_path), "train")


def test_a_manifest_of_another_version_is_refused(tmp_path: pathlib.Path):
    write(tmp_path)
    path = tmp_path / "lines-train.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(IntegrityError, match="another version"):
        reader.find(str(tmp_path), "train")


def test_a_folder_without_records_says_what_makes_them(tmp_path: pathlib.Path):
    with pytest.raises(InputError, match="make_tfrecords"):
        reader.find(str(tmp_path), "train")
    with pytest.raises(InputError, match="no such folder"):
        reader.find(str(tmp_path / "nowhere"), "train")


@pytest.mark.parametrize(
    "field", [{"name": 3}, {"lengths": {"1": "many"}}, {"pixels_per_frame": -1}, {"dummy": []}, {"characters": {"a": None}}]
)
def test_a_manifest_whose_fields_are_of_other_types_is_named(tmp_path: pathlib.Path, field: dict):
    write(tmp_path)
    path = tmp_path / "lines-train.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **field}))
    with pytest.raises(IntegrityError, match=f"damaged manifest .{next(iter(field))} is"):
        reader.find(str(tmp_path), "train")


def test_a_manifest_cannot_name_a_shard_elsewhere(tmp_path: pathlib.Path):
    write(tmp_path)
    path = tmp_path / "lines-train.manifest.json"
    path.write_text(path.read_text().replace("lines-train.tfrecord-", "lines-train.tfrecord/../../"))
    with pytest.raises(IntegrityError, match="a shard named"):
        reader.find(str(tmp_path), "train")


def test_two_writers_of_one_split_do_not_meet(tmp_path: pathlib.Path):
    with writer.SplitWriter(tmp_path, "lines", "train", "") as out:
        out.add(b"x", 0, "x", 1)
        with pytest.raises(InputError, match="another process is writing"):
            writer.SplitWriter(tmp_path, "lines", "train", "").__enter__()
        write(tmp_path, split="eval")  # another split is none of its business
    assert write(tmp_path).records == 10


def test_a_folder_is_made_by_one_process_at_a_time(tmp_path: pathlib.Path):
    with files.atomic_directory(tmp_path / "new") as aside:
        (aside / "file").write_text("ours")
        with pytest.raises(InputError, match="another process is writing"), files.atomic_directory(tmp_path / "new"):
            pass
    assert (tmp_path / "new" / "file").read_text() == "ours"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_what_a_killed_run_left_does_not_stay(tmp_path: pathlib.Path):
    for name in (".lines-train.partial", ".lines-train.partial/deep"):
        (tmp_path / name).mkdir()
    (tmp_path / ".lines-train.partial" / "deep" / "00000").write_bytes(b"x")
    (tmp_path / "lines-train.tfrecord-00001-of-00009").write_bytes(b"moved before the manifest was")
    made = write(tmp_path)
    shards = {path.name for path in tmp_path.glob("*tfrecord*")}
    assert shards == {shard.file for shard in made.shards}
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_fills_at_the_last_moment_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, pathlib.Path.mkdir])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: pathlib.Path, make):
    make(tmp_path / "odd")
    with pytest.raises(OSError, match=r"regular|directory"):
        files.read_at_most(tmp_path / "odd", 10)


def interrupted(folder: pathlib.Path, **options) -> pathlib.Path:
    """Writes two of four shards, and is killed; returns the folder they are in."""
    with contextlib.suppress(RuntimeError), writer.SplitWriter(folder, "lines", "train", "第行\n", 4, 10, **options) as out:
        for index in range(7):
            out.add(record(index).serialize(), index, record(index).text, record(index).width)
        raise RuntimeError
    return folder / ".lines-train.partial"


def test_what_was_ended_is_gone_on_with(tmp_path: pathlib.Path):
    whole = write(tmp_path / "whole", num_shards=4, positions=10)
    assert interrupted(tmp_path / "ended").is_dir()
    assert write(tmp_path / "ended", num_shards=4, positions=10, resume=True) == whole
    assert {p.name: p.read_bytes() for p in (tmp_path / "ended").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()
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
def test_what_is_not_as_it_was_left_is_not_gone_on_with(tmp_path: pathlib.Path, file: str, change):
    path = interrupted(tmp_path) / file
    assert change(path.read_bytes()) != path.read_bytes()
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(IntegrityError, match=r"partial/(progress|0000|lines-train\.rejects)"):
        write(tmp_path, num_shards=4, positions=10, resume=True)
    assert write(tmp_path, num_shards=4, positions=10).records == 10  # afresh


def test_nothing_is_gone_on_with_that_was_made_of_something_else(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    interrupted(tmp_path, provenance={"labels": "a"})
    with pytest.raises(InputError, match="labels: saved a, given b"):
        write(tmp_path, num_shards=4, positions=10, provenance={"labels": "b"}, resume=True)
    monkeypatch.setattr(writer.SplitWriter, "_publish", lambda _: 1 / 0)  # killed when all but the last step was done
    with pytest.raises(ZeroDivisionError):
        write(tmp_path, num_shards=4, positions=10, provenance={"labels": "a"}, resume=True)
    with pytest.raises(InputError, match="labels: saved a, given b"):
        write(tmp_path, num_shards=4, positions=10, provenance={"labels": "b"}, resume=True)


def test_two_splits_that_finish_together_share_an_alphabet(tmp_path: pathlib.Path):
    with writer.SplitWriter(tmp_path, "lines", "train", "第行\n") as out:
        out.add(record(1).serialize(), 0, "第1行", 281)
        with writer.SplitWriter(tmp_path, "lines", "eval", "other\n") as meanwhile:
            meanwhile.add(record(2).serialize(), 0, "第2行", 282)
            meanwhile.finish(**FIELDS)
        with pytest.raises(InputError, match="another alphabet"):
            out.finish(**FIELDS)
    assert (tmp_path / "charset.txt").read_text() == "other\n"
