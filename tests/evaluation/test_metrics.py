import numpy as np
import pytest

from ocr.evaluation import metrics
from ocr.evaluation.metrics import Reading


def distance(a: str, b: str) -> int:
    """Levenshtein's distance, by its recursion."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def readings(pairs: list[tuple[str, str]]) -> list[Reading]:
    return [Reading(str(i), truth, text, 0.5) for i, (truth, text) in enumerate(pairs)]


def test_edits_are_those_of_levenshtein():
    rng = np.random.default_rng(0)
    pairs = [tuple("".join(rng.choice(list("ab中😀"), rng.integers(0, 6))) for _ in range(2)) for _ in range(100)]
    truths, texts = [p[0] for p in pairs], [p[1] for p in pairs]
    assert metrics.edits(truths, texts).tolist() == [distance(a, b) for a, b in pairs]
    assert metrics.edits([], []).tolist() == []
    assert metrics.edits(["", "ab"], ["", ""]).tolist() == [0, 2]


def test_cer_sums_edits_over_characters_and_counts_whole_lines():
    measured = metrics.measures(readings([("abcd", "abcd"), ("abcd", "abxd"), ("ab", "abcd")]))
    assert measured["lines"] == 3
    assert measured["cer"] == pytest.approx(3 / 10)
    assert measured["line_accuracy"] == pytest.approx(1 / 3, abs=1e-6)


def test_cer_nfkc_forgives_widths_and_spaces_and_nothing_else():
    measured = metrics.measures(readings([("ＡＢ，１ 2", "AB,12"), ("中国", "中華")]))
    assert measured["cer"] > 0.5
    assert measured["cer_nfkc"] == pytest.approx(1 / 7, abs=1e-6)


def test_intervals_are_narrower_with_more_lines_and_hold_the_figure():
    rng = np.random.default_rng(0)
    few, many = ([("abcdefghij", "abcdefghij" if rng.random() < 0.8 else "abcdefghiX") for _ in range(n)] for n in (100, 2500))
    widths = []
    for pairs in (few, many):
        measured = metrics.measures(readings(pairs))
        low, high = measured["line_accuracy_interval"]
        assert low < measured["line_accuracy"] < high
        widths.append(high - low)
    # The standard error of a share of 0.8 over 100 lines is 0.04, and falls with the root of their number.
    assert widths[0] == pytest.approx(2 * 1.96 * 0.04, rel=0.25)
    assert widths[1] == pytest.approx(widths[0] / 5, rel=0.3)
