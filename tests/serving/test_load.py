"""A server process under load: new versions, damaged images, overload, shutdown. `make serve-proof` runs more of it."""

import concurrent.futures
import io
import os
import pathlib
import resource
import shutil
import signal
import socket
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from http_and_grpc import b64, get, post, predict, predict_request, texts
from PIL import Image
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

from ocr.images.preprocess import NO_CONTRAST, READ, TOO_LARGE, UNDECODABLE
from ocr.serving import saved_model, warmup, wire
from ocr.serving.client import Client
from tfrecords.errors import InputError

pytestmark = pytest.mark.slow
FUZZED = int(os.environ.get("SERVE_FUZZED", "240"))
SWAPS = int(os.environ.get("SERVE_SWAPS", "2"))
REQUESTS = int(os.environ.get("SERVE_REQUESTS", "20"))
OVERLOAD_S = float(os.environ.get("SERVE_OVERLOAD_S", "2"))
IDLE = int(os.environ.get("SERVE_IDLE", "500"))
DESCRIPTORS = int(os.environ.get("SERVE_DESCRIPTORS", "256"))
VANISHING = int(os.environ.get("SERVE_VANISHING", "40"))


def test_no_request_is_lost_while_versions_change(start_server, exports, files, tmp_path):
    server = start_server(exports, "--poll_s=0.1")
    expected = saved_model.load(exports)(files[:8])[0]
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    seen, stopped, count = set(), False, 0

    def work() -> None:
        nonlocal count
        while not stopped:
            response = predict(stub, files[:8])
            assert texts(response) == expected
            seen.add(response.model_spec.version.value)
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
                shutil.copytree(exports / "1", tmp_path / "staging")
                (tmp_path / "staging").rename(exports / str(version))
                wait_for(version)
            (exports / "999").mkdir()  # damaged: skipped, and reported
            (exports / "999" / "saved_model.pb").write_bytes(b"junk")
            seen.clear()
            time.sleep(1.0)
            assert seen == {version}
            shutil.rmtree(exports / "999")
            shutil.rmtree(exports / str(version))  # a roll-back
            wait_for(version - 1)
            while count < REQUESTS:
                time.sleep(0.1)
        finally:
            stopped = True
        for client in clients:
            client.result()
    print(f"{SWAPS} swaps, {count} requests")
    assert server.end()[0] == 143
    assert "version 999 is not served: " in (tmp_path / "log").read_text("utf-8")


def test_an_incomplete_version_is_skipped_until_it_is_complete(start_server, exports, files, tmp_path):
    server = start_server(exports, "--poll_s=0.1")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))

    def wait_for(version: int) -> None:
        deadline = time.monotonic() + 60
        while predict(stub, files[:1]).model_spec.version.value != version:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    shutil.copytree(exports / "1", exports / "4", ignore=shutil.ignore_patterns("variables", "assets*"))  # half copied
    invalid = exports / "3" / "assets.extra" / warmup.NAME
    shutil.copytree(exports / "1", tmp_path / "staging")
    with tf.io.TFRecordWriter(str(tmp_path / "staging" / "assets.extra" / warmup.NAME)) as writer:
        writer.write(wire.encode_log(wire.bytes_field(1, wire.int_field(3, 5)) + wire.bytes_field(2, b"")))
    (tmp_path / "staging").rename(exports / "3")
    shutil.copytree(exports / "1", exports / str(2**63))  # beyond what a server can number
    shutil.copytree(exports / "1", tmp_path / "complete")
    (tmp_path / "complete").rename(exports / "2")
    wait_for(2)
    shutil.copytree(exports / "1", exports / "4", dirs_exist_ok=True)
    wait_for(4)
    for version in (1, 2, 3, 4):
        shutil.rmtree(exports / str(version))
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "ocr"
    assert stub.GetModelMetadata(request).metadata["signature_def"].ByteSize() > 100
    assert predict(stub, files[:1]).model_spec.version.value == 4
    assert server.end()[0] == 143
    log = (tmp_path / "log").read_text("utf-8")
    assert f"version 3 is not served: {invalid}: damaged" in log
    assert "version 4 is not served: " in log


