"""Times the scores of given texts against reading the same lines."""

import pathlib
import time

import numpy as np

from ocr.serving import saved_model
from ocr.synthesis import drawing, fonts, styles

from .timing import Comparison, compare

_LINES = 32
_DIGITS = "0123456789"


def bench_score(model: str) -> Comparison:
    """Times an export on lines of 32x280 pixels: how much longer than reading it takes to score given texts, in CPU time.

    A line has 1 text or 100, of 10 characters each; batches have 1 line or 32.
    """
    font, rng = fonts.Font(""), np.random.default_rng(0)
    lines = [drawing.draw(_DIGITS, font, 32, 280, styles.STYLES["clean"], rng).encoded() for _ in range(_LINES)]
    texts = [_DIGITS, *("".join(rng.choice([*_DIGITS], len(_DIGITS))) for _ in range(99))]
    export = saved_model.load(pathlib.Path(model))
    results: Comparison = {}
    for batch in (1, _LINES):

        def read(batch: int = batch) -> None:
            for start in range(0, _LINES, batch):
                export(lines[start : start + batch])

        def score(count: int, batch: int = batch) -> None:
            for start in range(0, _LINES, batch):
                export.score(lines[start : start + batch], [texts[:count]] * batch)

        others = {
            f"score, 1 text, batch {batch}": lambda score=score: score(1),
            f"score, 100 texts, batch {batch}": lambda score=score: score(100),
        }
        results |= compare(read, others, "scoring", clock=time.process_time)
    return results
