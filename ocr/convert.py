"""Packs images and labels into records: every line is read and checked, or rejected with its reason."""

import collections
import concurrent.futures
import itertools
import os
import pathlib
import sys

import numpy as np
import tensorflow as tf

from ocr import charset as charsets
from ocr import headers, images, labels, progress
from ocr.charset import Charset
from ocr.config import ConvertConfig, check_given, check_names, check_range
from ocr.labels import Reject
from tfrecords import files, schema
from tfrecords.errors import InputError
from tfrecords.manifest import Manifest, Tally
from tfrecords.writer import SplitWriter

FIRST_DUMMY_CHARACTER = 0x4E00
_WAITING = 64  # lines read ahead of the writer


def convert(config: ConvertConfig) -> dict:
    """Packs a labels file and the images it names into one split of a folder.

    Returns:
      `records`, `rejects`, `shards` and `reasons`, the rejects by reason.

    Raises:
      InputError: something given cannot be used, no line is usable, or, with `strict`, one is not.
    """
    folder, charset = pathlib.Path(config.images), charsets.named(config.charset)
    if not folder.is_dir():
        raise InputError(f"--images={folder}: no such folder")
    path = pathlib.Path(config.labels)
    count, label_format = labels.survey(path, config.label_format)
    if config.num_shards > count:
        raise InputError(f"--num_shards={config.num_shards}: more than the {count} lines of {path}")
    output = pathlib.Path(config.output)

    reader = _Reader(folder, label_format, charset, config)
    tally, rejects, seen = Tally(), [], 0
    names: set[str] = set()
    with (
        SplitWriter(output, config.name, config.split, charset.file_text(), config.num_shards, count) as writer,
        concurrent.futures.ThreadPoolExecutor(config.workers or os.cpu_count()) as pool,
        progress.Progress("packing", count, "lines") as bar,
    ):
        for line, (outcome, width) in _in_order(pool, reader.read, labels.read(path)):
            name = outcome.name if isinstance(outcome, Reject) else outcome.filename
            if name in names:
                outcome = Reject("duplicate_name", "an earlier line of this name is in the records", name)
            if isinstance(outcome, Reject):
                if config.strict:
                    raise InputError(f"{path}: line {line.number}: {outcome.reason}: {outcome.detail}")
                rejects.append(
                    f"{line.number}\t{files.as_cell(outcome.name)}\t{outcome.reason}\t{files.as_cell(outcome.detail)}\n"
                )
                tally.rejects[outcome.reason] += 1
            else:
                writer.add(outcome.serialize(), line.number - 1)
                tally.add(outcome.text, width)
                names.add(name)
            seen = line.number
            bar.update(seen)
        if seen != count:
            raise InputError(f"{path}: had {count} lines, then {seen}; it must not change while it is read")
        if len(rejects) == count:
            reasons = ", ".join(f"{number} {reason}" for reason, number in tally.rejects.items())
            raise InputError(f"{path}: none of its {count} lines is usable ({reasons}; the first: {rejects[0].strip()!r})")
        manifest = writer.finish(
            "".join(rejects),
            charset=charset.fingerprint,
            image_format=config.image_format,
            pixels_per_frame=config.pixels_per_frame,
            **tally.fields(),
        )
    if rejects:
        print(f"{len(rejects)} lines rejected, see {output / f'{config.name}-{config.split}.rejects.tsv'}", file=sys.stderr)
    return _summary(manifest)


