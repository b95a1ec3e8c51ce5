import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from rapidfuzz.distance import Levenshtein

from ocr.data import dataset, pipeline
from ocr.model import fusion, ngram_estimate
from ocr.model.recogniser import Recogniser
from ocr.saving import check_export, fusion_weights
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from ocr.synthesis import render


def sequences(seed: int, count: int = 400) -> list[str]:
    """Returns lines of digits, most of which follow from the one before."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        line = [int(rng.integers(10))]
        while len(line) < 30:
            line.append((line[-1] * 3 + 1) % 10 if rng.random() < 0.85 else int(rng.integers(10)))
        lines.append("".join(map(str, line)))
    return lines


@pytest.fixture(scope="module")
def hard(tmp_path_factory) -> list[str]:
    """Two sets of such lines, scanned, so that the recogniser is wrong at times."""
    here = tmp_path_factory.mktemp("hard")
    drawing = {"charset": "digits", "width": 112, "min_chars": 2, "max_chars": 6, "degrade": "scan", "tfrecords": True}
    for seed in (1, 2):
        (here / f"{seed}.txt").write_text("\n".join(sequences(seed)))
        config = {"output": str(here / str(seed)), "corpus": (str(here / f"{seed}.txt"),), "split": "eval", "seed": seed}
        render.render(render.RenderConfig(count=200, **config, **drawing))
    return [str(here / "1"), str(here / "2")]


def character_errors(texts: list[str], truths: list[str]) -> int:
    return sum(Levenshtein.distance(text, truth) for text, truth in zip(texts, truths, strict=True))


def test_the_weights_lower_the_errors_as_much_as_they_say(trained, hard):
    model, charset, *_ = Workdir(trained.workdir).load()
    lm = ngram_estimate.estimate(sequences(0), 2)
    weights, measured = fusion_weights.choose(Recogniser(model, charset), lm, hard[0])
    assert measured["lines"] == 200
    assert 20 < measured["lines_decoded_again"] < 180
    assert measured["cer"] < 0.9 * measured["greedy_cer"]
    plain, fused = Recogniser(model, charset), Recogniser(model, charset, fusion=fusion.Fusion(lm, charset, weights))
    texts: dict[str, list[str]] = {"plain": [], "fused": [], "truth": []}
    for batch in pipeline.evaluation_batches(dataset.find(hard[0], "eval"), charset, 100, 32):
        logits, frames = plain.logits(batch["pixels"], batch["width"])
        for name, read in (("plain", plain.texts(logits, frames)[0]), ("fused", fused.texts(logits, frames)[0])):
            texts[name] += [text.decode() for text in read.numpy()]
        texts["truth"] += [text.decode() for text in batch["text"].numpy()]
    characters = sum(map(len, texts["truth"]))
    assert character_errors(texts["plain"], texts["truth"]) / characters == pytest.approx(measured["greedy_cer"], abs=1e-6)
    assert character_errors(texts["fused"], texts["truth"]) / characters == pytest.approx(measured["cer"], abs=1e-6)


def test_a_language_model_that_avoids_no_error_changes_no_line(trained, hard, monkeypatch: pytest.MonkeyPatch):
    worse = lambda recogniser, ngram, lines: [fusion_weights._Found(0.5, 1.0, np.full(len(lines), 9))]  # noqa: E731
    monkeypatch.setattr(fusion_weights, "_try", worse)
    model, charset, *_ = Workdir(trained.workdir).load()
    weights, measured = fusion_weights.choose(Recogniser(model, charset), ngram_estimate.estimate(["123"], 2), hard[0])
    assert weights == (0.0, 0.0, 0.0)
    assert measured["greedy_cer"] > 0.0
    assert (measured["lines_decoded_again"], measured["cer"]) == (0, measured["greedy_cer"])


def test_a_language_model_is_refused_where_it_has_no_use(invoke, tmp_path: pathlib.Path):
    ngram_estimate.estimate(sequences(0), 2).save(tmp_path / "lm")
    (tmp_path / "cut").write_bytes((tmp_path / "lm").read_bytes()[:-1])
    (tmp_path / "text").write_text("123\n")
    export = ("--workdir=run", "--export_dir=export")
    for arguments, status, message in (
        ((*export, "--lm=lm", "--calibrate=records"), 1, "--lm=lm: needs --decoder=beam, and --calibrate to choose its weight"),
        ((*export, "--lm=lm", "--decoder=beam"), 1, "--lm=lm: needs --decoder=beam, and --calibrate to choose its weight"),
        ((*export, "--lm=none", "--decoder=beam", "--calibrate=records"), 1, "--lm=none: No such file"),
        ((*export, "--lm=text", "--decoder=beam", "--calibrate=records"), 1, "--lm=text: not a file that ocr_lm has written"),
        ((*export, "--lm=cut", "--decoder=beam", "--calibrate=records"), 2, "--lm=cut: damaged; write it again with ocr_lm"),
        (("--format=onnx", "--export_dir=edge", "--lm=lm"), 1, "--lm=lm: not taken with --format=onnx"),
        (("--format=litert", "--export_dir=edge", "--lm=lm"), 1, "--lm=lm: not taken with --format=litert"),
    ):
        done = invoke("ocr_export", *arguments)
        assert done.returncode == status
        assert done.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert {path.name for path in tmp_path.iterdir()} == {"lm", "cut", "text"}


@pytest.mark.slow
def test_an_export_with_a_language_model_keeps_every_promise(
    invoke, last_json, trained, hard, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "text.txt").write_text("\n".join(sequences(0)))
    assert invoke("ocr_lm", "--corpus=text.txt", "--output=lm", "--order=3").returncode == 0
    export = ("ocr_export", f"--workdir={trained.workdir}", "--export_dir=export", f"--calibrate={hard[0]}")
    with monkeypatch.context() as patch:
        patch.setattr(check_export, "inspect", lambda *_: [])
        plain = last_json(invoke(*export))
    fused = last_json(invoke(*export, "--decoder=beam", "--lm=lm"))  # it is checked as it is written
    assert fused["sharpness"] == plain["sharpness"]
    assert fused["bytes"] - plain["bytes"] < 2 * (tmp_path / "lm").stat().st_size + 300_000, "one copy of the table"
    about = json.loads((tmp_path / "export/2/assets.extra/model.json").read_text("utf-8"))
    assert about["language"] == fused["language"]
    refused = invoke("ocr_export", "--format=onnx", "--saved_model=export", "--export_dir=edge")
    assert (refused.returncode, "decodes by beam; only exports with --decoder=greedy" in refused.stderr) == (1, True)

    # On lines that nothing was chosen by: sure ones are read as without, the others better.
    lines, truths = [], []
    for batch in pipeline.image_files(dataset.find(hard[1], "eval"), 50):
        lines += batch["encoded"].numpy().tolist()
        truths += [text.decode() for text in batch["text"].numpy()]
    (texts, confidences, _), (fused_texts, fused_confidences, _) = (
        saved_model.load(tmp_path / "export" / version)(lines) for version in "12"
    )
    sure = np.array(confidences) >= fused["language"]["threshold"]
    assert 20 < sure.sum() < 180
    assert np.array(texts)[sure].tolist() == np.array(fused_texts)[sure].tolist()
    np.testing.assert_array_equal(np.array(confidences)[sure], np.array(fused_confidences)[sure])
    assert character_errors(fused_texts, truths) < character_errors(texts, truths)

    loaded = tf.saved_model.load(str(tmp_path / "export/2"))
    outputs = {name: value.numpy() for name, value in loaded.signatures["detailed"](image_bytes=tf.constant(lines)).items()}
    assert [text.decode() for text in outputs["text"]] == fused_texts
    assert outputs["fused_score"].shape == (200,)
    assert np.isfinite(outputs["fused_score"]).all()
    assert "fused_score" not in loaded.signatures["serving_default"].structured_outputs
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # as TensorFlow Serving runs it
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "export/2"))
        signature = meta.signature_def["detailed"]
        feeds = {signature.inputs["image_bytes"].name: lines}
        other = session.run({name: tensor.name for name, tensor in signature.outputs.items()}, feeds)
    assert other["text"].tolist() == outputs["text"].tolist()
    for name in ("confidence", "fused_score", "char_confidence"):
        np.testing.assert_allclose(other[name], outputs[name], atol=1e-4)
