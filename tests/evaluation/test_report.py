import json
import re

import numpy as np
import pytest

from ocr.evaluation import calibration, confusions, metrics, report
from ocr.evaluation.metrics import Reading


def lines_of(*pairs: tuple[str, str], font: str = "") -> list[Reading]:
    return [Reading(f"{n}.png", truth, text, 0.9, 280, font) for n, (truth, text) in enumerate(pairs)]


def told(lines: list[Reading]) -> dict:
    return report.facts(lines, metrics.measures(lines))


def test_edits_between_texts_are_as_few_as_can_be_and_lead_from_one_to_the_other():
    rng = np.random.default_rng(0)
    for _ in range(200):
        truth, text = ("".join(rng.choice(list("ab中"), rng.integers(0, 7))) for _ in range(2))
        edits = confusions.between(truth, text)
        assert len(edits) == metrics.edits([truth], [text])[0]
        mended, at = "", 0
        rest = text
        for place, wanted, found in edits:
            same = place - at
            assert rest[:same] == truth[at:place]
            mended += truth[at:place] + wanted
            rest, at = rest[same + len(found) :], place + len(wanted)
        assert mended + rest == truth


def test_confusions_are_counted_with_their_places():
    found = confusions.count([("己巳", "已巳"), ("x", "x"), ("自己", "自已"), ("a", "")])
    assert list(found.items()) == [(("己", "已"), [(0, 0), (2, 1)]), (("a", ""), [(3, 0)])]


def test_calibration_error_by_hand():
    # Ten lines at 0.9 of which eight are right, ten at 0.5 of which five are: off by 0.1 in half of the cases.
    bins = calibration.bins([0.9] * 10 + [0.5] * 10, [True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)
    assert [each.lines for each in bins] == [10, 10]
    assert calibration.error(bins) == pytest.approx(0.05)
    assert calibration.error(calibration.bins([1.0, 0.0], [True, False])) == 0.0


def test_groups_tell_their_own_figures():
    found = told(lines_of(("abcd", "abcx"), ("abc", "abc"), font="One") + lines_of(("abcdefg", "abcdefg"), font="Two"))
    assert [(row["name"], row["lines"], row["cer"]) for row in found["by_font"]] == [("One", 2, 0.142857), ("Two", 1, 0.0)]
    assert [(row["name"], row["lines"]) for row in found["by_length"]] == [("1 to 4", 2), ("5 to 9", 1)]
    assert told(lines_of(("a", "a")))["by_font"] == []


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([("ab", "ab")], "Every line is read"),
        ([("ＡＢ", "AB")] * 5, "forms of one character"),
        ([("abcdef", "abcd")] * 5, "characters left out"),
        ([("abcd", "abcdef")] * 5, "characters added"),
        ([("己a", "已a")] * 5, "Never read: '己'"),
        ([("己a", "已a")] * 5 + [("己", "己")], "'己' .* read as '已'"),
        ([("abcd", "abcx")] * 5, "Confidences are too high"),
    ],
)
def test_it_says_what_to_do(pairs, sentence: str):
    assert any(re.search(sentence, text) for text in told(lines_of(*pairs))["advice"])


def test_the_page_is_complete_in_itself_and_takes_texts_for_what_they_are(trained, command, tmp_path, last_json):
    done = command("ocr_eval", f"--model={trained.export}", f"--data={trained.records}", "--report=report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page)
    found = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert found["figures"] == last_json(done)
    wrong = sum(round(row["lines"] * (1 - row["line_accuracy"])) for row in found["by_length"])
    assert len(found["worst"]) == min(wrong, 50)
    assert page.count("<img") == len(found["worst"]) + sum(len(row["places"]) for row in found["confusions"])
    again = command("ocr_eval", f"--model={trained.export}", f"--data={trained.records}", "--report=report")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "already there" in again.stderr


def test_markup_in_texts_is_shown_not_obeyed(tmp_path):
    lines = lines_of(("<b>&", "<i>&"))
    report.write(tmp_path, "<title>", lines, metrics.measures(lines), lambda wanted: dict.fromkeys(wanted, b"\x89PNG"))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;title&gt;" in page
    assert "<title><title>" not in page
