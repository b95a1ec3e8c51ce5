"""Packs text lines and their images into records; a line that cannot be used is rejected with its reason."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
from collections import Counter
from collections.abc import Callable

import tensorflow as tf

from ocr import parallel, progress
from ocr.charset import Charset
from ocr.data import inputs, line_reader
from ocr.data.convert_config import ConvertConfig
from ocr.data.labels import Reject
from ocr.data.line_index import LabelsIndex
from ocr.data.line_reader import EncodedRow, PendingImage, Rejected
from ocr.images import exif, exif_graph, header, header_graph, preprocess, record_images
from tfrecords import files, schema
from tfrecords.errors import InputError, IntegrityError
from tfrecords.schema import Record
from tfrecords.writer import SplitWriter

_LOG = logging.getLogger(__name__)


def convert(config: ConvertConfig) -> dict:
    """Packs text lines and their images into one split of a folder, or into two with `split_by`.

    Returns:
      `records`, `rejects`, `shards` and `reasons`, the rejects by reason; `reencoded`, if there are any, as in the manifest;
      and with `split_by` the same for each split, by name, as `splits`.

    Raises:
      InputError: an input cannot be used, no line is usable, or, with `strict`, a line is not usable.
    """
    with inputs.open_inputs(config) as (indexes, charset):
        parts = {split: dataclasses.replace(config, split=split, split_by="") for split in indexes}
        # Before the first is packed, which may take hours, the second is known to be free.
        writers = {split: open_split(part, indexes[split], charset, part.num_shards) for split, part in parts.items()}
        summaries = {}
        for split, index in indexes.items():
            with writers[split] as writer:
                if not writer.manifest:
                    _pack(parts[split], index, writer)
                    finish(parts[split], index, charset, writer)
            summaries[split] = summary(parts[split], writer)
    return _sum(summaries) if config.split_by else summaries[config.split]


def _sum(summaries: dict[str, dict]) -> dict:
    """Adds up the summaries of splits."""
    counts = {key: sum(part[key] for part in summaries.values()) for key in ("records", "rejects", "shards")}
    for key in ("reasons", "reencoded"):
        counter = sum((Counter(part.get(key, {})) for part in summaries.values()), Counter())
        counts |= {key: dict(sorted(counter.items()))} if counter or key == "reasons" else {}
    return {**counts, "splits": summaries}


def open_split(config: ConvertConfig, index: LabelsIndex, charset: Charset, num_shards: int) -> SplitWriter:
    """Returns the writer of the split."""
    provenance = {
        "labels": index.sha256,
        "label_format": index.label_format,
        "alphabet": charset.fingerprint,
        "image_format": config.image_format,
        "pixels_per_frame": config.pixels_per_frame,
        "check": config.check,
        "num_shards": config.num_shards,
        # Missing in what older versions wrote.
        **({"height": config.height} if config.height != header.SCALED_HEIGHT else {}),
        **({"follow_links": True} if config.follow_links else {}),
        **({"source": index.source} if index.source else {}),
    }
    split = (pathlib.Path(config.output), config.name, config.split, charset.file_text())
    return SplitWriter(*split, num_shards, index.count, provenance, config.resume)


def finish(config: ConvertConfig, index: LabelsIndex, charset: Charset, writer: SplitWriter) -> None:
    """Finishes the split, once every line is a record or a reject.

    Raises:
      InputError: no line was usable.
      IntegrityError: a line was lost.
    """
    if writer.tally.lines != index.count:
        raise IntegrityError(f"{index.title}: {index.count} lines, and {writer.tally.lines} records and rejects")
    if sum(writer.tally.rejects.values()) == index.count:
        reasons = ", ".join(f"{number} {reason}" for reason, number in writer.tally.rejects.items())
        first = f"; the first: {writer.first_reject.strip()!r}"
        raise InputError(f"{index.title}: none of its {index.count} lines is usable ({reasons}{first})")
    writer.finish(
        charset=charset.fingerprint,
        image_format=config.image_format,
        pixels_per_frame=config.pixels_per_frame,
        height=config.height,
    )


def summary(config: ConvertConfig, writer: SplitWriter) -> dict:
    """Returns what `convert` returns, and logs where the rejects are."""
    assert writer.manifest
    if rejects := sum(writer.manifest.rejects.values()):
        path = pathlib.Path(config.output) / f"{config.name}-{config.split}.rejects.tsv"
        _LOG.warning("%d lines rejected, see %s", rejects, path)
    return writer.manifest.summary


def reject_row(row: Rejected) -> str:
    """Returns a row of the file of rejects."""
    return f"{row.number}\t{files.escape_cell(row.name)}\t{row.reason}\t{files.escape_cell(row.detail)}\n"


def duplicate(number: int, name: str) -> Rejected:
    """Returns the reject of a line whose image an earlier line has."""
    return Rejected(number, name, "duplicate_name", "an earlier line of this image is in the records")


def _pack(config: ConvertConfig, index: LabelsIndex, writer: SplitWriter) -> None:
    """Writes records and rejects, in the order of the lines."""
    seen = writer.position
    packed = set(writer.caller_state)  # images that other lines have too
    ends = [*(chunk.first for chunk in index.chunks[1:]), index.count + 1]
    chunks = [chunk for chunk, end in zip(index.chunks, ends, strict=True) if end > seen + 1]
    position = chunks[0].first - 1 if chunks else seen  # of the line in its split, where the line's number may be higher
    count = config.workers or os.cpu_count() or 1
    keep_undecoded = config.check == "header" and config.image_format == "keep"  # next to nothing to decode
    # Two cores are busy with decoding and writing: more processes would only add copying.
    readers = count if keep_undecoded or count > 2 else 1
    read = parallel.in_order(line_reader.read, chunks, readers, line_reader.prepare, config, index.path, index.label_format)
    encode = functools.partial(encode_rows, config)
    with (
        concurrent.futures.ThreadPoolExecutor(count + 1) as threads,
        contextlib.closing(read),
        contextlib.closing(parallel.ahead(threads, encode, read, count + 1)) as decoded,
        progress.Progress("packing", index.count, "lines", seen) as bar,
    ):
        for rows in map(encode, read) if keep_undecoded else decoded:
            for row in rows:
                position += 1
                if position <= seen:
                    continue
                number, name = row[:2]
                own_name = index.repeated.get(name, "")
                if own_name in packed:
                    row = duplicate(number, name)
                if isinstance(row, Rejected):
                    if config.strict:
                        raise InputError(f"{index.title}: line {number}: {row.reason}: {row.detail}")
                    writer.reject(reject_row(row), row.reason)
                    continue
                _, _, serialized, text, width, reencoded_from = row
                writer.add(serialized, position - 1, text, width, reencoded_from)
                if own_name:
                    packed.add(own_name)
                    writer.caller_state.append(own_name)
            bar.update(position)
    if position != index.count:
        raise InputError(f"{index.title}: had {index.count} lines, then {position}; it must not change while it is read")


def encode_rows(config: ConvertConfig, rows: list[EncodedRow | PendingImage | Rejected]) -> list[EncodedRow | Rejected]:
    """Decodes pending images, and encodes them as the configuration says."""
    keep = config.image_format == "keep"
    kept = [row for row in rows if keep and isinstance(row, PendingImage) and row.channels]
    shapes = dict(zip((row.number for row in kept), _decode_shapes([row.encoded for row in kept]), strict=True))
    encoded: list[EncodedRow | Rejected] = []
    for row in rows:
        if not isinstance(row, PendingImage):
            encoded.append(row)
        elif row.number not in shapes:
            encoded.append(_encode(row, config))
        elif shapes[row.number] != row.stored_shape:
            encoded.append(Rejected(row.number, row.name, "undecodable", f"damaged {row.kind.upper()}"))
        else:
            encoded.append(row.encoded_row)
    return encoded


def _decode_shapes(encoded: list[bytes]) -> list[tuple[int, ...] | None]:
    """Decodes images; returns the height, width and channels of each, None for one that is damaged."""
    if not encoded:
        return []
    try:
        return [tuple(shape) for shape in _shapes(tf.constant(encoded)).numpy().tolist()]
    except (tf.errors.OpError, UnicodeDecodeError):  # the second where TensorFlow quotes the file's bytes
        if len(encoded) == 1:
            return [None]
        half = len(encoded) // 2
        return _decode_shapes(encoded[:half]) + _decode_shapes(encoded[half:])


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _shapes(encoded: tf.Tensor) -> tf.Tensor:
    return record_images.shapes(encoded)


def _encode(row: PendingImage, config: ConvertConfig) -> EncodedRow | Rejected:
    """Decodes an image, and makes a record of it in the format that is to be stored."""
    kind = row.kind
    keep_file = config.image_format == "keep" and bool(kind)
    stored = kind if keep_file else schema.RAW if config.image_format == schema.RAW else schema.PNG
    try:
        try:
            values = _inspect(config.height)(row.encoded, not keep_file and stored == schema.PNG)
            height, width, status, line, png, channels = (value.numpy() for value in values)
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            raise Reject("undecodable", f"damaged {(kind or 'image').upper()}") from error
        if status == preprocess.UNDECODABLE:
            raise Reject("undecodable", "damaged GIF or BMP")
        line_reader.check_size(kind, int(height), int(width))
        line_reader.check_length(row.text, int(height), int(width), config.pixels_per_frame)
    except Reject as reject:
        return Rejected(row.number, row.name, reject.reason, reject.detail)
    if stored == schema.RAW:
        record = Record(line.tobytes(), stored, line.shape[0], line.shape[1], 1, row.text, row.name)
    else:
        # What was decoded for a PNG has been turned already.
        encoded, orientation = (row.encoded, row.orientation) if keep_file else (png, exif.UPRIGHT)
        size = int(height), int(width), int(channels)
        record = Record(encoded, stored, *size, row.text, row.name, orientation=orientation)
    width_scaled = header.scaled_width(record.height, record.width)
    return row.number, row.name, record.serialize(), row.text, width_scaled, row.reencoded_from


@functools.cache
def _inspect(line_height: int) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Returns a graph that decodes an image file; the file's line is scaled to a height."""
    signature = [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool)]
    return tf.function(functools.partial(_decode_file, line_height=line_height), signature, autograph=False)


def _decode_file(encoded: tf.Tensor, as_png: tf.Tensor, line_height: int) -> tuple[tf.Tensor, ...]:
    """Decodes an image file.

    Returns:
      height and width as it is shown, status, the line's pixels, the image as a PNG file if asked for, and the number of
      channels.
    """
    encoded = header_graph.first_frame(encoded)
    orientation = exif_graph.orientation(encoded)
    height, width = tf.unstack(exif_graph.shown(header_graph.size(encoded), orientation))
    status = preprocess.status(encoded, height, width)

    def decoded() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = preprocess.decode(encoded, orientation)
        png = tf.cond(as_png, lambda: tf.io.encode_png(image), lambda: b"")
        return preprocess.to_line(image, line_height), png, tf.shape(image)[2]

    nothing = tf.zeros([line_height, 1], tf.uint8), tf.constant(b""), tf.constant(0)
    return height, width, status, *tf.cond(status == preprocess.READ, decoded, lambda: nothing)
