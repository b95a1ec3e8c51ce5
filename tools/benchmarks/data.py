"""Times the conversion of images to records, and the input pipeline."""

import contextlib
import functools
import os
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.data import convert, mixture, pipeline
from ocr.data.convert_config import ConvertConfig
from ocr.images.header import SCALED_HEIGHT as HEIGHT
from ocr.model import networks
from ocr.synthesis import render

from .timing import Comparison, compare

_DRAWN, _COPIES = 3_000, 16  # images, and copies of each, so that the time to start matters little
_BATCH = 64
_WIDTH = 280


def bench_convert() -> Comparison:
    """Times the converter against the generator of confusing-ctc, which only reads the same JPEG files of 32x280 pixels."""
    results: Comparison = {}
    with _lines() as (folder, charset):
        original = _original(folder, charset)
        for check in ("full", "header"):
            name = f"original generator, --check={check}"
            ours = functools.partial(_convert, folder, check=check)
            results |= compare(ours, {name: functools.partial(_take, original, _DRAWN * _COPIES)}, "convert")
    return results


def bench_input() -> Comparison:
    """Times the input pipeline against the generator of confusing-ctc, on JPEG files, and a plain tf.data one, on records."""
    results: Comparison = {}
    count = _DRAWN * _COPIES // 2
    with _lines() as (folder, charset), tempfile.TemporaryDirectory() as packed:
        for kind in ("keep", "raw"):
            output = pathlib.Path(packed) / kind
            _pack(folder, output, image_format=kind)
            data = mixture.mix(str(output), networks.network("lite").frame)
            ours = iter(pipeline.training_batches(data, charset, _BATCH, seed=0))
            others: dict[str, Iterator] = {f"textbook pipeline, {kind}": iter(_textbook(output, kind == "raw"))}
            if kind == "keep":
                others = {"original generator": _original(folder, charset), **others}
            timed = {name: functools.partial(_take, batches, count) for name, batches in others.items()}
            # Batches prefetched while the others were timed are consumed first.
            results |= compare(functools.partial(_take, ours, count), timed, "input", functools.partial(_take, ours, count))
    return results


def _convert(folder: pathlib.Path, check: str) -> None:
    with tempfile.TemporaryDirectory() as output:
        _pack(folder, pathlib.Path(output), check=check)


def _pack(folder: pathlib.Path, output: pathlib.Path, check: str = "full", image_format: str = "keep") -> None:
    config = ConvertConfig(
        images=str(folder),
        labels=str(folder / "labels.txt"),
        charset="alnum",
        output=str(output),
        check=check,
        image_format=image_format,
    )
    convert.convert(config)


def _take(batches: Iterator, lines: int) -> None:
    for _ in range(lines // _BATCH):
        next(batches)


@contextlib.contextmanager
def _lines() -> Iterator[tuple[pathlib.Path, Charset]]:
    """Renders JPEG files of 32x280 pixels, and makes many links to each."""
    with tempfile.TemporaryDirectory() as staging:
        drawn, folder = pathlib.Path(staging) / "drawn", pathlib.Path(staging) / "lines"
        render.render(
            render.RenderConfig(output=str(drawn), count=_DRAWN, min_chars=20, max_chars=20, width=_WIDTH, degrade="scan")
        )
        folder.mkdir()
        rows = [row.split("\t") for row in (drawn / "labels.txt").read_text("utf-8").splitlines()]
        with open(folder / "labels.txt", "w", encoding="utf-8") as labels:
            for copy in range(_COPIES):
                for name, text in rows:
                    os.link(drawn / name, folder / f"{copy}-{name}")
                    labels.write(f"{copy}-{name}\t{text}\n")
        yield folder, charsets.charset_by_name("alnum")


def _original(folder: pathlib.Path, charset: Charset) -> Iterator[tuple[np.ndarray, list[list[int]]]]:
    """Reads like confusing-ctc: one file after another with Pillow, into one float64 array that is reused."""
    rows = [row.split("\t") for row in (folder / "labels.txt").read_text("utf-8").splitlines()]
    labels = {text: charset.encode(text) for _, text in rows}
    pixels = np.zeros((_BATCH, HEIGHT, _WIDTH, 1))
    while True:
        for start in range(0, len(rows) - _BATCH + 1, _BATCH):
            chunk = rows[start : start + _BATCH]
            for index, (name, _) in enumerate(chunk):
                grey = np.asarray(Image.open(folder / name).convert("L"), np.float32)
                pixels[index] = (grey / 128.0 - 1.0)[:, :, np.newaxis]
            yield pixels, [labels[text] for _, text in chunk]


def _textbook(folder: pathlib.Path, raw: bool) -> tf.data.Dataset:
    """Reads like the tutorials of tf.data: parses and decodes one record after another."""
    features = {f"image/{key}": tf.io.FixedLenFeature([], tf.string) for key in ("encoded", "text")}

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        encoded = example["image/encoded"]
        image = tf.io.decode_raw(encoded, tf.uint8) if raw else tf.io.decode_image(encoded, 1, expand_animations=False)
        grey = tf.reshape(image, [HEIGHT, _WIDTH, 1])
        return tf.cast(grey, tf.float32) / 128.0 - 1.0, tf.strings.unicode_decode(example["image/text"], "UTF-8")

    shards = sorted(map(str, folder.glob("*.tfrecord-*")))
    return tf.data.TFRecordDataset(shards).map(parse).padded_batch(_BATCH).repeat()
