"""The input pipeline: from shards to batches, parsed and decoded a batch at a time."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from ocr.charset import Charset
from ocr.data import mixture, sampling
from ocr.data.dataset import Split
from ocr.data.mixture import Mixture
from ocr.images import header, preprocess, record_images
from tfrecords import reader, schema

_MAX_WINDOW_LINES = 10_240
_MAX_WINDOW_BYTES = 32 * 2**20
_PREFETCHED = 8  # batches
_SAMPLE_BATCH = 32  # lines
_WIDTH_STEP = 40  # pixels: batches are padded to a multiple of it, since kernels take time to prepare for each new width
_OTHER_FRAMES = 4  # one of so many frames is drawn for the frame loss, beside each character's own frame

Record = dict[str, tf.Tensor]
Augment = Callable[..., tf.Tensor]  # (pixels uint8[B, H, W], width int32[B], seed=int64[2]) -> pixels of the same shape

# The pipeline's graphs have no Python control flow, and looking for it takes seconds.
_without_autograph = tf.autograph.experimental.do_not_convert


@_without_autograph
def training_batches(
    data: Mixture,
    charset: Charset,
    batch_size: int,
    seed: int,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
    augment: Augment | None = None,
    middles: bool = False,
) -> tf.data.Dataset:
    """Returns endless shuffled batches of the lines that fit the network, each of lines of similar width.

    A batch is a function of the seed and of its step, so that starting at a late step takes no longer.

    Args:
      data: the lines.
      charset: an alphabet that has all their characters.
      batch_size: B, over all workers.
      seed: of the order, and of the augmentation.
      start: number of the first step, from 0.
      share: (i, n) for the part of each batch that belongs to worker i of n, from 0; only that part is decoded.
      augment: changes the pixels of a batch, if given: see `Augment`. The seed differs from step to step.
      middles: whether to return the characters' middles too.

    Returns:
      Dicts of `pixels` uint8[B, H, W], `width` int32[B] in pixels, `labels` int32[B, N], `label_lengths` int32[B],
      `text`, `filename` and `font` string[B]. Pixels and labels are padded with 0. If asked for, there are `middles`
      int32[B, N] in pixels, -1 beyond a line's end and where they are unknown, and `draws` float32[B, K], random numbers from
      0 to 1. Iterating raises OpError if a record is damaged: see `verify.report_damage`.
    """
    worker, workers = share
    begin, end = worker * batch_size // workers, (worker + 1) * batch_size // workers
    only_raw = all(part.manifest.image_format == schema.RAW for part in data.parts)
    window = _Window(data, batch_size, seed, middles)

    def finish(step: tf.Tensor, line_batch: tuple[Record, tf.Tensor]) -> Record:
        record, columns = line_batch
        batch = _batch(record, charset, data.frame.height, only_raw)
        # All workers' parts get the same width, since batch norm sees the padding.
        batch["pixels"] = tf.pad(batch["pixels"], [[0, 0], [0, 0], [0, columns - tf.shape(batch["pixels"])[2]]])
        step_seed = tf.stack([seed + step, tf.constant(worker, tf.int64)])
        if middles:
            batch["middles"] = _scaled_middles(record, batch["label_lengths"], data.frame.height)
            batch["draws"] = _frame_draws(tf.shape(batch["labels"]), step_seed)
        if augment:
            batch["pixels"] = augment(batch["pixels"], batch["width"], seed=step_seed)
        return batch

    windows = tf.data.Dataset.range(start // window.batches, tf.int64.max).map(window.load).prefetch(1)
    batches = windows.flat_map(functools.partial(_split_window, begin=begin, end=end)).skip(start % window.batches)
    return batches.enumerate(start).map(finish, tf.data.AUTOTUNE).prefetch(_PREFETCHED)


@dataclasses.dataclass(frozen=True)
class _Window:
    """The lines that are shuffled together, of all splits of a mixture.

    Attributes:
      data: the mixture.
      batch_size: B.
      seed: of the order.
      middles: whether to parse the characters' middles.
    """

    data: Mixture
    batch_size: int
    seed: int
    middles: bool

    @functools.cached_property
    def batches(self) -> int:
        """Number of batches of a window: with at least one line of each split, and no more lines than there are."""
        parts = self.data.parts
        line_bytes = sum(shard.bytes for part in parts for shard in part.manifest.shards) / self.data.records
        lines = min(_MAX_WINDOW_LINES, int(_MAX_WINDOW_BYTES / line_bytes), self.data.count)
        return max(lines // self.batch_size, -(-len(parts) // self.batch_size))

    @functools.cached_property
    def _lines_of_parts(self) -> np.ndarray:
        return sampling.allocate(self.data.weights, self.batches * self.batch_size)

    def load(self, number: tf.Tensor) -> tuple[Record, tf.Tensor, tf.Tensor]:
        """Reads a window.

        Args:
          number: int64 scalar.

        Returns:
          The records of all blocks that the window's lines are in; int64[batches, B], the records of each batch; and
          int32[batches], the width of each batch in pixels.
        """
        loaded = [self._load_part(part, number) for part in range(len(self.data.parts))]
        records = [record for record, _ in loaded]
        offsets = tf.cumsum([tf.size(record["text"], tf.int64) for record in records], exclusive=True)
        lines = tf.concat(
            [
                offsets[part] + before + tf.range(int(self._lines_of_parts[part]), dtype=tf.int64)
                for part, (_, before) in enumerate(loaded)
            ],
            0,
        )
        record = records[0]
        if len(records) > 1:
            record = {key: tf.concat([one[key] for one in records], 0) for key in record}
        widths = tf.gather(preprocess.scaled_width(record["height"], record["width"], self.data.frame.height), lines)
        rows = sampling.batches(widths, self.batch_size, tf.stack([tf.constant(self.seed, tf.int64), number]))
        columns = tf.cast(tf.reduce_max(tf.gather(widths, rows), axis=1), tf.int32)
        return record, tf.gather(lines, rows), -(-columns // _WIDTH_STEP) * _WIDTH_STEP

    def _load_part(self, part: int, number: tf.Tensor) -> tuple[Record, tf.Tensor]:
        """Returns records of a split, and how many of them come before its lines of the window."""
        split, fitting, length = self.data.parts[part], self.data.fitting[part], int(self._lines_of_parts[part])
        blocks, before = sampling.window_blocks(fitting, number * length, length, self.seed + part)
        table = reader.blocks(split.folder, split.manifest)
        record = schema.parse(reader.read(table, blocks), self.middles)
        if fitting.sum() < table.records.sum():
            fits = mixture.fits_frames(record, self.data.frame)
            record = {key: tf.ragged.boolean_mask(value, fits) for key, value in record.items()}
        return record, before


def _split_window(record: Record, rows: tf.Tensor, columns: tf.Tensor, begin: int, end: int) -> tf.data.Dataset:
    """Returns the batches of a window, rows `begin` to `end` of each, with their widths in pixels."""
    batches = tf.data.Dataset.from_tensor_slices((rows[:, begin:end], columns))
    return batches.map(lambda row, width: ({key: tf.gather(value, row) for key, value in record.items()}, width))


@_without_autograph
def evaluation_batches(data: Split, charset: Charset, batch_size: int, line_height: int) -> tf.data.Dataset:
    """Returns every line once, in the order of the records, in batches as `training_batches` returns them.

    Raises:
      InputError: the lines are stored as raw pixels of another height.
    """
    data.check_line_height(line_height)
    only_raw = data.manifest.image_format == schema.RAW
    batches = _in_order(data, batch_size).map(lambda record: _batch(record, charset, line_height, only_raw), tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)


@_without_autograph
def image_files(data: Split, batch_size: int) -> tf.data.Dataset:
    """Returns every line once, in the order of the records, in batches of dicts.

    They have `encoded` string[B], the line's image file (a PNG if the record holds raw pixels); `text`, `filename` and
    `font` string[B]; and `width` int32[B], the scaled width in pixels.
    """
    return _in_order(data, batch_size).map(_as_files, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def shard_files(path: str) -> Iterator[tuple[str, bytes]]:
    """Yields the names and image files of a file of records, as in `image_files`.

    Raises:
      tf.errors.OpError: it is damaged.
    """
    records = tf.data.TFRecordDataset(path).batch(_SAMPLE_BATCH).map(schema.parse).map(_as_files)
    for batch in records.unbatch().prefetch(_SAMPLE_BATCH).as_numpy_iterator():
        yield batch["filename"].decode("utf-8", "replace"), batch["encoded"]


def _as_files(record: Record) -> Record:
    """Replaces the images of parsed records by image files."""

    def as_file(row: tuple[tf.Tensor, ...]) -> tf.Tensor:
        encoded, kind, height, width = row
        pixels = lambda: tf.reshape(tf.io.decode_raw(encoded, tf.uint8), [height, width, 1])  # noqa: E731
        return tf.cond(kind == schema.RAW, lambda: tf.io.encode_png(pixels()), lambda: encoded)

    rows = tuple(record[key] for key in ("encoded", "format", "height", "width"))
    files = tf.map_fn(as_file, rows, fn_output_signature=tf.TensorSpec([], tf.string))
    width = tf.cast(preprocess.scaled_width(record["height"], record["width"], header.SCALED_HEIGHT), tf.int32)
    return {"encoded": files, "width": width} | {key: record[key] for key in ("text", "filename", "font")}


def sample(data: Mixture, charset: Charset, count: int) -> list[Record]:
    """Returns small batches of about `count` random lines that fit the network, each line at most once."""
    batch_size = min(_SAMPLE_BATCH, data.count)
    batches = training_batches(data, charset, batch_size, seed=0)
    return list(batches.take(min(count, data.count) // batch_size))


def _in_order(data: Split, batch_size: int) -> tf.data.Dataset:
    """Returns the parsed records of a split in batches."""
    parsed = reader.records(data.folder, data.manifest).map(schema.parse, tf.data.AUTOTUNE)
    return parsed.flat_map(tf.data.Dataset.from_tensor_slices).batch(batch_size)


def _batch(record: Record, charset: Charset, line_height: int, only_raw: bool) -> Record:
    """Decodes the images and encodes the texts of parsed records."""
    pixels, width = record_images.read(record, line_height, only_raw)
    labels = charset.encode_graph(record["text"])
    # The loss would take such a line for one that cannot be aligned, and leave it out without a word.
    in_alphabet = tf.debugging.assert_non_negative(labels.flat_values, "a character that is not in the alphabet")
    with tf.control_dependencies([in_alphabet]):
        labels = labels.with_flat_values(tf.identity(labels.flat_values))
    lengths = tf.cast(labels.row_lengths(), tf.int32)
    batch = {"pixels": pixels, "width": width, "labels": labels.to_tensor(), "label_lengths": lengths}
    return batch | {key: record[key] for key in ("text", "filename", "font")}


def _scaled_middles(record: Record, lengths: tf.Tensor, line_height: int) -> tf.Tensor:
    """Returns the characters' middles in pixels of the scaled lines: int32[B, N], -1 where they are unknown."""
    is_known = record["middles"].row_lengths() == tf.cast(lengths, tf.int64)
    scaled = tf.cast(record["middles"] * line_height // record["height"][:, tf.newaxis], tf.int32).to_tensor(-1)
    count = tf.reduce_max(lengths)
    scaled = tf.pad(scaled[:, :count], [[0, 0], [0, tf.maximum(count - tf.shape(scaled)[1], 0)]], constant_values=-1)
    return tf.ensure_shape(tf.where(is_known[:, tf.newaxis], scaled, -1), [None, None])


def _frame_draws(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns random numbers from 0 to 1 for the frame loss: float32[B, K] for labels of shape [B, N]."""
    draws = tf.random.stateless_uniform(-(-shape // [1, _OTHER_FRAMES]), tf.random.experimental.stateless_fold_in(seed, 2))
    return tf.ensure_shape(draws, [None, None])
