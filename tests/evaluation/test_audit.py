import json
import math
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from ocr.data import dataset
from ocr.evaluation import audit
from ocr.evaluation.metrics import LineResult
from ocr.serving import saved_model
from ocr.serving.questions import Score

SHARE = 0.05


def labels_of(folder: pathlib.Path) -> dict[str, str]:
    return dict(row.split("\t") for row in (folder / "labels.txt").read_text().splitlines())


def with_errors(labels: dict[str, str]) -> dict[str, str]:
    """Replaces a digit in each of some labels."""
    rng = np.random.default_rng(0)
    chosen = rng.choice([*labels], round(SHARE * len(labels)), replace=False)
    wrong = {}
    for name in chosen:
        text, place = labels[name], rng.integers(len(labels[name]))
        wrong[name] = text[:place] + str((int(text[place]) + rng.integers(1, 10)) % 10) + text[place + 1 :]
    return wrong


@pytest.fixture
def pack(invoke, tmp_path):
    """Returns a function that packs lines with the labels given."""

    def run(lines: pathlib.Path, labels: dict[str, str]) -> None:
        (tmp_path / "labels.txt").write_text("".join(f"{name}\t{text}\n" for name, text in labels.items()))
        done = invoke(
            "make_tfrecords", f"--images={lines}", "--labels=labels.txt", "--charset=ascii", "--output=noisy", "--check=header"
        )
        assert done.returncode == 0, done.stderr

    return run


def corrections_in(folder: pathlib.Path) -> dict[str, str]:
    return dict(row.split("\t") for row in (folder / "corrections.tsv").read_text().splitlines())


def test_wrong_labels_are_found(trained, pack, invoke, tmp_path, last_json):
    lines = tmp_path / "lines"
    shutil.copytree(trained.lines / "eval", lines)
    Image.fromarray(np.full((32, 96), 255, np.uint8)).save(lines / "blank.png")
    shutil.copy(lines / "000000.png", lines / "letters.png")
    labels = labels_of(lines)
    wrong = with_errors(labels)
    pack(lines, labels | wrong | {"blank.png": "12", "letters.png": "<ab>"})
    done = invoke("ocr_audit", f"--model={trained.export}", "--data=noisy", "--output=audit")
    assert done.returncode == 0, done.stderr
    summary = last_json(done)
    assert summary.pop("wrong_share") == pytest.approx(SHARE, abs=0.01)
    # A model of digits says nothing about letters.
    assert summary == {"lines": len(labels) + 2, "not_judged": 1, "corrections": len(wrong) + 1}
    assert corrections_in(tmp_path / "audit") == {name: labels[name] for name in wrong} | {"blank.png": ""}
    names = [row.split("\t")[0] for row in (tmp_path / "audit" / "audit.tsv").read_text().splitlines()[1:]]
    assert {*names[: len(wrong) + 1]} == {*wrong, "blank.png"}
    assert {*names} == {*labels, "blank.png"}
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert all(f'name="{name}" value="{labels[name]}"' in page for name in wrong)
    again = invoke("ocr_audit", f"--model={trained.export}", "--data=noisy", "--output=audit")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "already there" in again.stderr


@pytest.mark.slow
def test_a_training_is_asked_as_its_export_is(trained):
    split = dataset.find(str(trained.records), "eval")
    read = {line.filename: line for line in audit.read(audit.open_model(trained.workdir), split)}
    names = [*read][:8]
    images = [(trained.lines / "eval" / name).read_bytes() for name in names]
    scores = saved_model.load(trained.export).score(images, [[read[name].truth] for name in names])
    expected = [score.log_probability[0] for score in scores]
    assert [read[name].log_probability for name in names] == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_a_label_and_the_text_read_in_another_size_are_compared_in_the_same_image(trained):
    export, split = saved_model.load(trained.export), dataset.find(str(trained.records), "eval")

    class Surer:
        """Reads another text, and is sure of it."""

        def __call__(self, files: list[bytes]) -> tuple[list[str], np.ndarray, np.ndarray]:
            texts, confidences, statuses = export(files)
            return ["0" + text for text in texts], np.ones_like(confidences), statuses

        def score(self, files: list[bytes], texts: list[list[str]]) -> list[Score]:
            return export.score(files, texts)

    lines = audit.read(Surer(), split)[:8]
    images = [(trained.lines / "eval" / line.filename).read_bytes() for line in lines]
    scores = export.score(images, [[line.truth, line.text] for line in lines])
    expected = np.array([score.log_probability for score in scores])
    assert (expected[:, 0] > expected[:, 1]).sum() >= 6
    np.testing.assert_allclose([line.log_probability for line in lines], expected[:, 0], atol=1e-3)
    np.testing.assert_allclose([line.confidence for line in lines], np.exp(expected[:, 1]), atol=1e-3)


