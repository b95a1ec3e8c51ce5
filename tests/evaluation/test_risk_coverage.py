import numpy as np
import pytest

from ocr.evaluation import risk_coverage


def test_a_curve_worked_out_by_hand():
    # Two lines are equally certain: no threshold answers one without the other.
    measured = risk_coverage.measure([0.2, 0.9, 0.5, 0.9], np.array([2, 1, 0, 0]), np.array([2, 5, 10, 5]))
    assert [tuple(point.values()) for point in measured["points"]] == [
        (0.9, 0.5, 2, 0.1, 0.5),
        (0.5, 0.75, 3, 0.05, 0.333333),
        (0.2, 1.0, 4, 0.136364, 0.5),
    ]
    assert measured["cer_area"] == pytest.approx((0.1 + 0.1 + 0.05 + 3 / 22) / 4, abs=1e-6)
    assert measured["line_error_area"] == pytest.approx((0.5 + 0.5 + 1 / 3 + 0.5) / 4, abs=1e-6)
    rows = [(row["threshold"], row["lines"]) for row in measured["thresholds"]]
    assert rows == [(0.0, 4), (0.5, 3), (0.7, 2), (0.8, 2), (0.9, 2)]


def test_every_point_is_what_its_threshold_answers():
    rng = np.random.default_rng(0)
    confidences = rng.choice(rng.random(700).astype(np.float32), 1000)  # some are equal
    edits, lengths = rng.integers(0, 3, 1000), rng.integers(1, 9, 1000)
    measured = risk_coverage.measure(confidences.tolist(), edits, lengths)
    assert len(measured["points"]) == 200
    assert measured["points"][-1]["coverage"] == 1.0
    for point in measured["points"] + measured["thresholds"]:
        answered = confidences >= point["threshold"]
        assert point["lines"] == answered.sum()
        assert point["coverage"] == pytest.approx(answered.mean(), abs=1e-6)
        assert point["cer"] == pytest.approx(edits[answered].sum() / lengths[answered].sum(), abs=1e-6)
        assert point["line_error"] == pytest.approx((edits[answered] > 0).mean(), abs=1e-6)


def test_the_area_is_small_if_wrong_lines_are_the_least_certain():
    confidences, wrong, lengths = np.linspace(1, 0, 10).tolist(), np.arange(10) >= 8, np.full(10, 4)
    told, hidden = (risk_coverage.measure(confidences, edits.astype(int), lengths) for edits in (wrong, ~wrong))
    assert told["line_error_area"] == pytest.approx((1 / 9 + 2 / 10) / 10, abs=1e-6)
    assert hidden["line_error_area"] == pytest.approx(np.mean([1] * 8 + [8 / 9, 8 / 10]), abs=1e-6)
