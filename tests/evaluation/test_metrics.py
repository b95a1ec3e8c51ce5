import numpy as np
import pytest

from ocr.evaluation import metrics
from ocr.evaluation.metrics import LineResult


def distance(a: str, b: str) -> int:
    """Levenshtein's distance, by its recursion."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def line_results(pairs: list[tuple[str, str]]) -> list[LineResult]:
    return [LineResult(str(i), truth, text, 0.5) for i, (truth, text) in enumerate(pairs)]


def test_edit_distances_are_levenshteins():
    rng = np.random.default_rng(0)
    pairs = [tuple("".join(rng.choice(list("ab中😀"), rng.integers(0, 6))) for _ in range(2)) for _ in range(100)]
    truths, texts = [p[0] for p in pairs], [p[1] for p in pairs]
    assert metrics.edit_distances(truths, texts).tolist() == [distance(a, b) for a, b in pairs]
    assert metrics.edit_distances([], []).tolist() == []
    assert metrics.edit_distances(["", "ab"], ["", ""]).tolist() == [0, 2]


def test_cer_is_edits_over_characters_and_accuracy_counts_lines_without_an_edit():
    measured = metrics.measures(line_results([("abcd", "abcd"), ("abcd", "abxd"), ("ab", "abcd")]))
    assert measured["lines"] == 3
    assert measured["cer"] == pytest.approx(3 / 10)
    assert measured["line_accuracy"] == pytest.approx(1 / 3, abs=1e-6)


def test_cer_nfkc_ignores_character_width_and_spaces_but_nothing_else():
    measured = metrics.measures(line_results([("ＡＢ，１ 2", "AB,12"), ("中国", "中華")]))
    assert measured["cer"] > 0.5
    assert measured["cer_nfkc"] == pytest.approx(1 / 7, abs=1e-6)


def test_intervals_contain_the_value_and_narrow_with_more_lines():
    rng = np.random.default_rng(0)
    few, many = ([("abcdefghij", "abcdefghij" if rng.random() < 0.8 else "abcdefghiX") for _ in range(n)] for n in (100, 2500))
    widths = []
    for pairs in (few, many):
        measured = metrics.measures(line_results(pairs))
        low, high = measured["line_accuracy_interval"]
        assert low < measured["line_accuracy"] < high
        widths.append(high - low)
    # The standard error of a share of 0.8 over 100 lines is 0.04, and falls with the root of their number.
    assert widths[0] == pytest.approx(2 * 1.96 * 0.04, rel=0.25)
    assert widths[1] == pytest.approx(widths[0] / 5, rel=0.3)


def test_calibration_error_by_hand():
    # Ten lines at 0.9 of which eight are right, ten at 0.5 of which five are: off by 0.1 in half of the cases.
    bins = metrics.calibration_bins([0.9] * 10 + [0.5] * 10, [True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)
    assert [each.lines for each in bins] == [10, 10]
    assert metrics.calibration_error(bins) == pytest.approx(0.05)
    assert metrics.calibration_error(metrics.calibration_bins([1.0, 0.0], [True, False])) == 0.0


def test_an_alignment_has_the_fewest_edits_and_they_turn_the_text_into_the_truth():
    rng = np.random.default_rng(0)
    for _ in range(200):
        truth, text = ("".join(rng.choice(list("ab中"), rng.integers(0, 7))) for _ in range(2))
        edits = metrics.alignment(truth, text)
        assert len(edits) == metrics.edit_distances([truth], [text])[0]
        corrected, at = "", 0
        rest = text
        for place, expected, read in edits:
            same = place - at
            assert rest[:same] == truth[at:place]
            corrected += truth[at:place] + expected
            rest, at = rest[same + len(read) :], place + len(expected)
        assert corrected + rest == truth


@pytest.mark.parametrize(
    ("truth", "text", "edits"),
    [
        ("ab", "ba", [(0, "a", "b"), (1, "b", "a")]),
        ("bab", "abb", [(0, "b", "a"), (1, "a", "b")]),
        ("ab", "cab", [(0, "", "c")]),
        ("cab", "ab", [(0, "c", "")]),
    ],
)
def test_an_alignment_prefers_substitutions_to_an_insertion_and_a_deletion(truth: str, text: str, edits: list[tuple]):
    assert metrics.alignment(truth, text) == edits


def test_confusions_are_counted_with_their_places():
    confusions = metrics.confusions([("己巳", "已巳"), ("x", "x"), ("自己", "自已"), ("a", "")])
    assert list(confusions.items()) == [(("己", "已"), [(0, 0), (2, 1)]), (("a", ""), [(3, 0)])]
