"""The input pipeline: from shards to batches."""

import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf

from ocr import images
from ocr.charset import Charset, describe
from tfrecords import reader, schema
from tfrecords.errors import InputError, IntegrityError
from tfrecords.manifest import Manifest

_SHUFFLED = 10_000  # lines that a training batch is drawn from
_SAMPLED = 32  # lines of a batch of a sample
_SCANNED = 1_024  # records parsed at a time where no image is decoded


@dataclasses.dataclass(frozen=True)
class Lines:
    """One split of records."""

    folder: pathlib.Path
    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        """Names the records themselves, wherever they lie."""
        digests = "".join(shard.sha256 for shard in self.manifest.shards)
        return hashlib.sha256(digests.encode("ascii")).hexdigest()

    def check_writable_with(self, charset: Charset) -> None:
        """Makes sure that the alphabet has every character of the texts.

        Raises:
          InputError: it lacks one; the message names it.
        """
        if lacking := charset.missing(self.manifest.characters):
            raise InputError(f"{self.folder}: the alphabet lacks {describe(lacking)} of split {self.manifest.split}")


@contextlib.contextmanager
def naming_damage(*splits: Lines) -> Iterator[None]:
    """Turns TensorFlow's word that something is wrong with some record into the name of the shard, and the record.

    Raises:
      IntegrityError: a record could not be read.
    """
    try:
        yield
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        for lines in splits:
            for shard in lines.manifest.shards:
                path = lines.folder / shard.file
                with open(path, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                        raise IntegrityError(f"{path}: damaged, its sha256 is not the one in its manifest") from error
                for number, serialized in enumerate(tf.data.TFRecordDataset(str(path)), 1):
                    if wrong := _fault(serialized, set(lines.manifest.characters)):
                        raise IntegrityError(f"{path}: record {number}: {wrong}") from error
        raise


def _fault(serialized: tf.Tensor, characters: set[str]) -> str:
    """Says what is wrong with a record, or nothing."""
    try:
        record = _parse_one(serialized)
        text = record["text"].numpy().decode("utf-8")
        if lacking := "".join(sorted(set(text) - characters)):
            return f"its text has {describe(lacking)}, which its manifest does not list"
        (_raw(record) if record["format"] == schema.RAW else images.decode(record["encoded"])).numpy()
    except UnicodeDecodeError:
        return "its text is not UTF-8, or it is no record"
    except tf.errors.OpError as error:
        return f"cannot be read ({str(error).splitlines()[0][:200]})"
    return ""


def find(spec: str, prefer: str) -> Lines:
    """Finds the split that a flag names: see `tfrecords.reader.find`.

    Raises:
      InputError: there is none, or no line in it.
      IntegrityError: it is damaged.
    """
    lines = Lines(*reader.find(spec, prefer))
    if not lines.manifest.records:
        raise InputError(f"{spec}: split {lines.manifest.split} has no lines")
    return lines


def unfit(lines: Lines, pixels_per_frame: int) -> list[str]:
    """Returns the names of the lines that are too long for a network of such frames."""
    if pixels_per_frame <= lines.manifest.pixels_per_frame:
        return []  # the converter has seen to it
    names = []
    for batch in reader.records(lines.folder, lines.manifest).batch(_SCANNED).map(schema.parse, tf.data.AUTOTUNE):
        names += tf.boolean_mask(batch["filename"], ~_fits(batch, pixels_per_frame)).numpy().tolist()
    return [name.decode("utf-8", "replace") for name in names]


def training_batches(lines: Lines, charset: Charset, batch_size: int, pixels_per_frame: int, seed: int) -> tf.data.Dataset:
    """Returns shuffled batches without end, of the lines that fit the network.

    Args:
      lines: the split.
      charset: that has all their characters.
      batch_size: B.
      pixels_per_frame: of the network.
      seed: of the order.

    Returns:
      Dicts of `pixels` uint8[B, 32, W], `width` int32[B] in pixels, `labels` int32[B, N], `label_lengths` int32[B],
      `text` and `filename` string[B]. Pixels and labels are padded with 0.
    """
    records = _shuffled(lines, pixels_per_frame, seed)
    return _batches(records.repeat(), charset, batch_size)


def _shuffled(lines: Lines, pixels_per_frame: int, seed: int) -> tf.data.Dataset:
    """Returns the records of the lines that fit the network, each once, in another order each time."""
    shards = tf.data.Dataset.from_tensor_slices([str(lines.folder / shard.file) for shard in lines.manifest.shards])
    shards = shards.shuffle(len(lines.manifest.shards), seed=seed)
    records = shards.interleave(tf.data.TFRecordDataset, cycle_length=4)
    if pixels_per_frame > lines.manifest.pixels_per_frame:
        fitting = records.batch(_SCANNED).map(lambda some: tf.boolean_mask(some, _fits(schema.parse(some), pixels_per_frame)))
        records = fitting.unbatch()
    return records.shuffle(min(_SHUFFLED, lines.manifest.records), seed=seed)


def evaluation_batches(lines: Lines, charset: Charset, batch_size: int) -> tf.data.Dataset:
    """Returns every line once, in the order of the records, in batches like those of `training_batches`."""
    return _batches(reader.records(lines.folder, lines.manifest), charset, batch_size)


def image_files(lines: Lines, batch_size: int) -> tf.data.Dataset:
    """Returns every line once as the image file it was made from (raw pixels as a PNG of them), its name and its text."""

    def as_file(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        record = _parse_one(serialized)
        png = lambda: tf.io.encode_png(_raw(record)[:, :, tf.newaxis])  # noqa: E731
        encoded = tf.cond(record["format"] == schema.RAW, png, lambda: record["encoded"])
        return encoded, record["filename"], record["text"]

    records = reader.records(lines.folder, lines.manifest)
    return records.map(as_file, tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def sample(lines: Lines, charset: Charset, pixels_per_frame: int, count: int) -> list[dict[str, tf.Tensor]]:
    """Returns small batches of lines that fit the network, drawn at random, each line once: `count`, or all there are."""
    return list(_batches(_shuffled(lines, pixels_per_frame, seed=0).take(count), charset, _SAMPLED))


def zero_ids(lines: Lines) -> int:
    """Returns how many lines were rejected because their labels hold the id 0, which no character has."""
    path = lines.folder / f"{lines.manifest.name}-{lines.manifest.split}.rejects.tsv"
    if not lines.manifest.rejects.get("id_out_of_range") or not path.is_file():
        return 0
    with open(path, encoding="utf-8", errors="replace") as file:
        return sum("\tid_out_of_range\t0;" in line for line in file)


def _batches(records: tf.data.Dataset, charset: Charset, batch_size: int) -> tf.data.Dataset:
    def read(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        record = _parse_one(serialized)
        decoded = lambda: images.to_line(images.decode(record["encoded"]))  # noqa: E731
        pixels = tf.cond(record["format"] == schema.RAW, lambda: _raw(record), decoded)
        return {"pixels": pixels, "width": tf.shape(pixels)[1], "text": record["text"], "filename": record["filename"]}

    def label(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        labels = charset.encode_graph(batch["text"])
        return batch | {"labels": labels.to_tensor(), "label_lengths": tf.cast(labels.row_lengths(), tf.int32)}

    shapes = {"pixels": [images.HEIGHT, None], "width": [], "text": [], "filename": []}
    batches = records.map(read, tf.data.AUTOTUNE).padded_batch(batch_size, shapes)
    return batches.map(label, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _parse_one(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    return {key: value[0] for key, value in schema.parse(serialized[tf.newaxis]).items()}


def _raw(record: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns the pixels of a raw record, uint8[32, W]."""
    with tf.control_dependencies([tf.debugging.assert_positive(record["width"])]):
        return tf.reshape(tf.io.decode_raw(record["encoded"], tf.uint8), [images.HEIGHT, record["width"]])


def _fits(batch: dict[str, tf.Tensor], pixels_per_frame: int) -> tf.Tensor:
    """Says of parsed records whether a network of such frames can align them: bool[B]."""
    points = tf.strings.unicode_decode(batch["text"], "UTF-8").to_tensor(-1)
    needed = tf.reduce_sum(tf.cast(points >= 0, tf.int64), 1)
    needed += tf.reduce_sum(tf.cast((points[:, 1:] == points[:, :-1]) & (points[:, 1:] >= 0), tf.int64), 1)
    return needed <= images.frames(images.scaled_width(batch["height"], batch["width"]), pixels_per_frame)
