"""Each benchmark of `ocr_bench` exists, and those of CTC run; their figures are for whoever runs them."""

import importlib
import io
import json
import pathlib
import subprocess

import numpy as np
import pytest
from PIL import Image, ImageOps

from ocr.charset import Charset
from ocr.serving.questions import Score
from ocr.synthesis.fonts import open_fonts
from tfrecords.errors import InputError
from tools import ocr_bench
from tools.benchmarks import ctc, decode, drawn, kept, language, questions, reread, turned, variants


@pytest.mark.parametrize("name", ocr_bench.BENCHES)
def test_every_benchmark_is_a_function(name: str):
    module, function = ocr_bench.BENCHES[name].split(".")
    assert callable(getattr(importlib.import_module(f"tools.benchmarks.{module}"), function))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bench", "alternative"),
    [(ctc.bench_ctc, "tf.nn.ctc_loss, dense"), (decode.bench_decode, "tf.nn.ctc_greedy_decoder")],
    ids=["ctc", "decode"],
)
def test_a_benchmark_gives_the_ratio_to_each_alternative(bench, alternative: str):
    rows = bench(batch=2, frames=9, classes=20, length=3)
    assert alternative in rows
    for row in rows.values():
        assert 0 < row["lowest"] <= row["ratio"] <= row["highest"]
        assert min(row["ours_ms"], row["theirs_ms"]) >= 0


@pytest.mark.slow
def test_the_loss_is_timed_at_several_sizes():
    rows = ctc.bench_sizes(((2, 9, 20, 3), (3, 7, 12, 2)))
    assert {name.split(":")[0] for name in rows} == {"B2 T9 C20 N3", "B3 T7 C12 N2"}
    assert "B3 T7 C12 N2: tf.nn.ctc_loss, sparse" in rows


def row(ours_ms: float) -> dict[str, float]:
    return {"ours_ms": ours_ms, "theirs_ms": 6.0, "ratio": 6 / ours_ms, "lowest": 1.0, "highest": 9.0}