def test_a_stalled_client_does_not_block_shutdown(start_server, exports):
    server = start_server(exports)
    host, port = server.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as stalled:
        stalled.sendall(b"POST /v1/models/ocr:predict HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{")
        with socket.create_connection((host, int(port))) as oversized:
            oversized.sendall(b"POST /v1/models/ocr:predict HTTP/1.1\r\nHost: here\r\nContent-Length: 99999999999\r\n\r\n{")
            assert oversized.recv(100).startswith(b"HTTP/1.1 413 ")
        begun = time.monotonic()
        assert server.end()[0] == 143
        assert time.monotonic() - begun < 20.0
    assert "Traceback" not in (exports.parent / "log").read_text("utf-8")


def test_overload_is_refused_and_accepted_requests_are_answered(start_server, exports, files, tmp_path):
    server = start_server(exports, "--max_waiting=16", "--max_batch=8")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    expected = saved_model.load(exports)(files[:8])[0]
    calls = [stub.Predict.future(predict_request(files[:8])) for _ in range(200)]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    for call, code in zip(calls, codes, strict=True):
        if code == grpc.StatusCode.OK:
            assert texts(call.result()) == expected
    body = {"instances": [b64(file) for file in files[:8]]}
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        responses = list(pool.map(lambda _: post(f"{server.rest}/v1/models/ocr:predict", body), range(80)))
    assert {status for status, _ in responses} == {200, 429}
    with pytest.raises(grpc.RpcError) as caught:
        predict(stub, files[:100], timeout=0.005)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert texts(predict(stub, files[:1])) == expected[:1]
    with Client(server.grpc) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:  # the client retries
        assert all(read == expected for read, *_ in pool.map(lambda _: client(files[:8]), range(16)))
    assert server.end(signal.SIGINT)[0] == 130


def memory(server) -> int:
    """Returns the resident memory of a server's process in KiB."""
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def mutated(files: list[bytes], rng: np.random.Generator) -> bytes:
    """Returns an image file with some bytes changed, deleted, doubled or zeroed."""
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


