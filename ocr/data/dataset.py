"""Sets of lines on disk: what a training, an evaluation or the doctor reads."""

import contextlib
import dataclasses
import hashlib
import pathlib
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ocr.charset import Charset, describe
from ocr.images import preprocess
from ocr.options import parse_weighted
from tfrecords import reader, schema, shards
from tfrecords.errors import InputError, IntegrityError
from tfrecords.manifest import Manifest


@dataclasses.dataclass(frozen=True)
class Split:
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


def find(spec: str, prefer: str) -> Split:
    """Finds the split that a flag names: see `tfrecords.reader.find`.

    Raises:
      InputError: there is none, or no line in it.
      IntegrityError: it is damaged.
    """
    lines = Split(*reader.find(spec, prefer))
    if not lines.manifest.records:
        raise InputError(f"{spec}: split {lines.manifest.split} has no lines")
    return lines


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One or several sets of lines to train a network on.

    Attributes:
      parts: the sets.
      weights: how much of each there is to be in a batch, float64[len(parts)].
      fitting: of each part, how many lines of each block fit the network, int64[K].
      left_out: names of the lines that do not.
    """

    parts: tuple[Split, ...]
    weights: np.ndarray
    fitting: tuple[np.ndarray, ...]
    skipped: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many lines fit the network."""
        return sum(int(lines.sum()) for lines in self.fitting)

    @property
    def records(self) -> int:
        return sum(lines.manifest.records for lines in self.parts)

    @property
    def characters(self) -> dict[str, int]:
        """How often each character occurs in the texts."""
        return dict(sum((Counter(lines.manifest.characters) for lines in self.parts), Counter()))

    @property
    def dummy(self) -> dict[str, int] | None:
        """How its random lines were drawn, if all of it is that."""
        return self.parts[0].manifest.dummy if len(self.parts) == 1 else None

    @property
    def zero_ids(self) -> int:
        """How many lines were rejected because their labels hold the id 0, which no character has."""
        return sum(map(_zero_ids, self.parts))

    @property
    def fingerprint(self) -> str:
        """Names the records themselves, and their weights, wherever they lie."""
        if len(self.parts) == 1:
            return self.parts[0].fingerprint
        each = zip(self.parts, self.weights / self.weights.sum(), strict=True)
        told = ",".join(f"{lines.fingerprint}:{weight:.9f}" for lines, weight in each)
        return hashlib.sha256(told.encode("ascii")).hexdigest()


def mix(spec: str, pixels_per_frame: int) -> Mixture:
    """Finds the sets of lines that a flag names.

    Args:
      spec: `DIR`, `DIR@split`, or several with commas in between, each perhaps with `:WEIGHT` behind it. Without weights every
        line comes equally often.
      pixels_per_frame: of the network.

    Raises:
      InputError: there is none, no line fits the network, or a weight is none.
      IntegrityError: one is damaged.
    """
    named = [parse_weighted(item) for item in ([spec] if pathlib.Path(spec).is_dir() else spec.split(","))]
    given = [weight for _, weight in named if weight is not None]
    if len(given) not in (0, len(named)):
        raise InputError(f"{spec}: give all of them a weight, as in A:3,B:1, or none")
    parts = tuple(find(name, "train") for name, _ in named)
    if len({(lines.folder.resolve(), lines.manifest.split) for lines in parts}) < len(parts):
        raise InputError(f"{spec}: the same lines twice; give them a larger weight")
    fitting, skipped = [], []
    for lines in parts:
        fits, names = _fitting(lines, pixels_per_frame)
        if not fits.sum():
            raise InputError(f"{lines.folder}: none of its {len(names)} lines fits frames of {pixels_per_frame} pixels")
        fitting.append(fits)
        skipped += names
    weights = np.array(given or [fits.sum() for fits in fitting], np.float64)
    return Mixture(parts, weights, tuple(fitting), tuple(skipped))


