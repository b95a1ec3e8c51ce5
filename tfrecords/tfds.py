"""The two JSON files that let `tfds.builder_from_directory` of TensorFlow Datasets read a folder of records."""

from collections.abc import Iterable

from tfrecords.errors import InputError
from tfrecords.manifest import Manifest

_VERSION = "1.0.0"  # which TFDS requires
_FEATURES = "tensorflow_datasets.core.features"
_BYTES = ("encoded", "filename")  # a file's name need not be UTF-8
_TEXTS = ("format", "text")
_INTEGERS = ("height", "width", "channels")


def contents(name: str, manifests: Iterable[Manifest]) -> dict[str, dict]:
    """Returns the JSON files that describe the splits of a folder, by file name.

    TFDS maps the nested feature `image`, `text` to the key `image/text`, and reads the shards of a split interleaved unless
    `tfds.ReadConfig(interleave_cycle_length=1)` asks for the order they were written in.

    Args:
      name: the data set's name in TFDS; the splits may belong to data sets of other names.
      manifests: the manifests of the splits.
    """
    info = {"name": name, "version": _VERSION, "fileFormat": "tfrecord", "splits": [_split(manifest) for manifest in manifests]}
    return {"dataset_info.json": info, "features.json": _dict({"image": _dict(_image())})}


def check_split(split: str) -> None:
    """Checks that TFDS accepts the name of a split.

    Raises:
      InputError: TFDS reserves the name, or does not allow it.
    """
    if split == "all" or not split.strip("_"):
        raise InputError(f"--split={split}: TensorFlow Datasets cannot have a split of this name; choose another")


def _split(manifest: Manifest) -> dict:
    """Returns a `SplitInfo` message as JSON, where an int64 is a string."""
    return {
        "name": manifest.split,
        # The data set's name is spelled out, since TFDS knows one {DATASET} per folder and a folder may hold several.
        "filepathTemplate": f"{manifest.name}-{{SPLIT}}.{{FILEFORMAT}}-{{SHARD_X_OF_Y}}",
        "shardLengths": [str(shard.records) for shard in manifest.shards],
        "numBytes": str(sum(shard.bytes for shard in manifest.shards)),
    }


def _image() -> dict[str, dict]:
    """Returns a `Feature` message for each key under `image/`."""
    tensor = {"encoding": "none", "shape": {}}
    bytes_ = _feature("tensor_feature.Tensor", tensor={**tensor, "dtype": "string"})
    integer = _feature("scalar.Scalar", tensor={**tensor, "dtype": "int64"})
    text = _feature("text_feature.Text", text={})
    return dict.fromkeys(_BYTES, bytes_) | dict.fromkeys(_TEXTS, text) | dict.fromkeys(_INTEGERS, integer)


def _dict(features: dict[str, dict]) -> dict:
    """Returns a `Feature` message that holds others."""
    return _feature("features_dict.FeaturesDict", featuresDict={"features": features})


def _feature(python_class: str, **message: dict) -> dict:
    """Returns a `Feature` message as JSON."""
    return {"pythonClassName": f"{_FEATURES}.{python_class}", **message}
