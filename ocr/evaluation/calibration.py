"""Whether confidences mean what they say: of lines read with a confidence of 0.9 nine in ten should be right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BINS = 15


class Bin(NamedTuple):
    """Lines of like confidence.

    Attributes:
      lines: their number.
      confidence: their mean.
      right: the share of them that was read without an edit.
    """

    lines: int
    confidence: float
    right: float


def bins(confidences: Sequence[float], right: Sequence[bool]) -> list[Bin]:
    """Sorts lines into bins of equal width, from 0 to 1; those without a line are left out."""
    confidence, hit = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return [
        Bin(int(own.sum()), float(confidence[own].mean()), float(hit[own].mean()))
        for own in (place == number for number in range(_BINS))
        if own.any()
    ]


def error(found: Sequence[Bin]) -> float:
    """Returns the expected calibration error: how far confidence and share of right lines lie apart, on average over lines
    (Guo et al., 2017, "On Calibration of Modern Neural Networks")."""
    total = sum(each.lines for each in found)
    return sum(each.lines * abs(each.confidence - each.right) for each in found) / max(total, 1)