def _fitting(lines: Split, pixels_per_frame: int) -> tuple[np.ndarray, list[str]]:
    """Returns how many lines of each block fit a network of such frames, and the names of those that do not."""
    told = lines.manifest
    fits = reader.blocks(lines.folder, told).records.copy()
    longest = 2 * max(told.lengths) - 1  # frames, if all its characters are equal
    if pixels_per_frame <= told.pixels_per_frame or longest <= preprocess.frames(min(told.widths), pixels_per_frame):
        return fits, []
    names: list[bytes] = []
    with naming_damage(lines):
        for block, records in enumerate(reader.records(lines.folder, told)):
            record = schema.parse(records)
            unfit = tf.boolean_mask(record["filename"], ~fit(record, pixels_per_frame)).numpy().tolist()
            fits[block] -= len(unfit)
            names += unfit
    return fits, [name.decode("utf-8", "replace") for name in names]


def fit(record: dict[str, tf.Tensor], pixels_per_frame: int) -> tf.Tensor:
    """Says of parsed records whether a network of such frames can align them: bool[R]."""
    points = tf.strings.unicode_decode(record["text"], "UTF-8").to_tensor(-1)
    needed = tf.reduce_sum(tf.cast(points >= 0, tf.int64), 1)
    needed += tf.reduce_sum(tf.cast((points[:, 1:] == points[:, :-1]) & (points[:, 1:] >= 0), tf.int64), 1)
    return needed <= preprocess.frames(preprocess.scaled_width(record["height"], record["width"]), pixels_per_frame)


def _zero_ids(lines: Split) -> int:
    path = lines.folder / f"{lines.manifest.name}-{lines.manifest.split}.rejects.tsv"
    if not lines.manifest.rejects.get("id_out_of_range") or not path.is_file():
        return 0
    with open(path, encoding="utf-8", errors="replace") as file:
        return sum("\tid_out_of_range\t0;" in line for line in file)


@contextlib.contextmanager
def naming_damage(*parts: Split) -> Iterator[None]:
    """Turns TensorFlow's word that something is wrong with some record into the name of the shard, and the record.

    Raises:
      IntegrityError: a record could not be read.
    """
    try:
        yield
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        for lines in parts:
            for shard in lines.manifest.shards:
                if wrong := damage(lines.folder / shard.file, shard, lines.manifest):
                    raise IntegrityError(wrong) from error
        raise


def damage(path: pathlib.Path, shard: shards.Shard, split: Manifest, images_too: bool = True) -> str:
    """Says what is wrong with a shard, or nothing.

    Args:
      path: where it lies.
      shard: what its manifest says of it.
      split: the manifest.
      images_too: whether to decode every image.
    """
    try:
        found = shards.describe(path, shard.file)
    except OSError as error:
        return f"{path}: {error.strerror}"
    except IntegrityError as error:
        return str(error)
    for what in ("bytes", "records", "sha256", "offsets", "checks"):
        now, was = getattr(found, what), getattr(shard, what)
        if now != was:
            told = f"{now}, its manifest says {was}" if what in ("bytes", "records") else "not what its manifest says"
            return f"{path}: damaged, its {what} is {told}"
    if not images_too:
        return ""
    number = 0
    for some in tf.data.TFRecordDataset(str(path)).batch(shards.BLOCK):
        if _fault(some, split):  # now find out whose
            for place, serialized in enumerate(some, number + 1):
                if wrong := _fault(serialized[tf.newaxis], split):
                    return f"{path}: record {place}: {wrong}"
        number += len(some)
    return ""


def _fault(serialized: tf.Tensor, split: Manifest) -> str:
    """Says what is wrong with some records, string[R], or nothing."""
    try:
        record = schema.parse(serialized)
        text = b"".join(record["text"].numpy()).decode("utf-8")
        if lacking := "".join(sorted(set(text) - split.characters.keys())):
            return f"its text has {describe(lacking)}, which its manifest does not list"
        _decoded(record, split.image_format == schema.RAW)
    except UnicodeDecodeError:
        return "its text is not UTF-8, or it is no record"
    except tf.errors.OpError as error:
        cause = re.search(r"\n([^\n]+)\n\s*\[\[", str(error)) or re.search(r"(.*)", str(error))
        return f"cannot be read ({cause[1][:200] if cause else ''})"
    return ""


@tf.function(reduce_retracing=True, autograph=False)
def _decoded(record: dict[str, tf.Tensor], only_raw: bool) -> tf.Tensor:
    return preprocess.read_records(record, only_raw)[0]
