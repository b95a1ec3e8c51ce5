"""A server as people run it: a process of its own, asked over its ports."""

import base64
import concurrent.futures
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from ocr import evaluate, inputs, predict, sets
from ocr.client import Client
from ocr.recogniser import Recogniser
from ocr.workdir import Workdir
from tfrecords.errors import InputError

# `make serve-proof` asks for more.
FUZZED = int(os.environ.get("SERVE_FUZZED", "240"))
SWAPS = int(os.environ.get("SERVE_SWAPS", "2"))
REQUESTS = int(os.environ.get("SERVE_REQUESTS", "20"))
OVERLOAD_S = float(os.environ.get("SERVE_OVERLOAD_S", "2"))


@pytest.fixture(scope="module")
def exports(trained, tmp_path_factory):
    here = tmp_path_factory.mktemp("served")
    shutil.copytree(trained.export / "1", here / "export" / "1")
    return here / "export"


@pytest.fixture(scope="module")
def server(exports, start_server):
    running = start_server(exports)
    yield running
    assert running.end() == (143, {"interrupted": True, "version": 1})


@pytest.fixture(scope="module")
def files(trained) -> list[bytes]:
    return [path.read_bytes() for path in sorted((trained.lines / "eval").glob("*.png"))]


def post(url: str, body: object, **headers: str) -> tuple[int, dict]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def b64(file: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(file).decode()}


def ask(stub, images: list[bytes], signature: str = "", name: str = "ocr", **options):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string, [len(images)]))
    return stub.Predict(request, **options)


def test_every_way_reads_the_same(trained, server, files):
    model, charset, *_ = Workdir(trained.workdir).load()
    held_out = sets.find(str(trained.records), "eval")
    readings, _ = evaluate.Evaluator(Recogniser(model, charset))(inputs.evaluation_batches(held_out, charset, 16))
    images = [file for batch in inputs.image_files(held_out, 16) for file in batch["encoded"].numpy()]
    found = {"evaluation": ([r.text for r in readings], [r.confidence for r in readings])}
    found["export"] = predict.load(server.exports)(images)[:2]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # as a server in C++ runs it
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(server.exports / "1"))
        signature = meta.signature_def["serving_default"]
        names = [signature.outputs[name].name for name in ("text", "confidence")]
        texts, confidences = session.run(names, {signature.inputs["image_bytes"].name: images})
    found["session"] = ([text.decode() for text in texts], confidences)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    outputs = ask(stub, images[:100]).outputs
    rest = ask(stub, images[100:]).outputs
    found["grpc"] = (
        [text.decode() for part in (outputs, rest) for text in part["text"].string_val],
        np.concatenate([tf.make_ndarray(part["confidence"]) for part in (outputs, rest)]),
    )
    with Client(server.grpc, max_batch=7) as client:
        found["client"] = client(images)[:2]
    rows = []
    for begin in range(0, len(images), 50):
        _, answer = post(f"{server.rest}/v1/models/ocr:predict", {"instances": [b64(f) for f in images[begin : begin + 50]]})
        rows += answer["predictions"]
    found["rest"] = ([row["text"] for row in rows], [row["confidence"] for row in rows])
    expected_texts, expected = found.pop("evaluation")
    for way, (texts, confidences) in found.items():
        assert texts == expected_texts, way
        np.testing.assert_allclose(confidences, expected, atol=1e-3, err_msg=way)


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


def test_a_bad_image_hurts_no_neighbour(server, files):
    bad = [b"", b"junk", files[0][:50], b"\0" * 100]
    mixed = [file for pair in zip(files, bad, strict=False) for file in pair]
    with Client(server.grpc) as client:
        texts, confidences, statuses = client(mixed)
        alone = [client([file])[0][0] for file in files[:4]]
    assert statuses.tolist() == [0, 1] * 4
    assert texts[::2] == alone
    assert not any(texts[1::2])
    assert not confidences[1::2].any()


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
    for size in (100, 32, 10_000_000):
        large.tensor_shape.dim.add(size=size)
    large.int_val.append(7)
    request.inputs["width"].CopyFrom(tf.make_tensor_proto(np.full(100, 9, np.int32)))
    with pytest.raises(grpc.RpcError, match="fewer values than its shape"):
        stub.Predict(request)
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
    assert b'ocr_requests_total{code="OK"}' in get(f"{server.rest}/monitoring/prometheus/metrics")[1]


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


