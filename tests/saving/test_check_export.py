import json
import pathlib
import shutil

import pytest

from ocr.saving import check_export
from ocr.serving import saved_model
from tfrecords.errors import IntegrityError


def damage_alphabet(version: pathlib.Path):
    (version / "assets" / "charset.txt").write_text("\n".join("abcdefghij"))


def damage_warm_up(version: pathlib.Path):
    (version / "assets.extra" / "tf_serving_warmup_requests").unlink()


def damage_weights(version: pathlib.Path):
    path = version / "assets.extra" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "0" * 64}))


def damage_graph(version: pathlib.Path):
    path = version / "saved_model.pb"
    graph = path.read_bytes()
    assert b"char_end" in graph
    path.write_bytes(graph.replace(b"char_end", b"char_edn"))


@pytest.fixture
def export(trained, tmp_path) -> pathlib.Path:
    shutil.copytree(trained.export, tmp_path / "export")
    return tmp_path / "export"


@pytest.mark.slow  # every export is checked as it is written, so the fast tier does that too
def test_a_good_export_passes_every_check(export, invoke, last_json):
    done = invoke("ocr_export", "--check=export")
    assert done.returncode == 0, done.stderr
    assert last_json(done)["export"] == "export/1"
    assert len(last_json(done)["checked"]) == 11


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(damage_alphabet, "alphabet of export/1/assets/charset.txt", id="other alphabet"),
        pytest.param(damage_weights, "alphabet and weights: '", id="other weights"),
        pytest.param(damage_warm_up, "warm-up requests: ", id="no warm-up requests"),
        pytest.param(damage_graph, "signatures: ", id="other output"),
    ],
)
def test_a_failed_check_is_reported_in_one_line(export, invoke, damage, message: str):
    damage(export / "1")
    done = invoke("ocr_export", "--check=export")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert message in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [("status", "1 instead of 0"), ("text", "instead of"), ("confidence", "confidences differ by")],
)
def test_predictions_that_differ_are_reported(name: str, message: str):
    import tensorflow as tf

    expected = {"text": tf.constant(["12"]), "confidence": tf.constant([0.5]), "status": tf.constant([0])}
    others = {"text": tf.constant(["21"]), "confidence": tf.constant([float("nan")]), "status": tf.constant([1])}
    check_export._check_same_predictions(expected, expected)
    with pytest.raises(ValueError, match=message.replace("1 instead of 0", r"\[1\] instead of \[0\]")):
        check_export._check_same_predictions(expected | {name: others[name]}, expected)


def test_a_graph_that_cannot_be_loaded_is_reported(export):
    (export / "1" / "saved_model.pb").write_bytes(b"junk")
    with pytest.raises(IntegrityError, match="damaged, cannot be loaded"):
        saved_model.load(export / "1")
