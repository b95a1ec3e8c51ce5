"""Small folders in other tools' formats, and what a conversion of them leaves."""

import io
import pathlib

import numpy as np
from PIL import Image

from ocr.data import convert
from ocr.data.convert_config import ConvertConfig
from tfrecords import reader, schema


def noise(seed: int, width: int = 96, height: int = 32) -> Image.Image:
    """Returns a grey image that no other seed gives."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pack(images: pathlib.Path, **fields) -> dict:
    """Converts a folder to `records` beside it."""
    given = {"charset": "alnum", "output": str(images.parent / "records"), "workers": 1}
    return convert.convert(ConvertConfig(images=str(images), **{**given, **fields}))


def records(folder: pathlib.Path, split: str = "train") -> dict[str, tuple[str, np.ndarray]]:
    """Returns text and pixels of each record, by the name of its image."""
    by_name = {}
    for serialized in reader.records(*reader.find(str(folder), split)):
        parsed = {key: value.numpy() for key, value in schema.parse(serialized).items()}
        for name, text, encoded in zip(parsed["filename"], parsed["text"], parsed["encoded"], strict=True):
            by_name[name.decode()] = text.decode(), np.asarray(Image.open(io.BytesIO(encoded)).convert("L"))
    return by_name


def texts(folder: pathlib.Path, split: str = "train") -> dict[str, str]:
    return {name: text for name, (text, _) in records(folder, split).items()}


def rejects(folder: pathlib.Path, split: str = "train") -> list[tuple[int, str, str]]:
    """Returns number, name and reason of each reject."""
    rows = (folder / f"lines-{split}.rejects.tsv").read_text("utf-8").splitlines()
    return [(int(number), name, reason) for number, name, reason, _ in (row.split("\t") for row in rows)]