def test_mutated_images_neither_crash_the_server_nor_affect_others_in_their_batch(start_server, exports, files, tmp_path):
    server = start_server(exports)
    rng = np.random.default_rng(0)
    sources = []
    for file in files[:10]:
        image = Image.open(io.BytesIO(file))
        for kind in ("PNG", "JPEG", "GIF", "BMP"):
            converted = io.BytesIO()
            image.save(converted, kind)
            sources.append(converted.getvalue())
    expected = saved_model.load(exports)(files[:8])[0]
    memories = []
    with Client(server.grpc) as client:
        for done in range(0, FUZZED, 8):
            pairs = [(good, mutated(sources, rng)) for good in files[:8]]
            read, confidences, statuses = client([image for pair in pairs for image in pair])
            assert read[::2] == expected, done
            assert set(statuses[1::2]) <= {READ, UNDECODABLE, TOO_LARGE, NO_CONTRAST}  # some become blank
            assert not confidences[1::2][statuses[1::2] > 0].any()
            memories.append(memory(server))
    print(f"{FUZZED} mutated images, memory {memories[len(memories) // 5]} to {memories[-1]} KiB")
    assert memories[-1] < 1.25 * memories[len(memories) // 5]
    assert server.end()[0] == 143


def test_sustained_overload_costs_neither_memory_nor_latency(start_server, exports, files, tmp_path):
    server = start_server(exports, "--max_waiting=128")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    expected = saved_model.load(exports)(files[:8])[0]
    request = predict_request(files[:8])
    predict(stub, files[:8])
    before = memory(server)
    end, seconds, refused = time.monotonic() + OVERLOAD_S, [], []

    def work() -> None:
        while time.monotonic() < end:
            begun = time.monotonic()
            try:
                response = stub.Predict(request)
            except grpc.RpcError as error:
                refused.append(error.code())
                continue
            seconds.append(time.monotonic() - begun)
            assert texts(response) == expected

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        for client in [pool.submit(work) for _ in range(64)]:
            client.result()
    rate = 8 * len(seconds) / OVERLOAD_S
    print(f"{len(seconds)} answered, {len(refused)} refused, {rate:.0f} lines/s, p99 {np.quantile(seconds, 0.99):.2f} s")
    assert set(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(refused) > 3 * len(seconds), "the clients must ask for at least four times what can be answered"
    assert np.quantile(seconds, 0.99) < 4 * (128 + 32) / rate + 1.0
    assert memory(server) < 1.25 * before
    begun = time.monotonic()
    predict(stub, files[:8])
    assert time.monotonic() - begun < 5.0
    assert server.end()[0] == 143


def test_shutdown_drains_accepted_requests_and_refuses_new_ones(start_server, exports, files, tmp_path):
    server = start_server(exports)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    expected = saved_model.load(exports)(files[:32])[0]
    calls = [stub.Predict.future(predict_request(files[:32])) for _ in range(8)]
    calls[0].result()
    server.process.send_signal(signal.SIGTERM)
    late = []
    while server.process.poll() is None:
        late.append(stub.Predict.future(predict_request(files[:1])).code())
    for call in calls:
        assert texts(call.result()) == expected
    assert set(late) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    server.process.communicate()
    assert server.process.returncode == 143


BEGINNINGS = [
    b"",
    b"GET /readyz HTTP/1.1\r\nHost:",
    b"POST /v1/models/ocr:predict HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{",
    b"GET /readyz HTTP/1.1\r\nHost: here\r\n\r\n",
]


@pytest.fixture
def many_files():
    """Lets this process open as many files as the idle connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * IDLE + 1000
    assert hard == resource.RLIM_INFINITY or hard >= needed
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_keep_the_server_from_nothing(start_server, exports, files, tmp_path, many_files):
    server = start_server(exports, "--poll_s=0.1", descriptors=DESCRIPTORS)
    expected = saved_model.load(exports)(files[:1])[0]
    url, body = f"{server.rest}/v1/models/ocr:predict", {"instances": [b64(files[0])]}
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    assert texts(predict(stub, files[:1])) == expected
    idle = []
    slowest = 0.0
    for address in (server.rest.removeprefix("http://"), server.grpc):
        host, port = address.split(":")
        for count in range(IDLE):
            idle.append(socket.create_connection((host, int(port)), timeout=30))
            idle[-1].sendall(BEGINNINGS[count % len(BEGINNINGS)])
            if count % (IDLE // 20) == 0:
                begun = time.monotonic()
                status, response = post(url, body)
                assert (status, response["predictions"][0]["text"]) == (200, expected[0])
                assert texts(predict(stub, files[:1])) == expected
                slowest = max(slowest, time.monotonic() - begun)
    print(f"2 x {IDLE} idle connections, {DESCRIPTORS} descriptors, slowest pair of answers {slowest:.2f} s")
    shutil.copytree(exports / "1", tmp_path / "staging")
    (tmp_path / "staging").rename(exports / "2")
    deadline = time.monotonic() + 60
    while predict(stub, files[:1]).model_spec.version.value != 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with Client(server.grpc) as client:  # a new one, once the connections that never spoke have timed out
        while True:
            try:
                assert client(files[:1])[0] == expected
                break
            except InputError:
                assert time.monotonic() < deadline
    for connection in idle:
        connection.close()
    assert server.end() == (143, {"interrupted": True, "version": 2})
    log = (tmp_path / "log").read_text("utf-8")
    assert "Traceback" not in log
    assert len(log.splitlines()) < 10, log


def test_versions_that_vanish_keep_the_server_from_nothing(start_server, exports, files, tmp_path):
    server = start_server(exports, "--poll_s=0.01")
    expected = saved_model.load(exports)(files[:1])[0]
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))
    for count in range(60):
        (tmp_path / "seed" / f"d{count}").mkdir(parents=True)
        (tmp_path / "seed" / f"d{count}" / "f").touch()
    (tmp_path / "seed" / "saved_model.pb").touch()
    for count in range(VANISHING):
        shutil.copytree(tmp_path / "seed", exports / "9")
        time.sleep(0.01 * (count % 4))
        shutil.rmtree(exports / "9")
        if count % (VANISHING // 20) == 0:
            assert texts(predict(stub, files[:1])) == expected
            assert get(f"{server.rest}/readyz")[0] == 200
    (tmp_path / "staging").mkdir()
    shutil.copytree(exports / "1", tmp_path / "staging" / "10")
    (tmp_path / "staging" / "10").rename(exports / "10")
    deadline = time.monotonic() + 60
    while predict(stub, files[:1]).model_spec.version.value != 10:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.end()[0] == 143
    log = (tmp_path / "log").read_text("utf-8")
    assert "Traceback" not in log
    assert log.count("version 9 is not served: ") < 10, log
