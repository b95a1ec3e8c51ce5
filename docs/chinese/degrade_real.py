"""Makes harder copies of real lines whose text is known: see retrain.sh.

usage: degrade_real.py IMAGES LABELS OUTPUT COPIES SEED

IMAGES is a folder of images, LABELS a labels file (`file<TAB>text`). Writes COPIES grey images of each line to the folder
OUTPUT, and OUTPUT/labels.tsv. Copies have wider or unequal margins, less contrast, other proportions, uneven light, and are
taken again by a worse camera.
"""

import multiprocessing
import pathlib
import sys

import numpy as np
from PIL import Image

from ocr.images.preprocess_numpy import to_line
from ocr.synthesis import background, camera
from ocr.synthesis.styles import STYLES

_CAMERA = STYLES["photo"].world
_TALLEST = 64  # pixels: taller lines are reduced, as the network reduces them anyway


def harder(line: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Returns a grey image of the same text that is harder to read."""
    grey = Image.fromarray(to_line(np.asarray(line.convert("RGB")), min(_TALLEST, line.height)))
    width = grey.width * (rng.uniform(0.75, 1.3) if rng.random() < 0.4 else 1.0)
    levels = np.asarray(grey.resize((max(round(width), 1), grey.height), Image.Resampling.BILINEAR)).astype(np.float32)
    if rng.random() < 0.5:
        levels = with_margins(levels, rng)
    if rng.random() < 0.4:
        levels = levels.mean() + (levels - levels.mean()) * rng.uniform(0.35, 1.0)
    if rng.random() < 0.15:
        levels = 255.0 - levels
    levels += rng.uniform(-30.0, 30.0)
    if rng.random() < 0.3:
        levels = levels * background.light(levels.shape, rng)
    contrast = float(np.subtract(*np.percentile(levels, [95, 5])))
    # The rows of the letters are not known: all but the outer fifth.
    letters = np.zeros(levels.shape, np.uint8)
    letters[levels.shape[0] // 10 : -(levels.shape[0] // 10) or None] = 255
    return camera.take(levels, contrast, letters, _CAMERA, rng)


def with_margins(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Continues the background of a line by up to 0.4 of its height on each side, of some by much more at the ends."""
    top, bottom, left, right = (int(share * levels.shape[0]) for share in rng.uniform(-0.1, 0.4, 4).clip(0.0))
    if rng.random() < 0.25:
        before, after = rng.uniform(-2.5, 4.0, 2).clip(0.0)
        left, right = left + int(before * levels.shape[0]), right + int(after * levels.shape[0])
    if rng.random() < 0.6:
        return np.pad(levels, ((top, bottom), (left, right)), "edge")
    border = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    return np.pad(levels, ((top, bottom), (left, right)), constant_values=np.median(border))


def _copy(job: tuple[pathlib.Path, pathlib.Path, list[int]]) -> None:
    source, target, seed = job
    with Image.open(source) as line:
        harder(line, np.random.default_rng(seed)).save(target)


def main(images: str, labels: str, output: str, copies: str, seed: str) -> None:
    """Writes the copies."""
    folder = pathlib.Path(output)
    folder.mkdir(parents=True)
    rows, jobs = [], []
    for number, row in enumerate(pathlib.Path(labels).read_text("utf-8").splitlines()):
        name, text = row.split("\t", 1)
        for copy in range(int(copies)):
            target = f"{number:05}-{copy}.png"
            rows.append(f"{target}\t{text}\n")
            jobs.append((pathlib.Path(images, name), folder / target, [int(seed), number, copy]))
    with multiprocessing.Pool() as pool:
        pool.map(_copy, jobs, chunksize=64)
    (folder / "labels.tsv").write_text("".join(rows), "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
