"""Makes other lines of the pieces of real ones, so that the network cannot know their texts by heart: see retrain.sh.

usage: recombine_real.py EXPORT IMAGES LABELS OUTPUT COPIES SEED

EXPORT is a model that reads most of the lines, IMAGES a folder of images with meta.tsv (file, repository, licence, source and
others), LABELS a labels file (`file<TAB>text`) of some of them. A line that EXPORT reads right is cut between its characters.
Writes COPIES grey images for each of these to the folder OUTPUT, and OUTPUT/labels.tsv: parts of it and of lines of the same
source, in any order. Half of them are made harder to read, as degrade_real.py does.
"""

import collections
import csv
import dataclasses
import itertools
import multiprocessing
import pathlib
import sys

import numpy as np
from degrade_real import harder
from PIL import Image

from ocr.images.preprocess_numpy import to_line

HEIGHT = 48  # pixels
LONGEST = 14  # characters of a line
ALIKE = 40.0  # grey levels that the backgrounds of neighbouring parts may differ by
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Line:
    """A line that can be cut.

    Attributes:
      levels: uint8[HEIGHT, width].
      text: with N characters.
      cuts: N + 1 columns: character i is between columns i and i + 1 of them.
    """

    levels: np.ndarray
    text: str
    cuts: list[int]

    def part(self, rng: np.random.Generator, most: int) -> tuple[str, np.ndarray]:
        """Returns up to `most` characters in a row, and the columns that they are in."""
        count = int(rng.integers(1, min(len(self.text), most) + 1))
        first = int(rng.integers(len(self.text) - count + 1))
        return self.text[first : first + count], self.levels[:, self.cuts[first] : self.cuts[first + count]]


def cuts(levels: np.ndarray, middles: np.ndarray) -> list[int]:
    """Returns where to cut a line: near the centre between two characters, where there is the least ink."""
    changes = np.abs(np.diff(levels.astype(np.float32), axis=0)).sum(0)
    places = [0]
    for left, right in itertools.pairwise(middles):
        reach = (right - left) / 5
        start, end = int((left + right) / 2 - reach), int((left + right) / 2 + reach) + 1
        places.append(start + int(changes[start:end].argmin()))
    return [*places, levels.shape[1]]


def read(export: str, images: pathlib.Path, labels: list[tuple[str, str]]) -> dict[str, Line]:
    """Reads lines; returns by name those that are read right."""
    import tensorflow as tf

    from ocr.serving import saved_model

    detailed = tf.saved_model.load(str(saved_model.newest_version(pathlib.Path(export)))).signatures["detailed"]
    lines = {}
    for start in range(0, len(labels), _BATCH):
        rows = labels[start : start + _BATCH]
        outputs = detailed(image_bytes=tf.constant([(images / name).read_bytes() for name, _ in rows]))
        starts, ends = outputs["char_start"].numpy(), outputs["char_end"].numpy()
        for row, (name, text) in enumerate(rows):
            if outputs["text"][row].numpy().decode() != text:
                continue
            with Image.open(images / name) as image:
                levels = to_line(np.asarray(image.convert("RGB")), HEIGHT)
                scale = levels.shape[1] / image.width
            middles = (starts[row, : len(text)] + ends[row, : len(text)]) / 2 * scale
            if (np.diff(middles) >= 4).all():
                lines[name] = Line(levels, text, cuts(levels, middles))
    return lines


def recombine(first: Line, others: list[Line], rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """Returns parts of a line and of others with a background as light, in any order, as text and as grey levels."""
    ground = np.median(first.levels)
    alike = [line for line in others if abs(np.median(line.levels) - ground) < ALIKE]
    parts, left = [], int(rng.integers(2, LONGEST + 1))
    while left > 0:
        line = first if not parts else alike[rng.integers(len(alike))]
        parts.append(line.part(rng, left))
        left -= len(parts[-1][0])
    order = rng.permutation(len(parts))
    text = "".join(parts[number][0] for number in order)
    return text, np.concatenate([parts[number][1] for number in order], axis=1)


def _copies(job: tuple[list[Line], int, pathlib.Path, list[int]]) -> str:
    """Writes copies of the lines of a source, and returns their rows of labels.tsv."""
    lines, copies, prefix, seed = job
    rng = np.random.default_rng(seed)
    rows = []
    for first in lines:
        for _ in range(copies):
            text, levels = recombine(first, lines, rng)
            if text != text.strip() or "  " in text:
                continue
            target = prefix.with_name(f"{prefix.name}-{len(rows)}.png")
            image = Image.fromarray(levels)
            (harder(image, rng) if rng.random() < 0.5 else image).save(target)
            rows.append(f"{target.name}\t{text}\n")
    return "".join(rows)


def main(export: str, images: str, labels: str, output: str, copies: str, seed: str) -> None:
    """Writes the lines."""
    source, folder = pathlib.Path(images), pathlib.Path(output)
    rows = [(name, text) for name, text in (row.split("\t", 1) for row in pathlib.Path(labels).read_text("utf-8").splitlines())]
    lines = read(export, source, rows)
    together = collections.defaultdict(list)
    with open(source / "meta.tsv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["file"] in lines:
                together[row["repository"], row["source"]].append(lines[row["file"]])
    folder.mkdir(parents=True)
    jobs = [
        (group, int(copies), folder / f"{number:05}", [int(seed), number]) for number, group in enumerate(together.values())
    ]
    with multiprocessing.get_context("spawn").Pool() as pool:
        (folder / "labels.tsv").write_text("".join(pool.map(_copies, jobs, chunksize=16)), "utf-8")
    print(len(lines), "of", len(rows), "lines were read right and cut")


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    main(*sys.argv[1:])
