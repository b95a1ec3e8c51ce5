"""Splits of ten small records, for the tests of this folder."""

import pathlib

from tfrecords import manifest, reader, schema, writer

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
