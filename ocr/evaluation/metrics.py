"""How well lines were read: error rates with intervals, calibration of the confidences, and the characters confused."""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

_RESAMPLES = 1000  # bootstrap samples for the intervals
_BINS = 15  # of the calibration error


class LineResult(NamedTuple):
    """What was read of one line.

    Attributes:
      filename: image file of the line.
      truth: its label.
      text: the text that was read.
      confidence: of that text, from 0 to 1.
      width: scaled width in pixels.
      font: font the line was drawn with, empty where that is unknown.
      log_probability: natural logarithm of the probability of the label, minus infinity if the network can never read it; NaN
        if it is not known.
    """

    filename: str
    truth: str
    text: str
    confidence: float
    width: int = 0
    font: str = ""
    log_probability: float = math.nan


def measures(results: Sequence[LineResult]) -> dict[str, Any]:
    """Computes the metrics of a set of lines, each of which counts once.

    Args:
      results: one for each line.

    Returns:
      `lines`, their number; `cer`, the sum of edits over the sum of characters; `line_accuracy`, the share of lines without
      an edit; `cer_interval` and `line_accuracy_interval`, the 95% bootstrap intervals of both; `cer_nfkc` and
      `line_accuracy_nfkc`, both after NFKC normalization and removal of white space on both sides; `calibration_error`, see
      the function of that name.
    """
    truths, texts = [result.truth for result in results], [result.text for result in results]
    edits, lengths = edit_distances(truths, texts), np.array([len(truth) for truth in truths], np.int64)
    nfkc_truths, nfkc_texts = [_nfkc(truth) for truth in truths], [_nfkc(text) for text in texts]
    nfkc_edits = edit_distances(nfkc_truths, nfkc_texts)
    cers, accuracies = [], []
    rng = np.random.default_rng(0)
    for _ in range(_RESAMPLES):
        sample = rng.integers(len(results), size=len(results))
        cers.append(_ratio(edits[sample].sum(), lengths[sample].sum()))
        accuracies.append(float((edits[sample] == 0).mean()))
    bins = calibration_bins([result.confidence for result in results], edits == 0)
    return {
        "lines": len(results),
        "cer": _ratio(edits.sum(), lengths.sum()),
        "cer_interval": _interval(cers),
        "line_accuracy": float((edits == 0).mean()),
        "line_accuracy_interval": _interval(accuracies),
        "cer_nfkc": _ratio(nfkc_edits.sum(), sum(map(len, nfkc_truths))),
        "line_accuracy_nfkc": float((nfkc_edits == 0).mean()),
        "calibration_error": round(calibration_error(bins), 6),
    }


def _nfkc(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def _ratio(edits: float, characters: float) -> float:
    return round(float(edits) / max(float(characters), 1.0), 6)


def _interval(values: list[float]) -> list[float]:
    return [round(float(bound), 6) for bound in np.quantile(values, [0.025, 0.975])]


# ---- calibration ----------------------------------------------------------------------------------------------------------


class CalibrationBin(NamedTuple):
    """Lines of similar confidence.

    Attributes:
      lines: their number.
      confidence: their mean confidence.
      right: the share of them that was read without an edit.
    """

    lines: int
    confidence: float
    right: float


def calibration_bins(confidences: Sequence[float], right: Sequence[bool] | np.ndarray) -> list[CalibrationBin]:
    """Groups lines by confidence, in bins of equal width from 0 to 1; empty bins are dropped."""
    confidence, hits = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    bin_of_line = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return [
        CalibrationBin(int(members.sum()), float(confidence[members].mean()), float(hits[members].mean()))
        for members in (bin_of_line == number for number in range(_BINS))
        if members.any()
    ]


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Returns the expected calibration error: the mean gap, over lines, between confidence and share of correct lines.

    Source: Guo et al., 2017, "On Calibration of Modern Neural Networks". Of lines read with a confidence of 0.9, nine in ten
    should be right.
    """
    total = sum(each.lines for each in bins)
    return sum(each.lines * abs(each.confidence - each.right) for each in bins) / max(total, 1)


# ---- edits ----------------------------------------------------------------------------------------------------------------


def edit_distances(truths: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Returns int64[lines]: the fewest insertions, deletions and substitutions of characters between truth and text."""
    return np.array([Levenshtein.distance(truth, text) for truth, text in zip(truths, texts, strict=True)], np.int64)


class Edit(NamedTuple):
    """One difference between what should have been read and what was.

    Attributes:
      place: index of the character in the truth; of an added character, the index it was added before.
      truth: the character that should be there, empty for an added one.
      text: the character that was read, empty for a missing one.
    """

    place: int
    truth: str
    text: str


def alignment(truth: str, text: str) -> list[Edit]:
    """Returns the fewest edits between a truth and a text, in order; of equally short ways the one with substitutions.

    A confusion of two characters is worth more in a report than one missing and another added, and the `editops` of rapidfuzz
    prefer the latter: hence the algorithm itself, of Wagner and Fischer, 1974, "The String-to-String Correction Problem".
    """
    costs = [list(range(len(text) + 1))]
    for i, expected in enumerate(truth):
        above, row = costs[-1], [i + 1]
        for j, read in enumerate(text):
            row.append(min(above[j] + (expected != read), above[j + 1] + 1, row[j] + 1))
        costs.append(row)
    edits, i, j = [], len(truth), len(text)
    while i or j:
        cost = costs[i][j]
        if i and j and cost == costs[i - 1][j - 1] + (truth[i - 1] != text[j - 1]):
            i, j = i - 1, j - 1
            if truth[i] != text[j]:
                edits.append(Edit(i, truth[i], text[j]))
        elif i and cost == costs[i - 1][j] + 1:
            i -= 1
            edits.append(Edit(i, truth[i], ""))
        else:
            j -= 1
            edits.append(Edit(i, "", text[j]))
    return edits[::-1]


def confusions(lines: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Counts the edits of many lines.

    Args:
      lines: truth and text of each.

    Returns:
      For each pair of an expected and a read character, where it occurs, as line number and place in its truth; the most
      frequent pairs come first.
    """
    places: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for number, (truth, text) in enumerate(lines):
        for edit in alignment(truth, text) if truth != text else ():
            places[edit.truth, edit.text].append((number, edit.place))
    return dict(sorted(places.items(), key=lambda item: -len(item[1])))
