"""A server as people run it: a process of its own, asked over its ports."""

import io
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from asking import ask, b64, post, request_of
from PIL import Image
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from ocr.data import dataset, pipeline
from ocr.evaluation import evaluate
from ocr.model.recogniser import Recogniser
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from ocr.serving.client import Client
from tfrecords.errors import InputError

LINES = int(os.environ.get("SERVE_LINES", "200"))  # `make serve-proof` asks for more


@pytest.fixture(scope="module")
def server(trained, start_server, tmp_path_factory):
    exports = tmp_path_factory.mktemp("served") / "export"
    shutil.copytree(trained.export, exports)
    running = start_server(exports)
    yield running
    assert running.end() == (143, {"interrupted": True, "version": 1})


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_every_way_reads_the_same(trained, server):
    model, charset, *_ = Workdir(trained.workdir).load()
    lines = dataset.find(str(trained.records), "train")
    batches = pipeline.evaluation_batches(lines, charset, 16).take(-(-LINES // 16))
    readings, _ = evaluate.Evaluator(Recogniser(model, charset))(batches)
    images = [file for batch in pipeline.image_files(lines, 16).take(-(-LINES // 16)) for file in batch["encoded"].numpy()]
    assert len(images) == len(readings) >= LINES
    parts = [images[begin : begin + 50] for begin in range(0, len(images), 50)]
    found = {"export": saved_model.load(server.exports)(images)[:2]}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # as a server in C++ runs it
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(server.exports / "1"))
        signature = meta.signature_def["serving_default"]
        names = [signature.outputs[name].name for name in ("text", "confidence")]
        texts, confidences = session.run(names, {signature.inputs["image_bytes"].name: images})
    found["session"] = ([text.decode() for text in texts], confidences)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    answers = [stub.Predict(request_of(part)).outputs for part in parts]
    found["grpc"] = (
        [text.decode() for outputs in answers for text in outputs["text"].string_val],
        np.concatenate([tf.make_ndarray(outputs["confidence"]) for outputs in answers]),
    )
    with Client(server.grpc, max_batch=7) as client:
        found["client"] = client(images)[:2]
    url = f"{server.rest}/v1/models/ocr:predict"
    rows = [row for part in parts for row in post(url, {"instances": list(map(b64, part))})[1]["predictions"]]
    found["rest"] = ([row["text"] for row in rows], [row["confidence"] for row in rows])
    for way, (texts, confidences) in found.items():
        assert texts == [reading.text for reading in readings], way
        np.testing.assert_allclose(confidences, [reading.confidence for reading in readings], atol=1e-3, err_msg=way)


def test_rest_answers_in_the_form_it_was_asked_in(server, files):
    url = f"{server.rest}/v1/models/ocr"
    one, two = b64(files[0]), b64(files[1])
    _, rows = post(f"{url}:predict", {"instances": [{"image_bytes": one}, {"image_bytes": two}]})
    assert post(f"{url}:predict", {"instances": [one, two]})[1] == rows
    assert post(f"{url}/versions/1:predict", {"signature_name": "serving_default", "instances": [one, two]})[1] == rows
    columns = {name: [row[name] for row in rows["predictions"]] for name in rows["predictions"][0]}
    assert post(f"{url}:predict", {"inputs": {"image_bytes": [one, two]}})[1] == {"outputs": columns}
    assert post(f"{url}:predict", {"inputs": [one, two]})[1] == {"outputs": columns}
    _, detailed = post(f"{url}:predict", {"signature_name": "detailed", "instances": [one]})
    (row,) = detailed["predictions"]
    assert "".join(row["chars"]) == row["text"]
    assert post(f"{url}:predict", {"instances": []})[1] == {"predictions": []}
    pixels = tf.io.decode_png(files[0])[:, :, 0].numpy()
    line = {"pixels": pixels.tolist(), "width": pixels.shape[1]}
    assert post(f"{url}:predict", {"signature_name": "lines", "instances": [line]})[1]["predictions"][0]["text"] == row["text"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("ocr:predict", b"{", 400, "not JSON"),
        ("ocr:predict", b"[" * 100_000, 400, "not JSON"),
        ("ocr:predict", [], 400, "instances or inputs"),
        ("ocr:predict", {"instances": [], "inputs": []}, 400, "instances or inputs"),
        ("ocr:predict", {"instances": 3}, 400, "instances: not a list"),
        ("ocr:predict", {"instances": [3]}, 400, "image_bytes: each must be"),
        ("ocr:predict", {"instances": [{"b64": "no base64"}]}, 400, "b64: "),
        ("ocr:predict", {"instances": [{"other": 1}]}, 400, "image_bytes: each must be"),
        (
            "ocr:predict",
            {"instances": [{"image_bytes": {"b64": ""}, "other": 1}]},
            400,
            "each must be an object with image_bytes",
        ),
        ("ocr:predict", {"inputs": {"images": []}}, 400, "the inputs are images; they must be image_bytes"),
        ("ocr:predict", {"signature_name": "none", "instances": []}, 400, "signature 'none': the model has"),
        ("ocr:predict", {"signature_name": 3, "instances": []}, 400, "signature_name must be a string"),
        ("ocr:predict", {"instances": [{"b64": ""}] * 129}, 400, "129 lines in a request; at most 128 are taken"),
        ("ocr:predict", {"signature_name": "lines", "inputs": []}, 400, "inputs must be an object with"),
        ("ocr:predict", {"signature_name": "lines", "inputs": {"pixels": [[[1]]], "width": [1]}}, 400, "pixels: shape"),
        ("ocr:predict", {"signature_name": "lines", "inputs": {"pixels": [[[-1]] * 32], "width": [1]}}, 400, "no uint8"),
        ("ocr:predict", {"signature_name": "lines", "inputs": {"pixels": [[[1]] * 32], "width": [1, 2]}}, 400, "1 and 2 rows"),
        (
            "ocr:predict",
            {"signature_name": "lines", "inputs": {"pixels": [[[1], [1, 2]]], "width": [1]}},
            400,
            "different shapes",
        ),
        ("ocr:predict", b'{"inputs": {"\\ud800": [1]}}', 400, "the inputs are \\ud800"),
        ("ocr:predict", b'{"instances": [' + b"[]," * 1_000_000 + b"0]}", 400, "1000001 lines in a request"),
        ("ocr/versions/7:predict", {"instances": []}, 404, "version 7"),
        ("ocr/labels/stable:predict", {"instances": []}, 404, "label 'stable'"),
        ("other:predict", {"instances": []}, 404, "model 'other' is not served"),
        ("ocr:classify", {"instances": []}, 404, "Not Found"),
        ("ocr:predict", b"0" * (65 * 2**20), 413, "exceeded"),
    ],
)
def test_rest_says_what_is_wrong_with_a_request(server, path, body, status, message):
    code, answer = post(f"{server.rest}/v1/models/{path}", body)
    assert (code, list(answer)) == (status, ["error"])
    assert message in answer["error"]


def test_bad_images_hurt_no_neighbour(server, files):
    def encoded(image: Image.Image, kind: str, **options) -> bytes:
        made = io.BytesIO()
        image.save(made, kind, **options)
        return made.getvalue()

    size = (50_000).to_bytes(4, "big") * 2
    jpeg = encoded(Image.open(io.BytesIO(files[0])), "JPEG")
    bad = {b"": 1, b"junk": 1, "Grüße".encode(): 1, b"\0" * 100: 1, files[0][:24]: 1, files[0][:80]: 1, jpeg[:300]: 1}
    bad |= {files[0][:16] + size + files[0][24:]: 2}
    frames = [Image.open(io.BytesIO(file)).convert("L") for file in files[:2]]
    odd = [encoded(Image.new("L", (1, 1), 255), "PNG"), encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])]
    good = [*files[:54], *odd]
    mixed = [file for pair in zip(bad, good, strict=False) for file in pair] + good[len(bad) :]
    with Client(server.grpc) as client:
        texts, confidences, statuses = client(mixed)
        alone = [client([file])[0][0] for file in good]
    assert len(mixed) == 64
    assert statuses.tolist() == [code for status in bad.values() for code in (status, 0)] + [0] * 48
    assert texts[1:16:2] + texts[16:] == alone
    assert alone[-2:] == ["", alone[0]]
    assert not any(texts[:16:2])
    assert not confidences[:16:2].any()


def test_grpc_says_what_is_wrong_with_a_request(server, files):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    for options, code in (
        ({"name": "other"}, grpc.StatusCode.NOT_FOUND),
        ({"signature": "none"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"signature": "lines"}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            ask(stub, files[:1], **options)
        assert caught.value.code() == code
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "ocr", "lines"
    large = request.inputs["pixels"]  # a few bytes that claim to be gigabytes
    large.dtype = tf.uint8.as_datatype_enum
    for size in (100, 32, 8000):
        large.tensor_shape.dim.add(size=size)
    large.int_val.append(7)
    request.inputs["width"].CopyFrom(tf.make_tensor_proto(np.full(100, 9, np.int32)))
    with pytest.raises(grpc.RpcError, match="fewer values than its shape"):
        stub.Predict(request)
    none = request_of([], "lines")
    none.ClearField("inputs")
    for name, kind, shape in (("pixels", tf.uint8, (0, 32, 60_000_000)), ("width", tf.int32, (0,))):
        none.inputs[name].dtype = kind.as_datatype_enum
        for size in shape:
            none.inputs[name].tensor_shape.dim.add(size=size)
    pixels = request_of([], "lines")
    pixels.ClearField("inputs")
    pixels.inputs["pixels"].CopyFrom(tf.make_tensor_proto(np.zeros([1, 32, 1], np.uint8)))
    pixels.inputs["pixels"].ClearField("tensor_content")
    pixels.inputs["pixels"].int_val.extend([300] * 32)
    pixels.inputs["width"].CopyFrom(tf.make_tensor_proto(np.ones(1, np.int32)))
    resource = request_of(files[:1])
    resource.inputs["image_bytes"].dtype = 20
    named = request_of(files[:1])
    named.inputs["x" * 50_000].CopyFrom(named.inputs["image_bytes"])
    filtered = request_of(files[:1])
    filtered.output_filter.append("x" * 100_000)
    for bad, message in (
        (none, "at most 8000 pixels wide"),
        (pixels, "inputs: "),
        (resource, "inputs: "),
        (named, "the inputs are"),
        (filtered, "output_filter: there is no xxx"),
    ):
        with pytest.raises(grpc.RpcError, match=message) as caught:
            stub.Predict(bad)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    for sizes, message in ([-1], "shape"), ([100], "fewer values than its shape"):  # of one file, sent once
        request = request_of(files[:1])
        request.inputs["image_bytes"].tensor_shape.ClearField("dim")
        for size in sizes:
            request.inputs["image_bytes"].tensor_shape.dim.add(size=size)
        with pytest.raises(grpc.RpcError, match=message) as caught:
            stub.Predict(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    answer = ask(stub, files[:1])
    assert sorted(answer.outputs) == ["confidence", "status", "text"]
    assert answer.model_spec.version.value == 1
    request = request_of(files[:1])
    request.output_filter.append("text")
    assert list(stub.Predict(request).outputs) == ["text"]


def test_a_body_that_is_not_what_its_header_says_is_refused(server):
    code, answer = post(f"{server.rest}/v1/models/ocr:predict", b"{}", **{"Content-Encoding": "gzip"})
    assert (code, answer["error"][:26]) == (400, "the body cannot be read: 4")


def test_what_the_model_is_and_which_versions_there_are(server):
    channel = grpc.insecure_channel(server.grpc)
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "ocr"
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(asked)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "detailed", "lines"} <= set(signatures.signature_def)
    _, body = get(f"{server.rest}/v1/models/ocr/metadata")
    assert json.loads(body)["metadata"]["signature_def"]["signature_def"].keys() == set(signatures.signature_def)
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "ocr"
    (version,) = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status).model_version_status
    assert (version.version, version.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    _, body = get(f"{server.rest}/v1/models/ocr")
    assert json.loads(body)["model_version_status"][0]["state"] == "AVAILABLE"
    assert get(f"{server.rest}/healthz")[0] == get(f"{server.rest}/readyz")[0] == 200


def test_every_request_is_counted_by_how_it_ended(server, files):
    def counted() -> dict[str, float]:
        _, body = get(f"{server.rest}/monitoring/prometheus/metrics")
        return {name: float(re.search(f"^{re.escape(name)} (.*)$", body.decode(), re.M)[1]) for name in names}

    names = [f'ocr_requests_total{{code="{code}"}}' for code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND")]
    names += ['ocr_lines_total{status="0"}', 'ocr_lines_total{status="1"}']
    url = f"{server.rest}/v1/models"
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))

    def all_kinds() -> None:
        post(f"{url}/ocr:predict", {"instances": [b64(files[0]), b64(b"junk")]})
        post(f"{url}/ocr:predict", b"{")
        post(f"{url}/other:predict", {"instances": []})
        ask(stub, files[:2])
        with pytest.raises(grpc.RpcError):
            ask(stub, files[:2], name="other")

    all_kinds()
    before = counted()
    all_kinds()
    assert [after - was for after, was in zip(counted().values(), before.values(), strict=True)] == [2, 1, 2, 3, 1]


def test_predict_reads_through_a_server(trained, server, command, tmp_path):
    paths = sorted((trained.lines / "eval").glob("*.png"))[:40]
    (tmp_path / "junk.png").write_bytes(b"junk")
    there = command("ocr_predict", f"--server={server.grpc}", "junk.png", *paths)
    here = command("ocr_predict", f"--saved_model={trained.export}", "junk.png", *paths)
    assert there.returncode == here.returncode == 1
    rows = [[line.split("\t") for line in done.stdout.splitlines()] for done in (there, here)]
    assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]
    assert "junk.png: not an image that can be decoded" in there.stderr
    nobody = command("ocr_predict", "--server=localhost:1", "--timeout_s=1", *paths)
    assert (nobody.returncode, len(nobody.stderr.splitlines())) == (1, 1)
    assert "--server=localhost:1: " in nobody.stderr


def test_a_server_that_cannot_start_says_why(server, command, tmp_path):
    (tmp_path / "junk.pem").write_bytes(b"junk")
    exports, port = server.exports, server.grpc.rpartition(":")[2]
    for arguments, message in (
        ((f"--export_dir={exports}", f"--grpc_port={port}", "--rest_port=0"), f"--grpc_port={port}: "),
        ((f"--export_dir={exports}", "--grpc_port=0", f"--rest_port={server.rest.rpartition(':')[2]}"), "--rest_port="),
        ((f"--export_dir={exports / '1'}",), "is one version; give the folder that holds it"),
        ((f"--export_dir={tmp_path}",), "no exported model in it"),
        ((f"--export_dir={exports}", "--tls_cert=cert.pem"), "--tls_cert and --tls_key: give both or neither"),
        ((f"--export_dir={exports}", "--tls_cert=no.pem", "--tls_key=no.pem"), "no.pem"),
        ((f"--export_dir={exports}", "--tls_cert=junk.pem", "--tls_key=junk.pem"), "--tls_cert=junk.pem --tls_key=junk.pem: "),
        ((f"--export_dir={exports}", "--max_batch=0"), "--max_batch=0: must be 1 to 1024"),
    ):
        done = command("ocr_serve", *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert message in done.stderr


def test_a_client_names_a_certificate_that_is_not_there():
    with pytest.raises(InputError, match=r"no\.pem: No such file"):
        Client("localhost:8500", authority="no.pem")
    with pytest.raises(InputError, match="no certificate in PEM"):
        Client("localhost:8500", authority=__file__)


def test_it_talks_encrypted_where_it_has_a_certificate(start_server, exports, files, tmp_path):
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "1"]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not installed")
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    server = start_server(exports, "--tls_cert=cert.pem", "--tls_key=key.pem")
    assert server.rest.startswith("https://")
    with Client(server.grpc, authority=str(tmp_path / "cert.pem")) as client:
        assert client(files[:2])[2].tolist() == [0, 0]
    assert server.end()[0] == 143
