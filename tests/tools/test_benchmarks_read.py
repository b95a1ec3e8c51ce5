import shutil

import pytest

from ocr.evaluation import evaluate
from tools.benchmarks import peers, read


def test_the_accuracy_of_the_model_is_that_of_ocr_eval(trained, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    rows = read.accuracy(str(trained.records), str(trained.export))
    report = evaluate.evaluate(trained.export, str(trained.records))
    assert list(rows) == ["ours"]
    assert {key: rows["ours"][key] for key in ("cer_nfkc", "line_accuracy", "lines")} == {
        key: report[key] for key in ("cer_nfkc", "line_accuracy", "lines")
    }


@pytest.mark.skipif(not peers.has_tesseract(), reason="Tesseract with its model for simplified Chinese is not installed")
def test_tesseract_reads_each_file_as_one_line(trained):
    files = [path.read_bytes() for path in sorted((trained.lines / "eval").glob("*.png"))[:3]]
    texts = peers.tesseract(files)
    assert len(texts) == 3
    assert any(texts)