def convert_dummy(
    output: str,
    count: int,
    num_classes: int,
    width: int = 280,
    max_label_length: int = 10,
    seed: int = 0,
    name: str = "lines",
    split: str = "train",
) -> dict:
    """Makes records of random pixels and random labels, each fixed by its number, as the original's dummy data.

    Args:
      output: folder to write to.
      count: of records.
      num_classes: with the blank; the alphabet is made up, from U+4E00 on.
      width: of the images, in pixels; they are 32 high.
      max_label_length: lengths are drawn evenly from 1 to this.
      seed: of the random numbers.
      name: of the data set.
      split: of this part of it.

    Returns:
      As `convert`.

    Raises:
      InputError: a value is out of range, or the folder holds the split already.
    """
    check_names(name, split)
    most = 0xD800 - FIRST_DUMMY_CHARACTER + 1
    check_given(output=output)
    check_range({"dummy": count, "num_classes": num_classes}, dummy=(1, 10**9), num_classes=(2, most))
    check_range({"width": width, "seed": seed}, width=(1, images.MAX_WIDTH), seed=(0, 2**63 - 1))
    check_range({"max_label_length": max_label_length}, max_label_length=(1, width // 2))
    charset = Charset("".join(chr(FIRST_DUMMY_CHARACTER + i) for i in range(num_classes - 1)))
    tally = Tally()
    with (
        SplitWriter(pathlib.Path(output), name, split, charset.file_text()) as writer,
        progress.Progress("drawing", count, "records") as bar,
    ):
        for index in range(count):
            rng = np.random.default_rng((seed, index))
            length = rng.integers(1, max_label_length, endpoint=True)
            text = charset.decode(rng.integers(0, charset.blank, length))
            pixels = rng.bytes(images.HEIGHT * width)
            writer.add(schema.Record(pixels, schema.RAW, images.HEIGHT, width, text, f"{index:09d}").serialize(), index)
            tally.add(text, width)
            bar.update(index + 1)
        dummy = {"num_classes": num_classes, "max_label_length": max_label_length, "seed": seed}
        fits = width // (2 * max_label_length)  # even where all characters of a label are equal
        manifest = writer.finish(
            "",
            charset=charset.fingerprint,
            image_format=schema.RAW,
            pixels_per_frame=fits,
            dummy=dummy,
            **tally.fields(),
        )
    return _summary(manifest)


class _Reader:
    """Makes a record, or a reject, of each line of a labels file."""

    def __init__(self, folder: pathlib.Path, label_format: str, charset: Charset, config: ConvertConfig):
        self._folder, self._real = folder, folder.resolve()
        self._label_format, self._charset, self._config = label_format, charset, config

    def read(self, line: labels.Line) -> tuple[schema.Record | Reject, int]:
        """Returns the record and its scaled width in pixels, or the reject."""
        name = ""
        try:
            name, text = labels.parse(line, self._label_format, self._charset)
            encoded = self._file(name)
            record, width = self._record(name, text, encoded)
            needed = len(text) + labels.repeats(text)
            if needed * self._config.pixels_per_frame > width:
                frames = width / self._config.pixels_per_frame
                raise Reject("too_long", f"needs {needed} frames, {width} pixels of scaled width give {frames:g}")
            return record, width
        except Reject as reject:
            reject.name = reject.name or name
            return reject, 0

    def _file(self, name: str) -> bytes:
        """Reads a file of the folder, and nothing else."""
        path = self._folder / name
        real = os.path.realpath(path)
        if name.startswith("/") or os.path.commonpath([real, self._real]) != str(self._real):
            raise Reject("outside_images", f"{name} is not in {self._folder}")
        try:
            encoded = files.read_at_most(real, images.MAX_BYTES + 1)
        except OSError as error:
            raise Reject("missing_file", error.strerror or "") from error
        if len(encoded) > images.MAX_BYTES:
            raise Reject("too_large", f"at most {images.MAX_BYTES} bytes are read")
        return encoded

    def _record(self, name: str, text: str, encoded: bytes) -> tuple[schema.Record, int]:
        kept = {b"\x89": schema.PNG, b"\xff": schema.JPEG}.get(encoded[:1])
        as_png = self._config.image_format == "png" or kept is None
        try:
            height, width, status, line, png = (value.numpy() for value in _inspect(encoded, as_png))
        except (tf.errors.OpError, UnicodeDecodeError) as error:  # the second where TensorFlow quotes the file's bytes
            raise Reject("undecodable", f"damaged {(kept or 'image').upper()}") from error
        if status == images.TOO_LARGE:
            raise Reject("too_large", f"{width}x{height} pixels")
        if status == images.UNDECODABLE:
            raise Reject("undecodable", "not a PNG, JPEG, GIF, or BMP without palette" if encoded else "no bytes in it")
        scaled = line.shape[1]
        if self._config.image_format == "raw":
            return schema.Record(line.tobytes(), schema.RAW, images.HEIGHT, scaled, text, name), scaled
        if as_png or kept is None:
            encoded, kept = png, schema.PNG
        return schema.Record(encoded, kept, int(height), int(width), text, name), scaled


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool)])
def _inspect(encoded: tf.Tensor, as_png: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns an image file's height, width, status, line of pixels and, if that is asked for, itself as a PNG file."""
    encoded = headers.first_frame(encoded)
    height, width = tf.unstack(headers.size(encoded))
    status = images.status(encoded, height, width)

    def decoded() -> tuple[tf.Tensor, tf.Tensor]:
        image = images.decode(encoded)
        return images.to_line(image), tf.cond(as_png, lambda: tf.io.encode_png(image), lambda: b"")

    nothing = tf.zeros([images.HEIGHT, 1], tf.uint8), tf.constant(b"")
    return height, width, status, *tf.cond(status == images.READ, decoded, lambda: nothing)


def _in_order(pool, read, lines):
    """Yields each line with what `read` made of it, in order; a few are under way at a time."""
    waiting: collections.deque = collections.deque()
    lines = iter(lines)
    for line in itertools.islice(lines, _WAITING):
        waiting.append((line, pool.submit(read, line)))
    while waiting:
        line, future = waiting.popleft()
        yield line, future.result()
        for following in itertools.islice(lines, 1):
            waiting.append((following, pool.submit(read, following)))


def _summary(manifest: Manifest) -> dict:
    return {
        "records": manifest.records,
        "rejects": sum(manifest.rejects.values()),
        "shards": len(manifest.shards),
        "reasons": manifest.rejects,
    }
