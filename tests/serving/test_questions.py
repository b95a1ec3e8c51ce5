"""The signatures `score` and `constrained`: through the SavedModel, gRPC, REST, the client and the command line."""

import json
import math
import pathlib
import shutil

import grpc
import numpy as np
import pytest
import tensorflow as tf
from http_and_grpc import b64, post, predict_request
from tensorflow_serving.apis import prediction_service_pb2_grpc

from ocr.serving import questions, saved_model
from ocr.serving.client import Client
from tfrecords.errors import InputError


@pytest.fixture(scope="module")
def export(trained) -> saved_model.Export:
    return saved_model.load(trained.export)


@pytest.fixture(scope="module")
def truths(trained) -> list[str]:
    lines = (trained.lines / "eval" / "labels.txt").read_text().splitlines()
    return [text for _, text in sorted(line.split("\t") for line in lines)]


def test_scores_through_the_export_are_those_of_the_confidences(export, files, truths):
    read, confidences, _ = export(files[:3])
    texts = [[text, "", text[::-1] + "0", "x" + text, "1" * 500] for text in read]
    scores = export.score([*files[:3], b"junk"], [*texts, ["1"]])
    for score, own, confidence in zip(scores, texts, confidences, strict=False):
        assert math.exp(score.log_probability[0]) == pytest.approx(confidence, rel=1e-3)
        assert score.best == np.argmax(score.log_probability)
        assert np.isneginf(score.log_probability[3:]).all()
        assert [len(values) for values in score.agreement] == [*map(len, own)]
        assert not any(values.any() for values in score.agreement[3:])
        assert (score.missing, score.status) == ("", 0)
    bad = scores[3]
    assert (bad.best, bad.log_probability.tolist(), bad.missing, bad.status) == (-1, [-math.inf], "", 1)


@pytest.mark.parametrize("texts", [[""], ["", ""]])
def test_images_asked_only_about_empty_texts_are_answered(export, files, texts: list[str]):
    read, _, _ = export(files[:3])
    among_others = export.score(files[:3], [["12345", ""]] * 3)
    for text, other, score in zip(read, among_others, export.score(files[:3], [texts] * 3), strict=True):
        assert score.log_probability == pytest.approx([other.log_probability[1]] * len(texts), rel=1e-4)
        assert [len(agreement) for agreement in score.agreement] == [0] * len(texts)
        assert (score.best, score.missing, score.status) == (0, text, 0)


def test_a_wrong_character_agrees_least_and_a_lacking_one_is_missing(export, files, truths):
    found = 0
    for file, truth in zip(files[:20], truths, strict=False):
        if export([file])[0] != [truth] or len(truth) < 3:
            continue
        found += 1
        other = str((int(truth[1]) + 5) % 10)
        (score,) = export.score([file], [[truth[0] + truth[2:], truth[0] + other + truth[2:], truth]])
        assert score.best == 2
        assert score.missing == truth[1] or truth[1] in (truth[0], truth[2])
        assert score.agreement[1].argmin() == 1
        assert score.agreement[1][1] < 0.5 < score.agreement[2][1]
    assert found >= 8


def test_rows_that_are_refused_or_not_read_leave_the_others_as_alone(export, files):
    text = np.array([[b"1", b"12"]] * 6, object)
    count = np.array([2, 3, -1, 2, 0, 2], np.int32)
    images = [files[0], files[1], files[2], b"junk", files[3], files[4]]
    outputs = export.predict("score", {"image_bytes": images, "text": text, "count": count})
    assert outputs["status"].tolist() == [0, 4, 4, 1, 0, 0]
    assert [error.decode() for error in outputs["error"]] == [
        "",
        "count: 3 must be 0 to 2, the number of texts",
        "count: -1 must be 0 to 2, the number of texts",
        "",
        "",
        "",
    ]
    assert np.isneginf(outputs["log_probability"][1:5]).all()
    assert outputs["best"][1:5].tolist() == [-1] * 4
    for row in (0, 5):
        (alone,) = export.score([images[row]], [["1", "12"]])
        np.testing.assert_allclose(outputs["log_probability"][row], alone.log_probability, rtol=1e-4)
    patterns = [b"99", b"9\\", b"A+A+", b"99", b"", b"digits"]
    known = {"allowed": [b"12", b"", b"", b"", "é".encode(), b""], "pattern": patterns}
    outputs = export.predict("constrained", {"image_bytes": images, **known})
    assert outputs["status"].tolist() == [0, 4, 4, 1, 4, 0]
    assert [bool(error) for error in outputs["error"]] == [False, True, True, False, True, False]
    assert [bool(text) for text in outputs["text"]] == [True, False, False, False, False, True]
    for row in (0, 5):
        alone = export.constrained([images[row]], known["allowed"][row].decode(), patterns[row].decode())
        assert outputs["text"][row].decode() == alone[0][0]
        assert outputs["confidence"][row] == pytest.approx(alone[1][0], rel=1e-3)
        assert outputs["unconstrained_confidence"][row] == pytest.approx(alone[2][0], rel=1e-3)


