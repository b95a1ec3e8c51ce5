"""The input pipeline: from shards to batches, parsed and decoded a batch at a time."""

from collections.abc import Iterator

import tensorflow as tf

from ocr.charset import Charset
from ocr.data import dataset, sampling
from ocr.data.dataset import Mixture, Split
from ocr.images import augment, preprocess
from tfrecords import reader, schema

_MOST_LINES = 10_240  # of a window, from which batches are drawn
_MOST_BYTES = 32 * 2**20  # of the same
_AHEAD = 8  # batches
_SAMPLED = 32  # lines of a batch of a sample
_WIDTHS = 40  # pixels: batches are as wide as a multiple of it, since each new width costs the kernels time to prepare
_OTHERS = 4  # of so many frames beside each character's one is drawn for their loss

# Its graphs hold no Python control flow, and looking for it takes seconds.
_in_plain_graphs = tf.autograph.experimental.do_not_convert


@_in_plain_graphs
def training_batches(
    data: Mixture,
    charset: Charset,
    batch_size: int,
    pixels_per_frame: int,
    seed: int,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
    strength: float = 0.0,
    with_addons: bool = False,
    middles: bool = False,
) -> tf.data.Dataset:
    """Returns shuffled batches without end, of the lines that fit the network; those of a batch are of like width.

    Each is a function of the seed and of the number of its step, so that it takes no longer to begin with a late one.

    Args:
      data: the lines.
      charset: that has all their characters.
      batch_size: B, over all workers.
      pixels_per_frame: of the network.
      seed: of the order, and of the augmentation.
      start: number of the first step, from 0.
      share: (i, n) for the part of each batch that worker i of n has, counting from 0; it decodes no other.
      strength: of the augmentation; 0 for none.
      with_addons: whether it takes TensorFlow Addons: see `augment.augment`.
      middles: whether the characters' middles are wanted.

    Returns:
      Dicts of `pixels` uint8[B, 32, W], `width` int32[B] in pixels, `labels` int32[B, N], `label_lengths` int32[B],
      `text`, `filename` and `font` string[B]. Pixels and labels are padded with 0. If they are wanted, there are `middles`
      int32[B, N] in pixels, -1 beyond a line's end and where they are not known, and `draws` float32[B, K], random numbers from
      0 to 1. They raise OpError where a record is damaged: see `sets.naming_damage`.
    """
    index, workers = share
    begin, end = index * batch_size // workers, (index + 1) * batch_size // workers
    size = _window(data, batch_size)
    shares = sampling.allocate(data.weights, size)
    tables = [reader.blocks(part.folder, part.manifest) for part in data.parts]
    in_window = size // batch_size
    only_raw = all(part.manifest.image_format == schema.RAW for part in data.parts)

    def records_of(number: int, window: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Returns records of a set, and where in them the window begins."""
        length = int(shares[number])
        fitting = data.fitting[number]
        blocks, before = sampling.window_blocks(fitting, window * length, length, seed + number)
        record = schema.parse(reader.read(tables[number], blocks), middles)
        if fitting.sum() < tables[number].records.sum():
            fits = dataset.fit(record, pixels_per_frame)
            record = {key: tf.ragged.boolean_mask(value, fits) for key, value in record.items()}
        return record, before

    def load(window: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns the records of a window, with some before and behind it, and of each batch which of them are in it and how
        wide it is."""
        found = [records_of(number, window) for number in range(len(tables))]
        first = tf.cumsum([tf.size(record["text"], tf.int64) for record, _ in found], exclusive=True)
        lines = [first[n] + before + tf.range(int(shares[n]), dtype=tf.int64) for n, (_, before) in enumerate(found)]
        wanted, record = tf.concat(lines, 0), found[0][0]
        if len(found) > 1:
            record = {key: tf.concat([one[key] for one, _ in found], 0) for key in record}
        widths = tf.gather(preprocess.scaled_width(record["height"], record["width"]), wanted)
        rows = sampling.batches(widths, batch_size, tf.stack([tf.constant(seed, tf.int64), window]))
        widest = -(-tf.cast(tf.reduce_max(tf.gather(widths, rows), axis=1), tf.int32) // _WIDTHS) * _WIDTHS
        return record, tf.gather(wanted, rows)[:, begin:end], widest

    def share_out(record: dict[str, tf.Tensor], rows: tf.Tensor, widest: tf.Tensor) -> tf.data.Dataset:
        chosen = tf.data.Dataset.from_tensor_slices((rows, widest))
        return chosen.map(lambda row, width: ({key: tf.gather(value, row) for key, value in record.items()}, width))

    def finish(step: tf.Tensor, chosen: tuple[dict[str, tf.Tensor], tf.Tensor]) -> dict[str, tf.Tensor]:
        record, widest = chosen
        batch = _batch(record, charset, only_raw)
        # All workers' parts are as wide: batch norm sees the padding.
        batch["pixels"] = tf.pad(batch["pixels"], [[0, 0], [0, 0], [0, widest - tf.shape(batch["pixels"])[2]]])
        drawn = tf.stack([seed + step, tf.constant(index, tf.int64)])
        if middles:
            batch["middles"] = _middles(record, batch["label_lengths"])
            shape, apart = -(-tf.shape(batch["labels"]) // [1, _OTHERS]), tf.random.experimental.stateless_fold_in(drawn, 2)
            batch["draws"] = tf.ensure_shape(tf.random.stateless_uniform(shape, apart), [None, None])
        if strength:
            batch["pixels"] = augment.augment(batch["pixels"], batch["width"], strength, drawn, with_addons)
        return batch

    windows = tf.data.Dataset.range(start // in_window, tf.int64.max)
    records = windows.map(load).prefetch(1).flat_map(share_out).skip(start % in_window)
    return records.enumerate(start).map(finish, tf.data.AUTOTUNE).prefetch(_AHEAD)


def _window(data: Mixture, batch_size: int) -> int:
    """Returns how many lines are mixed at a time: a multiple of the batch size, at least a line of each set, and otherwise no
    more than there are."""
    size = sum(shard.bytes for part in data.parts for shard in part.manifest.shards) / data.records
    most = min(_MOST_LINES, int(_MOST_BYTES / size), data.count)
    return max(most // batch_size, -(-len(data.parts) // batch_size)) * batch_size


@_in_plain_graphs
def evaluation_batches(data: Split, charset: Charset, batch_size: int) -> tf.data.Dataset:
    """Returns every line once, in the order of the records, in batches like those of `training_batches`."""
    only_raw = data.manifest.image_format == schema.RAW
    batches = _in_order(data, batch_size).map(lambda record: _batch(record, charset, only_raw), tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)


@_in_plain_graphs
def image_files(data: Split, batch_size: int) -> tf.data.Dataset:
    """Returns every line once, in the order of the records, in batches of dicts.

    They have `encoded` string[B], the image file that it was made from (raw pixels as a PNG of them); `text`, `filename`
    and `font` string[B]; and `width` int32[B], scaled.
    """
    return _in_order(data, batch_size).map(_as_files, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def shard_files(path: str) -> Iterator[tuple[str, bytes]]:
    """Yields the names and image files of a file of records, as `image_files` gives them.

    Raises:
      tf.errors.OpError: it is damaged.
    """
    records = tf.data.TFRecordDataset(path).batch(_SAMPLED).map(schema.parse).map(_as_files)
    for batch in records.unbatch().prefetch(_SAMPLED).as_numpy_iterator():
        yield batch["filename"].decode("utf-8", "replace"), batch["encoded"]


def _as_files(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    def one(row: tuple[tf.Tensor, ...]) -> tf.Tensor:
        encoded, kind, width = row
        pixels = lambda: tf.reshape(tf.io.decode_raw(encoded, tf.uint8), [preprocess.HEIGHT, width, 1])  # noqa: E731
        return tf.cond(kind == schema.RAW, lambda: tf.io.encode_png(pixels()), lambda: encoded)

    rows = (record["encoded"], record["format"], record["width"])
    files = tf.map_fn(one, rows, fn_output_signature=tf.TensorSpec([], tf.string))
    width = tf.cast(preprocess.scaled_width(record["height"], record["width"]), tf.int32)
    return {"encoded": files, "width": width} | {key: record[key] for key in ("text", "filename", "font")}


def sample(data: Mixture, charset: Charset, pixels_per_frame: int, count: int) -> list[dict[str, tf.Tensor]]:
    """Returns small batches of lines that fit the network, drawn at random, each line once: `count`, or about all there are."""
    batch_size = min(_SAMPLED, data.count)
    batches = training_batches(data, charset, batch_size, pixels_per_frame, seed=0)
    return list(batches.take(min(count, data.count) // batch_size))


def _in_order(data: Split, batch_size: int) -> tf.data.Dataset:
    """Returns the parsed records of a split, so many at a time."""
    parsed = reader.records(data.folder, data.manifest).map(schema.parse, tf.data.AUTOTUNE)
    return parsed.flat_map(tf.data.Dataset.from_tensor_slices).batch(batch_size)


def _batch(record: dict[str, tf.Tensor], charset: Charset, only_raw: bool) -> dict[str, tf.Tensor]:
    pixels, width = preprocess.read_records(record, only_raw)
    labels = charset.encode_graph(record["text"])
    lengths = tf.cast(labels.row_lengths(), tf.int32)
    batch = {"pixels": pixels, "width": width, "labels": labels.to_tensor(), "label_lengths": lengths}
    return batch | {key: record[key] for key in ("text", "filename", "font")}


def _middles(record: dict[str, tf.Tensor], lengths: tf.Tensor) -> tf.Tensor:
    """Returns the characters' middles in the lines as they are read, int32[B, N], -1 where they are not known."""
    told = record["middles"].row_lengths() == tf.cast(lengths, tf.int64)
    scaled = tf.cast(record["middles"] * preprocess.HEIGHT // record["height"][:, tf.newaxis], tf.int32).to_tensor(-1)
    count = tf.reduce_max(lengths)
    scaled = tf.pad(scaled[:, :count], [[0, 0], [0, tf.maximum(count - tf.shape(scaled)[1], 0)]], constant_values=-1)
    return tf.ensure_shape(tf.where(told[:, tf.newaxis], scaled, -1), [None, None])
