"""Packs images and labels, or dummy data, into TFRecords.

For example:

  make_tfrecords --images=lines --labels=lines/labels.txt --charset=alnum --output=records
  make_tfrecords --images=pages --charset=chars.txt --output=records --split_by=0.1
  make_tfrecords --dummy=2000 --num_classes=3000 --output=dummy
  make_tfrecords --verify=records

The labels file has one line for each image, `name id id ...` or `name<TAB>text`; a file that could be either is refused unless
--label_format says which. Without one, texts are read from what is beside the images, or in XML of pages: see --source. Lines
that cannot be used are listed in NAME-SPLIT.rejects.tsv with their reasons. With --resume an interrupted run continues after
its last finished shard.

Give --images, --charset and --output, and --labels if the texts are in a file of their own; or --dummy, --num_classes and
--output; or --verify.
"""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from ocr import beam
from ocr.data.convert_config import ConvertConfig
from tfrecords.errors import InputError

from .cli import command, command_flags, tensorflow_import

FLAGS = flags.FlagValues()
command_flags.define_fields(FLAGS, ConvertConfig)
_COMMON_FLAGS = {"output", "name", "split", "height", "resume"}
_DUMMY_FLAGS = ("num_classes", "width", "max_label_length", "seed")
flags.DEFINE_integer(
    "dummy", None, "Number of records with random pixels and labels to generate, instead of reading images.", flag_values=FLAGS
)
flags.DEFINE_integer("num_classes", None, "Dummy data: number of classes, the blank included.", flag_values=FLAGS)
flags.DEFINE_integer("width", 280, "Dummy data: width of the images in pixels.", flag_values=FLAGS)
flags.DEFINE_integer("max_label_length", 10, "Dummy data: label lengths are uniform from 1 to this.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Dummy data: random seed.", flag_values=FLAGS)
flags.DEFINE_string(
    "verify", None, "Folder of records to compare with their manifests, instead of writing any.", flag_values=FLAGS
)
flags.DEFINE_bool("verify_images", False, "With --verify: also decode every image.", flag_values=FLAGS)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Packs, or verifies, records, as the flags say."""
    mode = "verify" if values["verify"] is not None else "dummy" if values["dummy"] is not None else "images"
    of_images = {field.name for field in dataclasses.fields(ConvertConfig)}
    taken = {
        "images": of_images,
        "dummy": {"dummy", *_DUMMY_FLAGS, *_COMMON_FLAGS},
        "verify": {"verify", "verify_images"},
    }
    for name in set().union(*taken.values()) - taken[mode]:
        if FLAGS[name].present:
            modes = [f"--{other}" for other in taken if name in taken[other]]
            raise InputError(f"--{name}: {f'not taken with --{mode}' if mode != 'images' else f'taken only with {modes[0]}'}")
    needed = {"images": ("images", "charset", "output"), "dummy": ("num_classes", "output"), "verify": ("verify",)}
    for name in needed[mode]:
        if values[name] in (None, ""):
            raise InputError(f"--{name}: has to be given{' with --dummy' if mode == 'dummy' else ''}")
    tensorflow_import.import_tensorflow()
    from ocr.data import convert, dummy, verify

    if mode == "verify":
        return verify.verify(pathlib.Path(values["verify"]), values["verify_images"])
    if mode == "dummy":
        return dummy.convert(count=values["dummy"], **{name: values[name] for name in (*_DUMMY_FLAGS, *_COMMON_FLAGS)})
    config = ConvertConfig(**command_flags.fields(values, ConvertConfig))
    if config.engine == "local":
        return convert.convert(config)
    beam.check_installed()
    from ocr.data import convert_beam

    return convert_beam.run(config)


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
