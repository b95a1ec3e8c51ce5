"""Exports for ONNX Runtime and LiteRT read what the export reads, without TensorFlow."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ocr.model import networks, portable
from ocr.saving import edge
from ocr.serving import edge as reading
from ocr.serving import saved_model
from tfrecords.errors import InputError, IntegrityError

for package in ("ai_edge_litert", "onnx", "onnxruntime", "tf2onnx"):
    pytest.importorskip(package)

FORMATS = ["litert", pytest.param("onnx", marks=pytest.mark.slow)]  # tf2onnx takes its time


@pytest.fixture(scope="module")
def converted(trained, tmp_path_factory):
    """Returns a function that converts the export once for each format and kind of weights."""
    folder, done = tmp_path_factory.mktemp("edge"), {}

    def convert(format: str, weights: str) -> dict:
        key = f"{format}-{weights}"
        if key not in done:
            done[key] = edge.convert(trained.export, folder / key, format, weights, f"{trained.records}@eval")
        return done[key]

    return convert


@pytest.fixture(scope="module")
def expected(trained, files):
    return saved_model.load(trained.export)(files)


@pytest.mark.parametrize("format", FORMATS)
def test_float32_reads_image_files_as_the_export_does(converted, files, expected, format):
    result = converted(format, "float32")
    assert result["lines"] == 200
    assert result["same_text"] == 1
    assert result["confidence_difference"] < 1e-3
    texts, confidences, statuses = reading.load(pathlib.Path(result["model"]))(files)
    assert texts == expected[0]
    np.testing.assert_allclose(confidences, expected[1], atol=1e-3)
    assert statuses.tolist() == expected[2].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_smaller_weights_make_smaller_files_that_read_as_well(converted, format):
    sizes = [converted(format, weights)["bytes"] for weights in edge.WEIGHTS]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < 0.4 * sizes[0]
    assert converted(format, "float16")["same_text"] >= 0.999
    int8 = converted(format, "int8")
    assert int8["cer"] <= int8["saved_model_cer"] + 0.001


@pytest.mark.parametrize("format", FORMATS)
def test_ocr_predict_reads_without_tensorflow(converted, expected, trained, tmp_path, format):
    (tmp_path / "junk.png").write_bytes(b"junk")
    paths = [*sorted((trained.lines / "eval").glob("*.png"))[:3], tmp_path / "junk.png"]
    code = """
import sys
from tools import ocr_predict
try:
    ocr_predict.run()
finally:
    assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    model = converted(format, "float32")["model"]
    line = [sys.executable, "-c", code, f"--saved_model={model}", "--json", *map(str, paths)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == [*expected[0][:3], ""]
    assert [row["status"] for row in rows] == [0, 0, 0, 1]
    assert f"{tmp_path}/junk.png: not an image that can be decoded" in done.stderr


@pytest.mark.slow
def test_a_model_that_reads_something_else_is_refused(trained, monkeypatch, tmp_path):
    other = networks.build("lite", 11)  # untrained
    suffix_and_write = edge.FORMATS["litert"]

    def write_other(_, path, *rest):
        suffix_and_write[1](portable.reader(other), path, *rest)

    monkeypatch.setitem(edge.FORMATS, "litert", (".tflite", write_other))
    with pytest.raises(IntegrityError, match="lines have the text that the export reads"):
        edge.convert(trained.export, tmp_path / "edge", "litert", "float32", f"{trained.records}@eval")
    assert not (tmp_path / "edge").exists()


def test_damaged_and_missing_files_are_named(converted, tmp_path, invoke):
    folder = tmp_path / "edge"
    model = pathlib.Path(converted("litert", "float32")["model"])
    shutil.copytree(model.parent, folder)
    with pytest.raises(InputError, match="no such file"):
        reading.load(folder / "model.onnx")
    (folder / "model.onnx").write_bytes(b"junk")
    with pytest.raises(IntegrityError, match=r"model.onnx: damaged"):
        reading.load(folder / "model.onnx")
    (folder / "model.tflite").write_bytes(model.read_bytes()[:5000])
    with pytest.raises(IntegrityError, match=r"model.tflite: damaged"):
        reading.load(folder / "model.tflite")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.tflite").write_bytes(content)
    with pytest.raises(IntegrityError, match="not the model that"):
        reading.load(folder / "model.tflite")
    (folder / "model.tflite").write_bytes(model.read_bytes())
    about = json.loads((folder / "model.json").read_text())
    for wrong in ({"line_height": "x"}, {"line_height": 0}, {"frame_width": 0}):
        (folder / "model.json").write_text(json.dumps(about | wrong))
        with pytest.raises(IntegrityError, match="not what ocr_export writes"):
            reading.load(folder / "model.tflite")
    (folder / "charset.txt").write_text("x\n")
    with pytest.raises(IntegrityError, match="alphabet of"):
        reading.load(folder / "model.tflite")
    refused = invoke("ocr_predict", f"--saved_model={model}", "--pattern=9999", "x.png")
    assert refused.returncode == 1
    assert "takes no --allowed, --pattern or --texts" in refused.stderr


def test_what_cannot_be_converted_is_refused_in_a_line(trained, invoke, tmp_path):
    def stderr(*flags: str) -> str:
        done = invoke("ocr_export", "--export_dir=edge", *flags)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "--saved_model" in stderr("--format=onnx")
    assert "export it first" in stderr("--format=onnx", f"--workdir={trained.workdir}")
    assert "give records with --data" in stderr("--format=litert", "--weights=int8", f"--saved_model={trained.export}")
    assert "npm install onnxruntime-web" in stderr("--format=web", f"--saved_model={trained.export}")
    assert "must be one of" in stderr("--format=coreml", f"--saved_model={trained.export}")
    assert "--weights=int8: taken only with --format" in stderr(f"--workdir={trained.workdir}", "--weights=int8")
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "mine").touch()
    assert "already there" in stderr("--format=litert", f"--saved_model={trained.export}")
