"""Packs images and labels into records: every line is read and checked, or rejected with its reason."""

import concurrent.futures
import contextlib
import functools
import os
import pathlib
import sys

import tensorflow as tf

from ocr import charset as charsets
from ocr import parallel, progress
from ocr.charset import Charset
from ocr.config import ConvertConfig
from ocr.data import candidates, labels
from ocr.data.candidates import EncodedRow, PendingImage, Rejected
from ocr.data.labels import Reject
from ocr.images import header_graph, preprocess
from tfrecords import files, schema
from tfrecords.errors import InputError, IntegrityError
from tfrecords.schema import Record
from tfrecords.writer import SplitWriter


def convert(config: ConvertConfig) -> dict:
    """Packs a labels file and the images it names into one split of a folder.

    Returns:
      `records`, `rejects`, `shards` and `reasons`, the rejects by reason.

    Raises:
      InputError: something given cannot be used, no line is usable, or, with `strict`, one is not.
    """
    found, charset = survey(config)
    with open_split(config, found, charset, config.num_shards) as writer:
        if not writer.manifest:
            _pack(config, found, writer)
            finish(config, found, charset, writer)
    return summary(config, writer)


def survey(config: ConvertConfig) -> tuple[labels.Survey, Charset]:
    """Looks through the labels file, and opens the alphabet.

    Raises:
      InputError: something given cannot be used.
    """
    folder, path = pathlib.Path(config.images), pathlib.Path(config.labels)
    charset = charsets.charset_by_name(config.charset)
    if not folder.is_dir():
        raise InputError(f"--images={folder}: no such folder")
    found = labels.survey(path, config.label_format)
    if config.num_shards > found.count:
        raise InputError(f"--num_shards={config.num_shards}: more than the {found.count} lines of {path}")
    return found, charset


def open_split(config: ConvertConfig, found: labels.Survey, charset: Charset, num_shards: int) -> SplitWriter:
    """Returns the writer of the split."""
    provenance = {
        "labels": found.sha256,
        "label_format": found.label_format,
        "alphabet": charset.fingerprint,
        "image_format": config.image_format,
        "pixels_per_frame": config.pixels_per_frame,
        "check": config.check,
        "num_shards": config.num_shards,
    }
    split = (pathlib.Path(config.output), config.name, config.split, charset.file_text())
    return SplitWriter(*split, num_shards, found.count, provenance, config.resume)


def finish(config: ConvertConfig, found: labels.Survey, charset: Charset, writer: SplitWriter) -> None:
    """Finishes the split, if there is anything in it.

    Raises:
      InputError: no line was usable.
      IntegrityError: a line has gone astray.
    """
    if writer.tally.lines != found.count:
        raise IntegrityError(f"{config.labels}: {found.count} lines, and {writer.tally.lines} records and rejects")
    if sum(writer.tally.rejects.values()) == found.count:
        reasons = ", ".join(f"{number} {reason}" for reason, number in writer.tally.rejects.items())
        first = f"; the first: {writer.first_reject.strip()!r}"
        raise InputError(f"{config.labels}: none of its {found.count} lines is usable ({reasons}{first})")
    writer.finish(charset=charset.fingerprint, image_format=config.image_format, pixels_per_frame=config.pixels_per_frame)


def summary(config: ConvertConfig, writer: SplitWriter) -> dict:
    """Returns what `convert` returns, and says where the rejects are."""
    assert writer.manifest
    if rejects := sum(writer.manifest.rejects.values()):
        path = pathlib.Path(config.output) / f"{config.name}-{config.split}.rejects.tsv"
        print(f"{rejects} lines rejected, see {path}", file=sys.stderr)
    return writer.manifest.summary


def reject_row(row: Rejected) -> str:
    """Returns a line of the file of rejects."""
    return f"{row.number}\t{files.escape_cell(row.name)}\t{row.reason}\t{files.escape_cell(row.detail)}\n"


def duplicate(number: int, name: str) -> Rejected:
    """Returns the reject of a line whose image is in the records already."""
    return Rejected(number, name, "duplicate_name", "an earlier line of this name is in the records")