def test_probabilities_obey_bayes_rule_with_the_share_that_they_add_up_to():
    lines = [LineResult("", "12", "12", 0.9, log_probability=math.log(0.9))] * 90
    lines += [LineResult("", "12", "13", 0.6, log_probability=math.log(0.3))] * 6  # hard to read
    lines += [LineResult("", "12", "45", 0.8, log_probability=-20.0), LineResult("", "12", "15", 0.8, log_probability=-9.0)]
    wrong = audit.wrong_probabilities(lines)
    share = wrong.mean()
    for line, p in zip(lines[90:], wrong[90:], strict=True):
        edits = sum(a != b for a, b in zip(line.truth, line.text, strict=True))
        is_right, is_wrong = (1 - share) * math.exp(line.log_probability), share * line.confidence * 100**-edits
        assert p == pytest.approx(is_wrong / (is_right + is_wrong), rel=1e-3)
    assert wrong[:90].max() == 0
    assert wrong[90:96].max() < 0.01
    assert wrong[96] > 0.9


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--folds=1",), "--folds=1: must be 0, or 2 to 100"),
        (("--folds=2", "--model={export}"), "must be the workdir of a training"),
        (("--folds=100", "--data={records}@eval"), "--folds=100: {records} has too few lines"),
        (("--data=nowhere",), "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_audited_is_refused(trained, invoke, tmp_path, flags, message):
    given = [flag.format(export=trained.export, records=trained.records) for flag in flags]
    done = invoke("ocr_audit", f"--model={trained.workdir}", f"--data={trained.records}", "--output=audit", *given)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message.format(records=trained.records) in done.stderr
    assert not (tmp_path / "audit").exists()
    assert not list(tmp_path.glob("audit.folds/run*"))


@pytest.mark.slow
@pytest.mark.proof("audit-proof")
def test_each_half_is_read_by_a_network_trained_on_the_other(trained, pack, invoke, tmp_path, last_json):
    labels = labels_of(trained.lines / "train")
    wrong = with_errors(labels)
    pack(trained.lines / "train", labels | wrong)
    (tmp_path / "run").mkdir()
    shutil.copy(trained.workdir / "charset.txt", tmp_path / "run")
    fields = json.loads((trained.workdir / "config.json").read_text()) | {"steps": 250, "eval_every": 250, "override": True}
    (tmp_path / "run" / "config.json").write_text(json.dumps(fields))
    done = invoke("ocr_audit", "--model=run", "--data=noisy", "--folds=2", "--output=audit")
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "audit" / "audit.tsv").read_text().splitlines()[1:]
    assert len(rows) == last_json(done)["lines"] == len(labels)
    first = {row.split("\t")[0] for row in rows[: len(wrong)]}
    assert len(first & wrong.keys()) >= 0.9 * len(wrong)
    corrected = labels | wrong | corrections_in(tmp_path / "audit")
    assert sum(corrected[name] != labels[name] for name in labels) <= 0.3 * len(wrong)
    folds = [str(tmp_path / "audit.folds" / f"records{fold}") for fold in range(2)]
    held_out, trained_on = ([dataset.find(fold, part).manifest.records for fold in folds] for part in ("eval", "train"))
    assert held_out == trained_on[::-1]
    assert sum(held_out) == len(labels)