def test_versions_change_under_load_and_no_request_is_lost(start_server, exports, files, tmp_path):
    shutil.copytree(exports, tmp_path / "export")
    server = start_server(tmp_path / "export", "--poll_s=0.1")
    expected = predict.load(exports)(files[:8])[0]
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    seen, ended, count = set(), False, 0

    def work() -> None:
        nonlocal count
        while not ended:
            answer = ask(stub, files[:8])
            assert [text.decode() for text in answer.outputs["text"].string_val] == expected
            seen.add(answer.model_spec.version.value)
            count += 1

    def wait_for(version: int) -> None:
        deadline = time.monotonic() + 60
        while version not in seen:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(work) for _ in range(4)]
        try:
            for version in range(2, 2 + SWAPS):
                shutil.copytree(exports / "1", tmp_path / "aside")
                (tmp_path / "aside").rename(tmp_path / "export" / str(version))
                wait_for(version)
            (tmp_path / "export" / "999").mkdir()  # damaged: it is passed over, and named
            (tmp_path / "export" / "999" / "saved_model.pb").write_bytes(b"junk")
            seen.clear()
            time.sleep(1.0)
            assert seen == {version}
            shutil.rmtree(tmp_path / "export" / "999")
            shutil.rmtree(tmp_path / "export" / str(version))  # a roll-back
            wait_for(version - 1)
            while count < REQUESTS:
                time.sleep(0.1)
        finally:
            ended = True
        for client in clients:
            client.result()
    print(f"{SWAPS} swaps, {count} requests")
    assert server.end()[0] == 143
    assert "version 999 is not served: " in (tmp_path / "log").read_text("utf-8")


def test_too_many_at_once_are_refused_and_the_others_answered(start_server, exports, files, tmp_path):
    shutil.copytree(exports, tmp_path / "export")
    server = start_server(tmp_path / "export", "--max_waiting=16", "--max_batch=8")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    expected = predict.load(exports)(files[:8])[0]
    calls = [stub.Predict.future(request_of(files[:8])) for _ in range(200)]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    for call, code in zip(calls, codes, strict=True):
        if code == grpc.StatusCode.OK:
            assert [text.decode() for text in call.result().outputs["text"].string_val] == expected
    body = {"instances": [b64(file) for file in files[:8]]}
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: post(f"{server.rest}/v1/models/ocr:predict", body), range(80)))
    assert {status for status, _ in answers} == {200, 429}
    with pytest.raises(grpc.RpcError) as caught:
        ask(stub, files[:100], timeout=0.005)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert ask(stub, files[:1]).outputs["text"].string_val[0].decode() == expected[0]
    with Client(server.grpc) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:  # the client asks again
        assert all(texts == expected for texts, *_ in pool.map(lambda _: client(files[:8]), range(16)))
    assert server.end(signal.SIGINT)[0] == 130


def request_of(images: list[bytes]) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "ocr"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string, [len(images)]))
    return request


def memory(server) -> int:
    """Returns the memory that a server's process holds, in KiB."""
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def mutated(files: list[bytes], rng: np.random.Generator) -> bytes:
    """Returns an image file with some bytes changed, cut out, doubled or zeroed."""
    file = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 8)):
        place, length = int(rng.integers(len(file) + 1)), int(rng.integers(1, 40))
        kind = rng.integers(5)
        if kind == 0:
            file[place : place + 1] = rng.bytes(1)
        elif kind == 1:
            del file[place : place + length]
        elif kind == 2:
            file[place:place] = file[place : place + length]
        elif kind == 3:
            file[place : place + length] = bytes(len(file[place : place + length]))
        else:  # the header, where sizes are
            place = int(rng.integers(30))
            file[place : place + 1] = rng.bytes(1)
    return bytes(file)