def test_each_setting_is_timed_in_a_process_of_its_own_and_the_change_to_a_kept_run_is_shown(
    invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    class Process:  # what `--settings=both` starts
        returncode = 0

        def __init__(self, line: list[str], **_):
            assert line[1:3] == ["-m", "tools.ocr_bench"]
            assert line[4:] == ["--model=pretrained", "ctc"]
            settings, timed = line[3].removeprefix("--settings="), {"ctc": {"stock": row(times[line[3]])}}
            self.stdout = ["a processor\n", "  a row\n", json.dumps({"settings": {settings: timed}})]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(subprocess, "Popen", Process)
    times = {"--settings=ours": 2.0, "--settings=stock": 4.0}
    first = invoke("ocr_bench", "ctc", "--json=first.json")
    assert first.returncode == 0, first.stderr
    kept = json.loads((tmp_path / "first.json").read_text("utf-8"))
    assert kept == json.loads(first.stdout.splitlines()[-1])
    assert {name: timed["ctc"]["stock"]["ours_ms"] for name, timed in kept["settings"].items()} == {"ours": 2.0, "stock": 4.0}
    assert len(kept["load"]) == 2
    assert first.stdout.count("  a row\n") == 2
    assert "a processor\n" not in first.stdout

    times = {"--settings=ours": 1.0, "--settings=stock": 4.0}
    second = invoke("ocr_bench", "ctc", "--compare=first.json").stdout.splitlines()
    assert "ours, ctc, stock: ours 2.0 to 1.0 ms (-50%), ratio 3.0 to 6.0" in second
    assert "stock, ctc, stock: ours 4.0 to 4.0 ms (+0%), ratio 1.5 to 1.5" in second
    kept["processor"] = "abacus"
    (tmp_path / "first.json").write_text(json.dumps(kept), "utf-8")
    assert "the earlier run was on another processor (abacus)" in invoke("ocr_bench", "ctc", "--compare=first.json").stdout


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": {"ours": {"ctc": {"dense": {}}}}}'])
def test_what_is_no_kept_run_is_refused_before_anything_is_timed(invoke, tmp_path: pathlib.Path, content: str):
    (tmp_path / "kept.json").write_text(content, "utf-8")
    done = invoke("ocr_bench", "ctc", "--compare=kept.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --compare=kept.json: not a file of results that --json wrote\n"


def test_the_area_under_the_curve_and_the_recall_of_a_ranking_are_those_counted_by_hand():
    assert questions.auc(np.array([1.0, 3.0]), np.array([2.0, 1.0, 0.0])) == pytest.approx((1.5 + 3) / 6)
    assert questions.auc(np.array([1.0]), np.array([1.0])) == 0.5
    # Ranked: wrong, wrong, right, wrong, wrong, right, right, wrong. Of the first five, four are wrong, which is 80%.
    wrong = np.array([1, 1, 0, 1, 1, 0, 0, 1], bool)
    order = np.random.default_rng(0).permutation(8)
    assert questions.recall(-np.arange(8.0)[order], wrong[order]) == pytest.approx(4 / 5)
    assert questions.recall(np.arange(2.0), np.array([True, False])) == 0.0


def test_an_alphabet_of_two_characters_has_a_list_of_eight_names():
    class FirstOfAll:
        def __call__(self, files: list[bytes]) -> tuple[list[str], np.ndarray, np.ndarray]:
            return ["000"] * len(files), np.ones(len(files)), np.zeros(len(files), int)

        def score(self, files: list[bytes], texts: list[list[str]]) -> list[Score]:
            assert {*map(len, texts)} == {8}
            return [Score(own.index("000"), np.zeros(8), [], "", 0) for own in texts]

    lines = questions._Lines(Charset("01"), open_fonts(()), ())
    rows = questions._of_a_list(FirstOfAll(), lines, 40)
    wrong = rows["list of 8 names, hard"]["wrong"]
    assert rows == {"list of 8 names, hard": {"lines": 40, "wrong": wrong, "texts": wrong}}
    assert 20 < wrong < 40


@pytest.mark.slow
def test_what_is_allowed_anyway_changes_nothing(trained):
    rows = questions.measure(20, model=str(trained.export), labels=40)
    assert "dates, hard" not in rows  # they have characters that the model lacks
    assert rows["numbers, hard"]["allowed"] == rows["numbers, hard"]["pattern"] == rows["numbers, hard"]["wrong"]
    assert rows["list of 100 names, hard"]["texts"] <= rows["list of 100 names, hard"]["wrong"]
    assert rows["one wrong character, clean"]["auc"] > 0.9
    assert (rows["one wrong character, clean"]["lines"], rows["wrong labels, clean"]["lines"]) == (20, 40)
    assert rows["wrong labels, clean"]["recall"] > 0.5


def test_figures_are_kept_and_compared_too(tmp_path: pathlib.Path):
    def results(wrong: int) -> dict:
        rows = {"dates, hard": {"lines": 10, "wrong": wrong}}
        return {"processor": "abacus", "flags": [], "settings": {"ours": {"questions": rows}}}

    (tmp_path / "kept.json").write_text(json.dumps(results(5)), "utf-8")
    changes = [*kept.changes(kept.load(str(tmp_path / "kept.json")), results(4))]
    assert changes == ["questions, dates, hard: lines 10 to 10, wrong 5 to 4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("questions", "ctc"), "questions: name it alone"),
        (("edge", "ctc"), "edge: name it alone"),
        (("edge",), "edge: needs --data"),
        (("language",), "language: needs --corpus"),
        (("turned", "--audit_lines=-1", "--lines=20"), "--audit_lines=-1: must be 0 to 1000000"),
        (("questions", "--lines=9"), "--lines=9: must be 10 to 1000000"),
        (("questions", "--data=records"), "--data: taken only with language, turned, reread, edge"),
        (("edge", "--data=records", "--corpus=text.txt"), "--corpus: taken only with questions, language, turned, reread"),
        (("ctc", "--lines=20"), "--lines: taken only with questions, language, turned, reread, edge"),
        (("question",), "question: no such benchmark; name one of"),
    ],
)
def test_what_cannot_be_measured_is_refused(invoke, arguments: tuple[str, ...], message: str):
    done = invoke("ocr_bench", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize("text", ["一二三四五", "一一二二三"])
def test_a_wrong_label_has_one_or_two_other_characters(text: str):
    class Letters:
        letters = "一二三四五六七"

        def similar(self, character: str) -> str:
            return "八"

    rng = np.random.default_rng(0)
    changed = [questions._changed(Letters(), text, rng) for _ in range(200)]
    edits = np.array([[sum(a != b for a, b in zip(text, other, strict=True)) for other in others] for others in changed])
    assert (edits[:, :2] == 1).all()
    assert {*edits[:, 2]} == {1, 2}
    assert all(similar.count("八") == 1 and "八" not in random for random, similar, _ in changed)


def test_passages_for_lines_are_in_nothing_that_the_language_model_is_built_from():
    lines = [f"line {number}" for number in range(30_000)] + ["line 7", "line 13000"]
    passages, rest = language.split(lines)
    assert not {*passages} & {*rest}
    assert passages == [line for start in (0, 12_500, 25_000) for line in lines[start : start + 500] if line not in lines[-2:]]
    few_passages, few = language.split(lines[:25])
    assert (few_passages, few) == (["line 0"], lines[1:25])
    with pytest.raises(InputError, match="24 lines of the model's characters; a language model needs at least 25"):
        language.split(lines[:24])


@pytest.mark.parametrize("way", [None, *turned._WAYS["upside down"], *turned._WAYS["on their side"]])
def test_an_image_is_turned_from_the_way_it_is_shown(way: Image.Transpose | None):
    shown = np.random.default_rng(0).integers(0, 256, (20, 60, 3), np.uint8)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(np.rot90(shown)).save(file, "png", exif=exif)
    again = Image.open(io.BytesIO(turned.turn(file.getvalue(), way)))
    expected = Image.fromarray(shown) if way is None else Image.fromarray(shown).transpose(way)
    np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(again).convert("RGB")), np.asarray(expected))


