"""The server as a whole; its parts have tests of their own."""

import io
import os
import shutil
import subprocess

import grpc
import numpy as np
import pytest
import tensorflow as tf
from http_and_grpc import b64, post, predict_request, texts
from PIL import Image
from tensorflow_serving.apis import prediction_service_pb2_grpc

from ocr.data import dataset, pipeline
from ocr.evaluation import evaluate
from ocr.model.recogniser import Recogniser
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from ocr.serving.client import Client

LINES = int(os.environ.get("SERVE_LINES", "200"))  # `make serve-proof` reads more


@pytest.mark.parametrize("count", [16, pytest.param(LINES, marks=pytest.mark.slow)])
def test_every_way_of_reading_gives_the_same_texts(trained, server, count: int):
    model, charset, *_ = Workdir(trained.workdir).load()
    split = dataset.find(str(trained.records), "train")
    batches = pipeline.evaluation_batches(split, charset, 16, 32).take(-(-count // 16))
    readings, _ = evaluate.Evaluator(Recogniser(model, charset))(batches)
    images = [file for batch in pipeline.image_files(split, 16).take(-(-count // 16)) for file in batch["encoded"].numpy()]
    assert len(images) == len(readings) >= count
    parts = [images[begin : begin + 50] for begin in range(0, len(images), 50)]
    results = {"export": saved_model.load(server.exports)(images)[:2]}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # as TensorFlow Serving runs it
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(server.exports / "1"))
        signature = meta.signature_def["serving_default"]
        names = [signature.outputs[name].name for name in ("text", "confidence")]
        texts, confidences = session.run(names, {signature.inputs["image_bytes"].name: images})
    results["session"] = ([text.decode() for text in texts], confidences)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    responses = [stub.Predict(predict_request(part)).outputs for part in parts]
    results["grpc"] = (
        [text.decode() for outputs in responses for text in outputs["text"].string_val],
        np.concatenate([tf.make_ndarray(outputs["confidence"]) for outputs in responses]),
    )
    with Client(server.grpc, max_batch=7) as client:
        results["client"] = client(images)[:2]
    url = f"{server.rest}/v1/models/ocr:predict"
    rows = [row for part in parts for row in post(url, {"instances": list(map(b64, part))})[1]["predictions"]]
    results["rest"] = ([row["text"] for row in rows], [row["confidence"] for row in rows])
    for way, (texts, confidences) in results.items():
        assert texts == [reading.text for reading in readings], way
        np.testing.assert_allclose(confidences, [reading.confidence for reading in readings], atol=1e-3, err_msg=way)


def test_bad_images_do_not_affect_others_in_their_batch(server, files):
    def encoded(image: Image.Image, kind: str, **options) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    size = (50_000).to_bytes(4, "big") * 2
    jpeg = encoded(Image.open(io.BytesIO(files[0])), "JPEG")
    bad = {b"": 1, b"junk": 1, "Grüße".encode(): 1, b"\0" * 100: 1, files[0][:24]: 1, files[0][:80]: 1, jpeg[:300]: 1}
    bad |= {files[0][:16] + size + files[0][24:]: 2}
    frames = [Image.open(io.BytesIO(file)).convert("L") for file in files[:2]]
    unusual = [encoded(Image.new("L", (1, 1), 255), "PNG"), encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])]
    good = [*files[:54], *unusual]
    mixed = [file for pair in zip(bad, good, strict=False) for file in pair] + good[len(bad) :]
    with Client(server.grpc) as client:
        texts, confidences, statuses = client(mixed)
        alone = [client([file])[0][0] for file in good]
    assert len(mixed) == 64
    assert statuses.tolist() == [code for status in bad.values() for code in (status, 0)] + [0] * 46 + [
        3,
        0,
    ]  # the last but one is a single pixel
    assert texts[1:16:2] + texts[16:] == alone
    assert alone[-2:] == ["", alone[0]]
    assert not any(texts[:16:2])
    assert not confidences[:16:2].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--export_dir={exports}", "--grpc_port={grpc}", "--rest_port=0"], "--grpc_port={grpc}: cannot listen at "),
        (["--export_dir={exports}", "--grpc_port=0", "--rest_port={rest}"], "--rest_port={rest}: cannot listen at "),
        (["--export_dir={exports}/1", "--grpc_port=0", "--rest_port=0"], "is one version; give the folder that holds it"),
        (["--export_dir=.", "--grpc_port=0", "--rest_port=0"], "no exported model in it"),
        (["--export_dir={exports}", "--tls_cert=cert.pem"], "--tls_cert and --tls_key: "),
        (["--export_dir={exports}", "--tls_cert=no.pem", "--tls_key=no.pem"], "no.pem"),
        (["--export_dir={exports}", "--tls_cert=junk.pem", "--tls_key=junk.pem"], "--tls_cert=junk.pem --tls_key=junk.pem: "),
        (["--export_dir={exports}", "--max_batch=0"], "--max_batch=0: must be 1 to 1024"),
    ],
    ids=[
        "gRPC port in use",
        "REST port in use",
        "one version",
        "no version",
        "certificate without key",
        "no certificate",
        "invalid certificate",
        "batches of no line",
    ],
)
def test_a_server_that_cannot_start_says_why(server, invoke, tmp_path, arguments: list[str], message: str):
    (tmp_path / "junk.pem").write_bytes(b"junk")
    places = {"exports": server.exports, "grpc": server.grpc.rpartition(":")[2], "rest": server.rest.rpartition(":")[2]}
    done = invoke("ocr_serve", *(argument.format(**places) for argument in arguments))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert message.format(**places) in done.stderr


@pytest.mark.slow
def test_a_process_that_cannot_listen_says_why(server, command):
    port = server.grpc.rpartition(":")[2]
    done = command("ocr_serve", f"--export_dir={server.exports}", f"--grpc_port={port}", "--rest_port=0")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert f"--grpc_port={port}: " in done.stderr


def test_shutdown_drains_accepted_requests(serve_in_thread, cold_exports, files):
    expected = saved_model.load(cold_exports)(files[:32])[0]
    with serve_in_thread(cold_exports) as server, grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        calls = [stub.Predict.future(predict_request(files[:32])) for _ in range(8)]
        calls[0].result()
        server.stop.set()
        for call in calls:
            assert texts(call.result()) == expected


def test_connections_are_encrypted_with_a_certificate(serve_in_thread, cold_exports, files, tmp_path):
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "1"]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not installed")
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    with serve_in_thread(cold_exports, tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")) as server:
        assert server.rest.startswith("https://")
        with Client(server.grpc, authority=str(tmp_path / "cert.pem")) as client:
            assert client(files[:2])[2].tolist() == [0, 0]
