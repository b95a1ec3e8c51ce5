"""The whole pipeline on real image files: it learns, and the export reads exactly what the trainer reads."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ocr.data import dataset, pipeline
from ocr.evaluation import evaluate
from ocr.model.recogniser import Recogniser
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model


def test_a_recogniser_learns_to_read(trained):
    assert trained.result["cer"] <= 0.02, trained.result
    assert trained.result["line_accuracy"] >= 0.9
    assert trained.result["steps"] == 300


def test_trainer_saved_model_and_ocr_predict_read_every_line_identically(trained, invoke):
    model, charset, *_ = Workdir(trained.workdir).load()
    held_out = dataset.find(str(trained.records), "eval")
    results, _ = evaluate.Evaluator(Recogniser(model, charset))(pipeline.evaluation_batches(held_out, charset, 16, 32))
    assert len(results) == held_out.manifest.records == 200

    files = [trained.lines / "eval" / result.filename for result in results]
    texts, confidences, statuses = saved_model.load(trained.export)([file.read_bytes() for file in files])
    assert texts == [result.text for result in results]
    np.testing.assert_allclose(confidences, [result.confidence for result in results], atol=1e-3)
    assert not statuses.any()

    done = invoke("ocr_predict", f"--saved_model={trained.export}", *files)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [[str(file), text] for file, text in zip(files, texts, strict=True)]
    truths = dict(line.split("\t") for line in (trained.lines / "eval" / "labels.txt").read_text().splitlines())
    assert [result.truth for result in results] == [truths[file.name] for file in files]


@pytest.mark.parametrize(
    "model", ["run", "export", pytest.param("export/1", marks=pytest.mark.slow)], ids=["training", "export", "version"]
)
def test_ocr_eval_gives_the_same_figures_for_a_training_and_its_export(trained, invoke, last_json, model: str):
    done = invoke("ocr_eval", f"--model={trained.workdir.parent / model}", f"--data={trained.records}")
    assert done.returncode == 0, done.stderr
    figures = last_json(done)
    assert figures["lines"] == 200
    assert figures["cer"] == trained.result["cer"]
    assert figures["line_accuracy"] == trained.result["line_accuracy"]
    low, high = figures["cer_interval"]
    assert low <= figures["cer"] <= high


def test_a_training_leaves_the_promised_files_and_metrics(trained):
    lines = [json.loads(line) for line in (trained.workdir / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == list(range(20, 301, 20))
    figures = {"step", "loss", "learning_rate", "lines_per_second", "input_wait", "gradient_norm"}
    assert all(set(line) == figures for line in training)
    assert all(0 <= line["input_wait"] < 1 and line["lines_per_second"] > 0 for line in training)
    assert training[-1]["loss"] < training[0]["loss"] / 20
    evaluations = [line for line in lines if "cer" in line]
    assert [line["step"] for line in evaluations] == [100, 200, 300]
    assert all({"eval_loss", "cer", "line_accuracy"} <= set(line) for line in evaluations)
    names = {path.name for path in trained.workdir.iterdir()}
    assert {"config.json", "charset.txt", "checkpoints", "best", "metrics.jsonl", "events"} <= names
    tags: dict[str, set[str]] = {}
    for path in (trained.workdir / "events").rglob("*.v2"):
        for event in tf.data.TFRecordDataset(str(path)):
            for value in tf.compat.v1.Event.FromString(event.numpy()).summary.value:
                tags.setdefault(path.parent.name, set()).add(value.tag)
                if value.tag == "lines":
                    width, height, picture = tf.make_ndarray(value.tensor)
                    assert tf.io.decode_png(picture).shape == (int(height), int(width), 3)
    assert {"loss", "cer", "learning_rate", "gradient_norm", "lines"} <= tags["events"]
    assert tags["uniform"] == tags["entropy"] == {"loss"}