def test_constraints_through_the_export(export, files):
    read, confidences, _ = export(files[:8])
    texts, constrained, unconstrained, statuses = export.constrained(files[:8])
    assert (texts, statuses.tolist()) == (read, [0] * 8)
    np.testing.assert_allclose([constrained, unconstrained], [confidences] * 2, rtol=1e-3)
    without = "".join(set("0123456789") - set(read[0][0]))
    (text,), (confidence,), (less,), _ = export.constrained(files[:1], without)
    assert set(text) <= set(without)
    assert confidence > less
    (text,), _, (less,), _ = export.constrained(files[:1], pattern="99999")
    (score,) = export.score(files[:1], [[text]])
    assert len(text) == 5
    assert math.exp(score.log_probability[0]) == pytest.approx(less, rel=1e-3)
    # All texts that fit: confidences are shares of their sum.
    (text,), (confidence,), _, _ = export.constrained(files[:1], "12", "99")
    (score,) = export.score(files[:1], [["11", "12", "21", "22"]])
    shares = np.exp(score.log_probability.astype(np.float64) - score.log_probability.max())
    assert confidence == pytest.approx((shares / shares.sum())[["11", "12", "21", "22"].index(text)], rel=1e-3)


def test_grpc_rest_and_the_client_answer_what_the_export_answers(export, server, files):
    texts = [["1", "23", ""], ["456", "", "7890"]]
    with Client(server.grpc) as client:
        mine, theirs = export.score(files[:2], texts), client.score(files[:2], texts)
        for one, other in zip(mine, theirs, strict=True):
            assert (one.best, one.missing, one.status) == (other.best, other.missing, other.status)
            np.testing.assert_allclose(one.log_probability, other.log_probability, rtol=1e-4)
            np.testing.assert_allclose(np.concatenate(one.agreement), np.concatenate(other.agreement), atol=1e-4)
        assert [len(one.log_probability) for one in client.score(files[:3], [["1"], ["2", "3"], []])] == [1, 2, 0]
        mine, theirs = export.constrained(files[:2], "123", "999"), client.constrained(files[:2], "123", "999")
        assert mine[0] == theirs[0]
        np.testing.assert_allclose(mine[1], theirs[1], atol=1e-4)
        with pytest.raises(InputError, match=r"pattern 9\\: a backslash at its end escapes nothing"):
            client.constrained(files[:1], pattern="9\\")
        with pytest.raises(InputError, match=r"INVALID_ARGUMENT: text: 1001 texts for an image; at most 1000"):
            client.score(files[:1], [[""] * 1001])
        with pytest.raises(InputError, match=r"texts\[1\]: text: one has 1001 characters"):
            client.score(files[:2], [["1"], ["1" * 1001]])

    request = predict_request(files[:2], "score")
    request.inputs["text"].CopyFrom(tf.make_tensor_proto(texts))
    request.inputs["count"].CopyFrom(tf.make_tensor_proto([3, 3]))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    scored = {name: tf.make_ndarray(value) for name, value in stub.Predict(request).outputs.items()}
    np.testing.assert_allclose(
        scored["log_probability"], [score.log_probability for score in export.score(files[:2], texts)], rtol=1e-4
    )
    request.inputs["text"].tensor_shape.dim[1].size = 900
    with pytest.raises(grpc.RpcError, match="text: fewer values than its shape"):
        stub.Predict(request)

    url = f"{server.rest}/v1/models/ocr:predict"
    instances = [{"image_bytes": b64(file), "text": row, "count": 3} for file, row in zip(files, texts, strict=False)]
    status, answer = post(url, {"signature_name": "score", "instances": instances})
    assert status == 200, answer
    np.testing.assert_allclose([row["log_probability"] for row in answer["predictions"]], scored["log_probability"], rtol=1e-4)
    inputs = {"image_bytes": [b64(files[0])], "allowed": ["123"], "pattern": ["999"]}
    status, answer = post(url, {"signature_name": "constrained", "inputs": inputs})
    assert (status, answer["outputs"]["text"]) == (200, mine[0][:1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": ["a"], "count": [1]}, "text: must be a list of lists of strings"),
        ({"text": [["a", 1]], "count": [1]}, "text: must be a list of lists of strings"),
        ({"text": [["a"], ["b", "c"]], "count": [1, 1]}, "text: rows of different lengths"),
        ({"text": [["a"]], "count": ["1"]}, "count: has values that are not int32"),
        ({"text": [["a"]], "count": [1, 2]}, "1 and 2 rows"),
        ({"text": [[""] * 1001], "count": [1]}, "text: 1001 texts for an image; at most 1000 are allowed"),
    ],
)
def test_an_invalid_question_is_refused_with_its_reason(server, files, fields, message):
    body = {"signature_name": "score", "inputs": {"image_bytes": [b64(files[0])], **fields}}
    status, answer = post(f"{server.rest}/v1/models/ocr:predict", body)
    assert status == 400
    assert message in answer["error"]


