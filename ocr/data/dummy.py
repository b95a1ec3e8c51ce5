"""Dummy data: records of random pixels and random labels, to try out a training without images."""

import pathlib

import numpy as np

from ocr.charset import Charset
from ocr.images.header import SCALED_HEIGHT, max_width, scaled_width
from ocr.options import check_given, check_names, check_range
from ocr.progress import Progress
from tfrecords import schema
from tfrecords.writer import SplitWriter

FIRST_CHARACTER = 0x4E00


def convert(
    output: str,
    count: int,
    num_classes: int,
    height: int = SCALED_HEIGHT,
    width: int = 280,
    max_label_length: int = 10,
    seed: int = 0,
    name: str = "lines",
    split: str = "train",
    resume: bool = False,
) -> dict:
    """Writes records of random pixels and random labels, each determined by its number, like the original's dummy data.

    Args:
      output: folder to write to.
      count: number of records.
      num_classes: number of classes, the blank included; the characters are those from U+4E00 on.
      height: height of the images, in pixels.
      width: width of the images, in pixels.
      max_label_length: lengths are drawn uniformly from 1 to this.
      seed: of the random numbers.
      name: name of the data set.
      split: name of this part of it.
      resume: whether to continue an interrupted run.

    Returns:
      What `convert.convert` returns.

    Raises:
      InputError: a value is out of range, or the folder holds the split already.
    """
    check_names(name, split)
    max_classes = 0xD800 - FIRST_CHARACTER + 1
    check_given(output=output)
    check_range({"dummy": count, "num_classes": num_classes}, dummy=(1, 10**9), num_classes=(2, max_classes))
    check_range({"height": height, "seed": seed}, height=(8, 1000), seed=(0, 2**63 - 1))
    check_range({"width": width}, width=(1, max_width(height)))
    check_range({"max_label_length": max_label_length}, max_label_length=(1, width // 2))
    charset = Charset("".join(chr(FIRST_CHARACTER + i) for i in range(num_classes - 1)))
    drawn = {"num_classes": num_classes, "max_label_length": max_label_length, "seed": seed}
    other_height = {"height": height} if height != SCALED_HEIGHT else {}  # missing in what older versions wrote
    provenance = {"dummy": count, **other_height, "width": width, **drawn}
    with SplitWriter(pathlib.Path(output), name, split, charset.file_text(), provenance=provenance, resume=resume) as writer:
        if not writer.manifest:
            with Progress("drawing", count, "records", writer.position) as bar:
                for index in range(writer.position, count):
                    rng = np.random.default_rng((seed, index))
                    length = rng.integers(1, max_label_length, endpoint=True)
                    text = charset.decode(rng.integers(0, charset.blank, length))
                    pixels = rng.bytes(height * width)
                    record = schema.Record(pixels, schema.RAW, height, width, 1, text, f"{index:09d}")
                    writer.add(record.serialize(), index, text, scaled_width(height, width))
                    bar.update(index + 1)
            # Enough frames even if all characters of a label are equal.
            pixels_per_frame = scaled_width(height, width) // (2 * max_label_length)
            image_format = {"image_format": schema.RAW, "pixels_per_frame": pixels_per_frame, "height": height}
            writer.finish(charset=charset.fingerprint, dummy=drawn, **image_format)
    assert writer.manifest
    return writer.manifest.summary
