import json
import pathlib

import pytest
from ten_records import write

from tfrecords import reader
from tfrecords.errors import IntegrityError


def test_a_manifest_counts_its_records(tmp_path: pathlib.Path):
    write(tmp_path)
    _, manifest = reader.find(str(tmp_path), "train")
    assert manifest.records == 10
    assert manifest.characters == {"第": 10, "行": 10} | {str(i): 1 for i in range(10)}
    assert manifest.lengths == {3: 10}
    assert manifest.widths == {280 + i: 1 for i in range(10)}
    assert manifest.shards[0].bytes == (tmp_path / manifest.shards[0].file).stat().st_size


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', "{"])
def test_a_damaged_manifest_is_refused_by_name(tmp_path: pathlib.Path, content: str):
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


@pytest.mark.parametrize(
    "field", [{"name": 3}, {"lengths": {"1": "many"}}, {"pixels_per_frame": -1}, {"dummy": []}, {"characters": {"a": None}}]
)
def test_a_manifest_with_a_field_of_the_wrong_type_is_refused(tmp_path: pathlib.Path, field: dict):
    write(tmp_path)
    path = tmp_path / "lines-train.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **field}))
    with pytest.raises(IntegrityError, match=f"damaged manifest .{next(iter(field))} is"):
        reader.find(str(tmp_path), "train")


def test_a_manifest_cannot_name_a_shard_in_another_folder(tmp_path: pathlib.Path):
    write(tmp_path)
    path = tmp_path / "lines-train.manifest.json"
    path.write_text(path.read_text().replace("lines-train.tfrecord-", "lines-train.tfrecord/../../"))
    with pytest.raises(IntegrityError, match="a shard named"):
        reader.find(str(tmp_path), "train")