def test_older_exports_say_in_one_line_that_they_lack_the_signatures(trained, invoke, files, tmp_path):
    def read(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(image_bytes)
        return {"text": tf.fill(shape, "1"), "confidence": tf.ones(shape), "status": tf.zeros(shape, tf.int32)}

    serve = tf.function(read, [tf.TensorSpec([None], tf.string, "image_bytes")])
    tf.saved_model.save(tf.Module(), str(tmp_path / "old" / "1"), signatures={"serving_default": serve})
    assert saved_model.load(tmp_path / "old")(files[:1])[0] == ["1"]
    shutil.copy(sorted((trained.lines / "eval").glob("*.png"))[0], tmp_path / "line.png")
    (tmp_path / "texts.txt").write_text("line.png\t1\n")
    for flags in (["--pattern=9", "line.png"], ["--texts=texts.txt"]):
        done = invoke("ocr_predict", "--saved_model=old", *flags)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert "write it anew with ocr_export" in done.stderr


@pytest.fixture
def texts_file(trained, truths, tmp_path) -> list[str]:
    """Texts of two images and of one that is not there, in the file texts.txt; returns the images' paths."""
    paths = [str(path) for path in sorted((trained.lines / "eval").glob("*.png"))[:2]]
    lines = [(paths[0], truths[0]), (paths[1], truths[1]), (paths[0], ""), (paths[1], "x"), (paths[0], truths[1])]
    (tmp_path / "texts.txt").write_text("".join(f"{path}\t{text}\n" for path, text in [*lines, ("nowhere.png", "12")]))
    return paths


def test_ocr_predict_chooses_among_texts(server, truths, texts_file, invoke):
    done = invoke("ocr_predict", f"--server={server.grpc}", "--texts=texts.txt")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["nowhere.png: No such file or directory"]
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [[texts_file[0], truths[0]], [texts_file[1], truths[1]], ["nowhere.png", ""]]
    for row in rows[:2]:
        assert math.exp(float(row[3])) == pytest.approx(float(row[2]), abs=1e-3)
    assert rows[2][2:] == ["0.0000", "-inf"]


@pytest.mark.slow
def test_ocr_predict_prints_all_texts_as_json(trained, truths, texts_file, invoke):
    done = invoke("ocr_predict", f"--saved_model={trained.export}", "--texts=texts.txt", "--json")
    first, second, _ = map(json.loads, done.stdout.splitlines())
    assert [each["text"] for each in first["texts"]] == [truths[0], "", truths[1]]
    assert len(first["agreement"]) == len(truths[0])
    assert second["texts"][1] == {"text": "x", "log_probability": None}


def test_ocr_predict_reads_what_fits_a_pattern(server, texts_file, invoke):
    done = invoke("ocr_predict", f"--server={server.grpc}", "--pattern=9999999", "--allowed=123", *texts_file)
    with Client(server.grpc) as client:
        images = [pathlib.Path(path).read_bytes() for path in texts_file]
        texts, confidences, _, _ = client.constrained(images, "123", "9999999")
    assert all(len(text) == 7 and set(text) <= set("123") for text in texts)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[1:] for row in rows] == [[t, f"{c:.4f}"] for t, c in zip(texts, confidences, strict=True)]


@pytest.mark.slow
def test_ocr_predict_refuses_what_is_no_pattern_in_one_line(trained, texts_file, invoke):
    done = invoke("ocr_predict", f"--saved_model={trained.export}", "--pattern=9++", *texts_file)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.strip().endswith("pattern 9++: + must follow a character, and only once")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.png 12\n", "texts.txt: line 1 is 'a.png 12'; it must be an image, a tab and a text"),
        (b"a.png\t1\n\nb.png\t2\n", "texts.txt: line 2 is ''; it must be"),
        (b"a.png\t1\nb.png\t\xff\n", "texts.txt: line 2 is not UTF-8"),
        (b"a.png\t1\n" * 1001, "texts.txt: line 1001: more than 1000 texts for a.png"),
        (b"", "texts.txt: no lines in it"),
    ],
)
def test_a_file_of_texts_that_cannot_be_read_is_refused_by_line(tmp_path, content: bytes, message: str):
    (tmp_path / "texts.txt").write_bytes(content)
    with pytest.raises(InputError) as refused:
        questions.read_texts(str(tmp_path / "texts.txt"))
    assert message in str(refused.value)


def test_a_file_of_texts_keeps_every_text_in_order(tmp_path):
    (tmp_path / "texts.txt").write_bytes("\ufeffb.png\t 1\t2 \r\na.png\t文\nb.png\t\n".encode())
    assert questions.read_texts(str(tmp_path / "texts.txt")) == {"b.png": [" 1\t2 ", ""], "a.png": ["文"]}
    with pytest.raises(InputError, match=r"none\.txt: No such file"):
        questions.read_texts(str(tmp_path / "none.txt"))
