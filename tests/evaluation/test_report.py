import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from ocr.evaluation import metrics, report
from ocr.evaluation.metrics import LineResult


def line_results(*pairs: tuple[str, str], font: str = "") -> list[LineResult]:
    return [LineResult(f"{n}.png", truth, text, 0.9, 280, font) for n, (truth, text) in enumerate(pairs)]


def contents(lines: list[LineResult]) -> dict:
    return report.contents(lines, metrics.measures(lines))


def test_groups_have_metrics_of_their_own():
    content = contents(
        line_results(("abcd", "abcx"), ("abc", "abc"), font="One") + line_results(("abcdefg", "abcdefg"), font="Two")
    )
    assert [(row["name"], row["lines"], row["cer"]) for row in content["by_font"]] == [("One", 2, 0.142857), ("Two", 1, 0.0)]
    assert [(row["name"], row["lines"]) for row in content["by_length"]] == [("1 to 4", 2), ("5 to 9", 1)]
    assert contents(line_results(("a", "a")))["by_font"] == []


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        pytest.param([("ab", "ab")], "Every line was read correctly", id="no errors"),
        pytest.param([("ＡＢ", "AB")] * 5, "variants of one character", id="full width"),
        pytest.param([("abcdef", "abcd")] * 5, "missing characters", id="missing characters"),
        pytest.param([("abcd", "abcdef")] * 5, "added characters", id="added characters"),
        pytest.param([("己a", "已a")] * 5, "Never read: '己'", id="never read"),
        pytest.param([("己a", "已a")] * 5 + [("己", "己")], "'己' .* read as '已'", id="confused pair"),
        pytest.param([("abcd", "abcx")] * 5, "Confidences are too high", id="overconfident"),
    ],
)
def test_advice_fits_the_errors(pairs: list[tuple[str, str]], sentence: str):
    assert any(re.search(sentence, text) for text in contents(line_results(*pairs))["advice"])


def test_the_page_is_self_contained_and_agrees_with_the_json(trained, invoke, tmp_path, last_json):
    done = invoke("ocr_eval", f"--model={trained.export}", f"--data={trained.records}", "--report=report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page)
    content = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert content["figures"] == last_json(done)
    everything = content["risk_coverage"]["points"][-1]
    assert (everything["coverage"], everything["cer"]) == (1.0, content["figures"]["cer"])
    assert "<h2>Risk and coverage</h2>" in page
    wrong = sum(round(row["lines"] * (1 - row["line_accuracy"])) for row in content["by_length"])
    assert len(content["worst"]) == min(wrong, 50)
    assert page.count("<img") == len(content["worst"]) + sum(len(row["places"]) for row in content["confusions"])
    again = invoke("ocr_eval", f"--model={trained.export}", f"--data={trained.records}", "--report=report")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "already there" in again.stderr


def test_an_export_is_measured_on_blank_lines_too_and_lines_are_shown_as_it_reads_them(trained, invoke, tmp_path, last_json):
    grey = np.full((32, 60), 255, np.uint8)
    Image.fromarray(grey).save(tmp_path / "blank.png")
    grey[8:24, 20:40:8] = 0
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    (tmp_path / "labels.txt").write_text("blank.png\t12\ndeep.png\t0000000\n")
    invoke(
        "make_tfrecords", "--images=.", "--labels=labels.txt", "--charset=digits", "--output=records", "--pixels_per_frame=2"
    )
    done = invoke("ocr_eval", f"--model={trained.export}", "--data=records", "--report=report")
    assert (done.returncode, last_json(done)["lines"]) == (0, 2), done.stderr
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    shown = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    assert any(np.array_equal(Image.open(io.BytesIO(image)), grey) for image in shown)


def test_markup_in_texts_is_escaped(tmp_path):
    lines = line_results(("<b>&", "<i>&"))
    report.write(tmp_path, "<title>", lines, metrics.measures(lines), lambda wanted: dict.fromkeys(wanted, b"\x89PNG"))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;title&gt;" in page
    assert "<title><title>" not in page
