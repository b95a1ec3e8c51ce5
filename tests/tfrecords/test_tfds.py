import pathlib

import pytest
import tensorflow as tf
import tensorflow_datasets

from ocr.data import convert
from ocr.data.convert_config import ConvertConfig
from ocr.synthesis import render
from tfrecords import files, manifest, reader, schema, tfds
from tfrecords.errors import InputError
from tfrecords.manifest import Manifest
from tfrecords.writer import SplitWriter

# TFDS 4.9.10 uses a deprecated method of protobuf 6; the warning names its logging decorator as the caller.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning:tensorflow_datasets\.core\.logging")
IN_ORDER = tensorflow_datasets.ReadConfig(interleave_cycle_length=1, try_autocache=False)


def load_manifests(folder: pathlib.Path) -> dict[str, Manifest]:
    return {split: manifest.load(path) for split, path in manifest.splits(folder).items()}


def read_without_tfds(folder: pathlib.Path, split: Manifest) -> list[dict]:
    """Returns the fields that TFDS knows of every record, read without TFDS."""
    parsed = (schema.parse(serialized[tf.newaxis]) for serialized in reader.records(folder, split).unbatch())
    return [{key: value.numpy()[0] for key, value in fields.items() if key not in ("font", "orientation")} for fields in parsed]


def read_with_tfds(folder: pathlib.Path, split: str) -> list[dict]:
    dataset = tensorflow_datasets.builder_from_directory(folder).as_dataset(split=split, read_config=IN_ORDER)
    return [record["image"] for record in dataset.as_numpy_iterator()]


def test_every_field_of_every_record_of_every_split_comes_back(tmp_path: pathlib.Path):
    records = tmp_path / "records"
    for name, split, count, num_shards in (("lines", "train", 11, 4), ("pages", "eval", 3, 1)):
        lines = tmp_path / split
        render.render(render.RenderConfig(output=str(lines), count=count, seed=count, charset="digits", width=112, max_chars=6))
        packing = {"images": str(lines), "labels": str(lines / "labels.txt"), "charset": "digits", "num_shards": num_shards}
        convert.convert(ConvertConfig(output=str(records), name=name, split=split, **packing))
    manifests = load_manifests(records)
    assert list(manifests) == ["train", "eval"]
    info = tensorflow_datasets.builder_from_directory(records).info
    assert {name: (split.num_examples, split.num_shards) for name, split in info.splits.items()} == {
        "train": (11, 4),
        "eval": (3, 1),
    }
    for split, described in manifests.items():
        assert sorted(info.splits[split].filenames) == [shard.file for shard in described.shards]
        assert read_with_tfds(records, split) == read_without_tfds(records, described)
    assert (
        read_with_tfds(records, "train[:5]+eval[1:]")
        == read_without_tfds(records, manifests["train"])[:5] + read_without_tfds(records, manifests["eval"])[1:]
    )


@pytest.mark.parametrize("positions", [[0, 1, 7], [2, 3], [5]])  # of 8, in 4 shards, some of them empty
def test_empty_shards_and_file_names_that_are_not_utf_8(tmp_path: pathlib.Path, positions: list[int]):
    with SplitWriter(tmp_path, "2lines", "train", "一\n", num_shards=4, positions=8) as writer:
        for index in positions:
            name = f"{index}-\udcff\udc80.png"
            writer.add(schema.Record(bytes(32 * 40), schema.RAW, 32, 40, 1, "第一行", name).serialize(), index, "第一行", 40)
        written = writer.finish(charset="", image_format="raw", pixels_per_frame=8)
    assert 0 in [shard.records for shard in written.shards]
    records = read_with_tfds(tmp_path, "train")
    assert records == read_without_tfds(tmp_path, written)
    assert [record["filename"] for record in records] == [b"%d-\xff\x80.png" % index for index in positions]


def test_the_features_are_what_tfds_itself_would_write(tmp_path: pathlib.Path):
    features = tensorflow_datasets.features
    scalar, string = features.Scalar(tf.int64), features.Tensor(shape=(), dtype=tf.string)
    image = {"encoded": string, "format": features.Text(), "text": features.Text(), "filename": string}
    features.FeaturesDict({"image": {**image, **dict.fromkeys(("height", "width", "channels"), scalar)}}).save_config(tmp_path)
    assert files.read_json(tmp_path / "features.json") == tfds.contents("lines", [])["features.json"]


@pytest.mark.parametrize("split", ["all", "__"])
def test_a_split_that_tfds_could_not_name_is_refused(tmp_path: pathlib.Path, split: str):
    with pytest.raises(InputError, match=f"--split={split}"):
        SplitWriter(tmp_path, "lines", split, "")
