import pathlib

import pytest
from ten_records import texts, write

from tfrecords import reader
from tfrecords.errors import InputError, IntegrityError


def test_records_are_read_in_the_order_they_were_written(tmp_path: pathlib.Path):
    for options in ({}, {"num_shards": 3, "positions": 10}):
        folder = tmp_path / f"{len(options)}"
        write(folder, **options)
        assert texts(folder) == [f"第{i}行" for i in range(10)]


def test_a_split_is_chosen_by_name_or_by_preference(tmp_path: pathlib.Path):
    write(tmp_path, split="train")
    assert reader.find(str(tmp_path), "eval")[1].split == "train"
    write(tmp_path, split="eval")
    assert reader.find(str(tmp_path), "eval")[1].split == "eval"
    assert reader.find(f"{tmp_path}@train", "eval")[1].split == "train"
    with pytest.raises(InputError, match="has the splits eval, train"):
        reader.find(str(tmp_path), "test")
    with pytest.raises(InputError, match="has the splits eval, train"):
        reader.find(f"{tmp_path}@test", "eval")


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_shard_of_another_size_is_refused_by_name(tmp_path: pathlib.Path, damage: str):
    shard = tmp_path / write(tmp_path, num_shards=2, positions=10).shards[1].file
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-20])
    else:
        shard.unlink()
    with pytest.raises(IntegrityError, match=r"00001-of-00002.*its manifest says"):
        reader.find(str(tmp_path), "train")


def test_a_folder_without_records_is_refused_with_a_hint(tmp_path: pathlib.Path):
    with pytest.raises(InputError, match="make_tfrecords"):
        reader.find(str(tmp_path), "train")
    with pytest.raises(InputError, match="no such folder"):
        reader.find(str(tmp_path / "nowhere"), "train")