def _pack(config: ConvertConfig, found: labels.Survey, writer: SplitWriter) -> None:
    """Writes what is usable, in the order of the lines, and notes what is not."""
    path, seen = pathlib.Path(config.labels), writer.position
    names = set(writer.caller_state)
    last = [piece.first for piece in found.pieces[1:]]
    pieces = [piece for piece, end in zip(found.pieces, [*last, found.count + 1], strict=True) if end > seen + 1]
    count = config.workers or os.cpu_count() or 1
    as_it_is = config.check == "header" and config.image_format == "keep"  # next to nothing to decode
    # Two cores have enough to do with decoding and writing: processes beside would only carry bytes to and fro.
    readers = count if as_it_is or count > 2 else 1
    read = parallel.in_order(candidates.read, pieces, readers, candidates.prepare, config, found.label_format)
    check = functools.partial(checked, config)
    with (
        concurrent.futures.ThreadPoolExecutor(count + 1) as threads,
        contextlib.closing(read),
        contextlib.closing(parallel.ahead(threads, check, read, count + 1)) as decoded,
        progress.Progress("packing", found.count, "lines", seen) as bar,
    ):
        for rows in map(check, read) if as_it_is else decoded:
            for row in rows:
                number, name = row[:2]
                if number <= seen:
                    continue
                seen = number
                if name in names:
                    row = duplicate(number, name)
                if isinstance(row, Rejected):
                    if config.strict:
                        raise InputError(f"{path}: line {number}: {row.reason}: {row.detail}")
                    writer.reject(reject_row(row), row.reason)
                    continue
                _, _, serialized, text, width = row
                writer.add(serialized, number - 1, text, width)
                if name in found.repeated:
                    names.add(name)
                    writer.caller_state.append(name)
            bar.update(seen)
    if seen != found.count:
        raise InputError(f"{path}: had {found.count} lines, then {seen}; it must not change while it is read")


def checked(config: ConvertConfig, rows: list[EncodedRow | PendingImage | Rejected]) -> list[EncodedRow | Rejected]:
    """Decodes images as the configuration asks for, and makes records of them."""
    keep = config.image_format == "keep"
    kept = [row for row in rows if keep and isinstance(row, PendingImage) and row.channels]
    shapes = dict(zip((row.number for row in kept), _shapes_of([row.encoded for row in kept]), strict=True))
    outcome: list[EncodedRow | Rejected] = []
    for row in rows:
        if not isinstance(row, PendingImage):
            outcome.append(row)
        elif row.number not in shapes:
            outcome.append(_converted(row, config))
        elif shapes[row.number] != (row.height, row.width, row.channels):
            outcome.append(Rejected(row.number, row.name, "undecodable", f"damaged {row.kind.upper()}"))
        else:
            outcome.append(row.packed)
    return outcome


def _shapes_of(encoded: list[bytes]) -> list[tuple[int, ...] | None]:
    """Decodes images; returns the height, width and channels of each, None for one that is damaged."""
    if not encoded:
        return []
    try:
        return [tuple(shape) for shape in _shapes(tf.constant(encoded)).numpy().tolist()]
    except (tf.errors.OpError, UnicodeDecodeError):  # the second where TensorFlow quotes the file's bytes
        if len(encoded) == 1:
            return [None]
        half = len(encoded) // 2
        return _shapes_of(encoded[:half]) + _shapes_of(encoded[half:])


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _shapes(encoded: tf.Tensor) -> tf.Tensor:
    return preprocess.shapes(encoded)


def _converted(row: PendingImage, config: ConvertConfig) -> EncodedRow | Rejected:
    """Makes a record of an image that has to be decoded first, to be kept or to be stored otherwise."""
    kind = row.kind
    as_it_is = config.image_format == "keep" and bool(kind)
    stored = kind if as_it_is else schema.RAW if config.image_format == schema.RAW else schema.PNG
    try:
        try:
            found = _inspect(row.encoded, not as_it_is and stored == schema.PNG)
            height, width, status, line, png, channels = (value.numpy() for value in found)
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            raise Reject("undecodable", f"damaged {(kind or 'image').upper()}") from error
        if status == preprocess.UNDECODABLE:
            raise Reject("undecodable", "not a PNG, JPEG, GIF, or BMP without palette")
        candidates.check_size(kind, int(height), int(width))
        candidates.check_length(row.text, int(height), int(width), config.pixels_per_frame)
    except Reject as reject:
        return Rejected(row.number, row.name, reject.reason, reject.detail)
    scaled = line.shape[1]
    if stored == schema.RAW:
        record = Record(line.tobytes(), stored, preprocess.HEIGHT, scaled, 1, row.text, row.name)
    else:
        encoded = row.encoded if as_it_is else png
        record = Record(encoded, stored, int(height), int(width), int(channels), row.text, row.name)
    return row.number, row.name, record.serialize(), row.text, scaled


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool)], autograph=False)
def _inspect(encoded: tf.Tensor, as_png: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns an image file's height, width, status, line of pixels, itself as a PNG file if asked for, and channels."""
    encoded = header_graph.first_frame(encoded)
    height, width = tf.unstack(header_graph.size(encoded))
    status = preprocess.status(encoded, height, width)

    def decoded() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = preprocess.decode(encoded)
        png = tf.cond(as_png, lambda: tf.io.encode_png(image), lambda: b"")
        return preprocess.to_line(image), png, tf.shape(image)[2]

    nothing = tf.zeros([preprocess.HEIGHT, 1], tf.uint8), tf.constant(b""), tf.constant(0)
    return height, width, status, *tf.cond(status == preprocess.READ, decoded, lambda: nothing)
