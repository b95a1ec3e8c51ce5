"""Risk and coverage: how many errors are left if only lines above a confidence are answered, and how many lines those are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_POINTS = 200  # of the curve, at most
_THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)


def measure(confidences: Sequence[float], edits: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    """Computes the risk-coverage curve of a set of lines.

    A threshold t answers the lines with a confidence of at least t, as `ocr_predict --min_confidence=t` does.
    Its coverage is their share of all lines, its risk the error rate on them.

    Source: El-Yaniv and Wiener, 2010, "On the Foundations of Noise-free Selective Classification". The area is that of Geifman,
    Uziel and El-Yaniv, 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers": the mean, over all lines, of
    the risk with the line's own confidence as the threshold.

    Args:
      confidences: of the lines, at least one.
      edits: int64[lines], see `metrics.edit_distances`.
      lengths: int64[lines], characters of their truths.

    Returns:
      `points`: at most 200 of the curve, from the highest confidence to the lowest, where the coverage is 1, each with
      `threshold`, `coverage`, `lines`, `cer` and `line_error`, the share of lines with an edit; `thresholds`: the same at round
      thresholds that a line reaches; `cer_area` and `line_error_area`: the areas under both curves.
    """
    confidence = np.asarray(confidences, np.float64)
    order = np.argsort(-confidence, kind="stable")
    confidence, edits, lengths = confidence[order], edits[order], lengths[order]
    answered = np.arange(1, len(order) + 1)
    cers, line_errors = np.cumsum(edits) / np.maximum(np.cumsum(lengths), 1), np.cumsum(edits > 0) / answered

    def point(threshold: float, lines: int) -> dict[str, Any]:
        return {
            "threshold": float(threshold),  # not rounded, so that it answers the same lines again
            "coverage": round(lines / len(order), 6),
            "lines": lines,
            "cer": round(float(cers[lines - 1]), 6),
            "line_error": round(float(line_errors[lines - 1]), 6),
        }

    # No threshold comes between lines of equal confidence: `counts[n]` lines are as certain as line n or more.
    counts = np.searchsorted(-confidence, -confidence, side="right")
    ends = np.unique(counts)
    shown = ends[np.unique(np.linspace(0, len(ends) - 1, min(_POINTS, len(ends))).round().astype(int))]
    reached = {threshold: int((confidence >= threshold).sum()) for threshold in _THRESHOLDS}
    return {
        "points": [point(confidence[lines - 1], int(lines)) for lines in shown],
        "thresholds": [point(threshold, lines) for threshold, lines in reached.items() if lines],
        "cer_area": round(float(cers[counts - 1].mean()), 6),
        "line_error_area": round(float(line_errors[counts - 1].mean()), 6),
    }
