"""Small splits of lines of digits, for the tests of this folder."""

import pathlib

import numpy as np
import tensorflow as tf

from ocr import charset as charsets
from ocr.data import dataset, mixture, pipeline
from tfrecords import schema, writer

DIGITS = charsets.charset_by_name("digits")


def write(folder: pathlib.Path, texts: list[str], widths: list[int], image_format: str = "keep") -> dataset.Split:
    """Writes lines, all pixels of which equal the line's number, as raw pixels or a third each as PNG, JPEG and raw pixels."""
    formats = (schema.RAW,) if image_format == schema.RAW else (schema.PNG, schema.JPEG, schema.RAW)
    encoders = {schema.PNG: tf.io.encode_png, schema.JPEG: tf.io.encode_jpeg}
    with writer.SplitWriter(folder, "lines", "train", DIGITS.file_text(), num_shards=2, positions=len(texts)) as out:
        for index, (text, width) in enumerate(zip(texts, widths, strict=True)):
            pixels = np.full((32, width, 1), index % 256, np.uint8)
            stored = formats[index % len(formats)]
            encoded = pixels.tobytes() if stored == schema.RAW else encoders[stored](pixels).numpy()
            out.add(schema.Record(encoded, stored, 32, width, 1, text, f"{index}").serialize(), index, text, width)
        out.finish(charset="f", image_format=image_format, pixels_per_frame=4)
    return dataset.find(str(folder), "train")


def take(data: mixture.Mixture, count: int, **options) -> list[dict[str, np.ndarray]]:
    given = {"batch_size": 8, "seed": 3, **options}
    batches = pipeline.training_batches(data, DIGITS, **given).take(count)
    return [{key: value.numpy() for key, value in batch.items()} for batch in batches]