@pytest.mark.slow
def test_turned_lines_are_read_by_the_network_of_any_export(trained):
    data = f"{trained.records}@eval"
    rows = turned.measure(30, model=str(trained.export), data=data)
    ways = ["upright", "upside down", "on their side"]
    assert list(rows) == [f"{kind}, {way}" for kind in ("drawn, clean", "drawn, hard", data) for way in ways]
    assert [row["lines"] for row in rows.values()] == [30] * 9
    assert rows[f"{data}, upright"]["as_shown"] < 0.1
    on_side = rows[f"{data}, on their side"]
    assert on_side["changed"] >= 0.8 * on_side["lines"]  # as in serving/test_turned_lines
    assert on_side["cer"] < on_side["as_shown"] / 4
    assert all(("cpu_1" in row) == name.endswith("upright") for name, row in rows.items())


@pytest.mark.slow
def test_lines_are_read_again_by_the_network_of_any_export(trained):
    data = f"{trained.records}@eval"
    rows = reread.measure(30, model=str(trained.export), data=data)
    assert [*rows] == ["drawn, clean", "drawn, hard", data]
    assert rows[data]["once"] < 0.1
    assert all(row["lines"] == 30 and row["cpu_1"] > 0.5 for row in rows.values())


def test_lines_that_greedy_decoding_is_unsure_of_have_a_row_of_their_own(monkeypatch: pytest.MonkeyPatch):
    greedy, fused = (variants.Reading(texts, np.array([0.9, 0.6, 0.1])) for texts in (["ab", "cx", "yz"], ["ab", "cd", "yf"]))

    class Both:
        def read(self, files: list[bytes]) -> tuple[variants.Reading, variants.Reading]:
            return greedy, fused

        def cpu_ratios(self, files: list[bytes]) -> dict[str, float]:
            return {"cpu_1": 1.5}

    monkeypatch.setattr(drawn, "load", lambda data, most: ([b""] * 3, ["ab", "cd", "ef"]))
    rows = language._compared(Both(), "hard", "records", 0.7, 3)
    assert [(name, row["lines"], row["cer"], row["lm"]) for name, row in rows.items()] == [
        ("hard", 3, 3 / 6, pytest.approx(1 / 6, abs=1e-5)),
        ("hard, unsure", 2, 3 / 4, 1 / 4),
    ]
    assert rows["hard"]["lm_low"] <= rows["hard"]["lm"] <= rows["hard"]["lm_high"]
    assert (rows["hard"]["cpu_1"], "cpu_1" in rows["hard, unsure"]) == (1.5, False)


@pytest.mark.slow
def test_a_language_model_for_any_export_leaves_sure_lines_alone(trained, tmp_path: pathlib.Path):
    rng = np.random.default_rng(0)
    # Most digits are the one after the digit before.
    digits = np.cumsum(np.where(rng.random((600, 12)) < 0.9, 1, rng.integers(0, 10, (600, 12))), axis=1) % 10
    (tmp_path / "corpus.txt").write_text("\n".join("".join(map(str, row)) for row in digits), "utf-8")
    data = f"{trained.records}@eval"
    rows = language.measure(30, corpus=[str(tmp_path / "corpus.txt")], model=str(trained.export), data=data)
    assert rows["chosen"]["lines"] == 45
    assert rows[data]["lines"] == 30  # of 200, at equal distances
    kinds = [kind for kind in rows if kind != "chosen" and not kind.endswith("unsure")]
    assert kinds == ["hard", "clean", "numbers, dates and codes, hard", "random characters, hard", data]
    for kind in ("clean", data):
        assert rows[kind]["cer"] < 0.1
        assert f"{kind}, unsure" in rows or rows[kind]["lm"] == rows[kind]["cer"]
