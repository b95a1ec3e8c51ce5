"""What a network is trained on: one split or several, mixed by weight, without the lines that do not fit the network."""

import dataclasses
import hashlib
from collections import Counter

import numpy as np
import tensorflow as tf

from ocr import ctc
from ocr.data import dataset, verify
from ocr.data.dataset import Split
from ocr.images import header, network_input, preprocess
from ocr.images.network_input import FrameSize
from ocr.options import join_paths, parse_weighted
from tfrecords import reader, schema
from tfrecords.errors import InputError


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Splits to train a network on.

    Attributes:
      parts: the splits.
      weights: float64[len(parts)], relative share of each split in a batch.
      frame: size of the network's frames.
      fitting: for each split, how many lines of each block fit the network: int64[K].
      skipped: image names of the lines that do not fit.
    """

    parts: tuple[Split, ...]
    weights: np.ndarray
    frame: FrameSize
    fitting: tuple[np.ndarray, ...]
    skipped: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of lines that fit the network."""
        return sum(int(fits.sum()) for fits in self.fitting)

    @property
    def records(self) -> int:
        """Number of lines."""
        return sum(split.manifest.records for split in self.parts)

    @property
    def characters(self) -> dict[str, int]:
        """How often each character occurs in the texts."""
        return dict(sum((Counter(split.manifest.characters) for split in self.parts), Counter()))

    @property
    def dummy(self) -> dict[str, int] | None:
        """If all of it is dummy data, the parameters it was drawn with."""
        return self.parts[0].manifest.dummy if len(self.parts) == 1 else None

    @property
    def zero_ids(self) -> int:
        """Number of lines that were rejected because their label has the id 0, which no character has."""
        return sum(map(_zero_ids, self.parts))

    @property
    def fingerprint(self) -> str:
        """Identifies the records and their weights, wherever they are stored."""
        if len(self.parts) == 1:
            return self.parts[0].fingerprint
        shares = zip(self.parts, self.weights / self.weights.sum(), strict=True)
        text = ",".join(f"{split.fingerprint}:{share:.9f}" for split, share in shares)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def mix(spec: str, frame: FrameSize) -> Mixture:
    """Finds the splits that a flag names.

    Args:
      spec: `DIR`, `DIR@split`, or several with commas in between, each optionally followed by `:WEIGHT`. Without weights all
        lines are equally frequent.
      frame: size of the network's frames.

    Raises:
      InputError: there is no such split, no line fits the network, raw lines have another height, or a weight is invalid.
      IntegrityError: a split is damaged.
    """
    items = [parse_weighted(item) for item in join_paths(spec.split(","))]
    given = [weight for _, weight in items if weight is not None]
    if len(given) not in (0, len(items)):
        raise InputError(f"{spec}: give all of them a weight, as in A:3,B:1, or none")
    parts = tuple(dataset.find(name, "train") for name, _ in items)
    if len({(split.folder.resolve(), split.manifest.split) for split in parts}) < len(parts):
        raise InputError(f"{spec}: the same lines twice; give them a larger weight")
    fitting, skipped = [], []
    for split in parts:
        split.check_line_height(frame.height)
        fits, names = _count_fitting(split, frame)
        if not fits.sum():
            raise InputError(f"{split.folder}: none of its {len(names)} lines fits frames of {frame.width} pixels")
        fitting.append(fits)
        skipped += names
    weights = np.array(given or [fits.sum() for fits in fitting], np.float64)
    return Mixture(parts, weights, frame, tuple(fitting), tuple(skipped))


def _count_fitting(split: Split, frame: FrameSize) -> tuple[np.ndarray, list[str]]:
    """Returns how many lines of each block fit a network of such frames, and the names of those that do not."""
    manifest = split.manifest
    fits = reader.blocks(split.folder, manifest).records.copy()
    max_frames = 2 * max(manifest.lengths) - 1  # that any line needs: those of the longest, if all its characters are equal
    # Widths in the manifest are those of lines 32 pixels high.
    all_fit = frame.width * header.SCALED_HEIGHT <= manifest.pixels_per_frame * frame.height
    narrowest = min(manifest.widths) * frame.height // header.SCALED_HEIGHT - 1
    if all_fit or max_frames <= network_input.frames(narrowest, frame.width):
        return fits, []
    names: list[bytes] = []
    with verify.report_damage(split):
        for block, serialized in enumerate(reader.records(split.folder, manifest)):
            record = schema.parse(serialized)
            unfit = tf.boolean_mask(record["filename"], ~fits_frames(record, frame)).numpy().tolist()
            fits[block] -= len(unfit)
            names += unfit
    return fits, [name.decode("utf-8", "replace") for name in names]


def fits_frames(record: dict[str, tf.Tensor], frame: FrameSize) -> tf.Tensor:
    """Returns for parsed records whether a network of such frames can align them: bool[R]."""
    width = preprocess.scaled_width(record["height"], record["width"], frame.height)
    frames = tf.cast(network_input.frames(width, frame.width), tf.int32)
    code_points = tf.strings.unicode_decode(record["text"], "UTF-8")
    return ctc.feasible(frames, code_points.to_tensor(), tf.cast(code_points.row_lengths(), tf.int32))


def _zero_ids(split: Split) -> int:
    path = split.folder / f"{split.manifest.name}-{split.manifest.split}.rejects.tsv"
    if not split.manifest.rejects.get("id_out_of_range") or not path.is_file():
        return 0
    with open(path, encoding="utf-8", errors="replace") as file:
        return sum("\tid_out_of_range\t0;" in row for row in file)