def test_mutated_images_neither_crash_it_nor_change_their_neighbours(start_server, exports, files, tmp_path):
    shutil.copytree(exports, tmp_path / "export")
    server = start_server(tmp_path / "export")
    rng = np.random.default_rng(0)
    sources = []
    for file in files[:10]:
        image = Image.open(io.BytesIO(file))
        for kind in ("PNG", "JPEG", "GIF", "BMP"):
            made = io.BytesIO()
            image.save(made, kind)
            sources.append(made.getvalue())
    expected = predict.load(exports)(files[:8])[0]
    held = []
    with Client(server.grpc) as client:
        for done in range(0, FUZZED, 8):
            pairs = [(good, mutated(sources, rng)) for good in files[:8]]
            texts, confidences, statuses = client([image for pair in pairs for image in pair])
            assert texts[::2] == expected, done
            assert set(statuses[1::2]) <= {0, 1, 2}
            assert not confidences[1::2][statuses[1::2] > 0].any()
            held.append(memory(server))
    print(f"{FUZZED} mutated images, memory {held[len(held) // 5]} to {held[-1]} KiB")
    assert held[-1] < 1.25 * held[len(held) // 5]
    assert server.end()[0] == 143


def test_an_overload_is_refused_and_leaves_nothing_behind(start_server, exports, files, tmp_path):
    shutil.copytree(exports, tmp_path / "export")
    server = start_server(tmp_path / "export", "--max_waiting=128")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    expected = predict.load(exports)(files[:8])[0]
    request = request_of(files[:8])
    ask(stub, files[:8])
    before = memory(server)
    end, seconds, refused = time.monotonic() + OVERLOAD_S, [], []

    def work() -> None:
        while time.monotonic() < end:
            begun = time.monotonic()
            try:
                answer = stub.Predict(request)
            except grpc.RpcError as error:
                refused.append(error.code())
                continue
            seconds.append(time.monotonic() - begun)
            assert [text.decode() for text in answer.outputs["text"].string_val] == expected

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        for client in [pool.submit(work) for _ in range(64)]:
            client.result()
    rate = 8 * len(seconds) / OVERLOAD_S
    print(f"{len(seconds)} answered, {len(refused)} refused, {rate:.0f} lines/s, p99 {np.quantile(seconds, 0.99):.2f} s")
    assert set(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(refused) > 3 * len(seconds), "at least four times as much was asked as could be answered"
    assert np.quantile(seconds, 0.99) < 4 * (128 + 32) / rate + 1.0
    assert memory(server) < 1.25 * before
    begun = time.monotonic()
    ask(stub, files[:8])
    assert time.monotonic() - begun < 5.0
    assert server.end()[0] == 143


def test_what_was_taken_is_answered_before_the_end(start_server, exports, files, tmp_path):
    shutil.copytree(exports, tmp_path / "export")
    server = start_server(tmp_path / "export")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    expected = predict.load(exports)(files[:32])[0]
    calls = [stub.Predict.future(request_of(files[:32])) for _ in range(8)]
    calls[0].result()
    server.process.send_signal(signal.SIGTERM)
    late = []
    while server.process.poll() is None:
        late.append(stub.Predict.future(request_of(files[:1])).code())
    for call in calls:
        assert [text.decode() for text in call.result().outputs["text"].string_val] == expected
    assert set(late) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    server.process.communicate()
    assert server.process.returncode == 143


def test_a_server_that_cannot_start_says_why(exports, server, command, tmp_path):
    port = server.grpc.rpartition(":")[2]
    for arguments, message in (
        ((f"--export_dir={exports}", f"--grpc_port={port}", "--rest_port=0"), f"--grpc_port={port}: "),
        ((f"--export_dir={exports}", "--grpc_port=0", f"--rest_port={server.rest.rpartition(':')[2]}"), "--rest_port="),
        ((f"--export_dir={exports / '1'}",), "is one version; give the folder that holds it"),
        ((f"--export_dir={tmp_path}",), "no exported model in it"),
        ((f"--export_dir={exports}", "--tls_cert=cert.pem"), "--tls_cert and --tls_key: give both or none"),
        ((f"--export_dir={exports}", "--tls_cert=no.pem", "--tls_key=no.pem"), "no.pem"),
        ((f"--export_dir={exports}", "--max_batch=0"), "--max_batch=0: must be 1 to 1024"),
    ):
        done = command("ocr_serve", *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert message in done.stderr


def test_a_client_names_a_certificate_that_is_not_there():
    with pytest.raises(InputError, match=r"no\.pem: No such file"):
        Client("localhost:8500", authority="no.pem")


def test_it_talks_encrypted_where_it_has_a_certificate(start_server, exports, files, tmp_path):
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "1"]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not installed")
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    shutil.copytree(exports, tmp_path / "export")
    server = start_server(tmp_path / "export", "--tls_cert=cert.pem", "--tls_key=key.pem")
    assert server.rest.startswith("https://")
    with Client(server.grpc, authority=str(tmp_path / "cert.pem")) as client:
        assert client(files[:2])[2].tolist() == [0, 0]
    assert server.end()[0] == 143
