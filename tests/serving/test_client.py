import concurrent.futures
import http.server
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from ocr.serving import wire
from ocr.serving.client import Client
from tfrecords.errors import InputError, IntegrityError


def response(**outputs) -> bytes:
    message = predict_pb2.PredictResponse()
    for name, value in outputs.items():
        message.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message.SerializeToString()


@pytest.fixture
def answering():
    """Returns a function that starts a server with one method, and returns its port."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))

    def start(predict) -> int:
        handler = grpc.unary_unary_rpc_method_handler(predict)
        service = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("localhost:0")
        server.start()
        return port

    yield start
    server.stop(None)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"junk", id="junk"),
        pytest.param(response(confidence=[0.5], status=[0]), id="no texts"),
        pytest.param(response(text=[b"a", b"b"], confidence=[0.5], status=[0]), id="two texts for one image"),
        pytest.param(response(text=[b"\xff"], confidence=[0.5], status=[0]), id="text that is not UTF-8"),
        pytest.param(response(text=[1], confidence=[0.5], status=[0]), id="number for a text"),
    ],
)
def test_an_invalid_response_is_refused_with_the_servers_address(answering, message: bytes):
    port = answering(lambda *_: message)
    with Client(f"localhost:{port}") as client, pytest.raises(IntegrityError, match=f"--server=localhost:{port}: "):
        client([b"image"])


def test_overload_is_retried_and_requests_stay_within_the_limits(answering):
    requests: list[list[bytes]] = []
    attempts = 0

    def predict(message: bytes, context: grpc.ServicerContext) -> bytes:
        nonlocal attempts
        attempts += 1
        if attempts % 2:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
        images = wire.decode_log(wire.encode_log(message))[1]["image_bytes"].tolist()
        requests.append(images)
        return response(text=images, confidence=[0.5] * len(images), status=[0] * len(images))

    images = [b"1", b"2", b"3", b"4" * 8, b"5" * 20, b"6"]
    with Client(f"localhost:{answering(predict)}", max_batch=2, max_bytes=1000) as client:
        client._max_bytes = 9  # responses are larger
        texts, confidences, statuses = client(images)
        assert client([])[0] == []
    assert requests == [[b"1", b"2"], [b"3", b"4" * 8], [b"5" * 20], [b"6"]]
    assert attempts == 8
    assert texts == [image.decode() for image in images]
    np.testing.assert_array_equal(confidences, np.full(6, 0.5, np.float32))
    np.testing.assert_array_equal(statuses, np.zeros(6, np.int32))


def test_a_certificate_that_cannot_be_used_is_refused():
    with pytest.raises(InputError, match=r"no\.pem: No such file"):
        Client("localhost:8500", authority="no.pem")
    with pytest.raises(InputError, match="not a certificate in PEM"):
        Client("localhost:8500", authority=__file__)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://localhost:8500", "must be HOST:PORT, without http://, such as localhost:8500"),
        ("https://localhost:8501/v1/models/ocr", "must be HOST:PORT, without https://, such as localhost:8501"),
        ("grpc://localhost", "must be HOST:PORT, without grpc://"),
        ("localhost", "must be HOST:PORT, such as"),
        ("localhost:8500/v1", "must be HOST:PORT, such as"),
        ("localhost:http", "must be HOST:PORT, such as"),
        ("localhost:99999", "must be HOST:PORT, such as"),
        ("localhost:0", "must be HOST:PORT, such as"),
        (":8500", "must be HOST:PORT, such as"),
        ("", "must be HOST:PORT, such as"),
    ],
)
def test_what_is_no_address_is_refused(address: str, message: str):
    with pytest.raises(InputError, match=f"^--server={address}: {message}"):
        Client(address)


@pytest.mark.parametrize("address", ["[::1]:8500", "a-host_1.example:1", "dns:///localhost:8500", "unix:/tmp/socket"])
def test_every_form_of_an_address_is_taken(address: str):
    Client(address).__exit__()


@pytest.fixture
def rest_port(monkeypatch):
    """The port of a server that speaks HTTP/1 and no gRPC."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_port_that_is_not_that_of_grpc_is_named(rest_port):
    with Client(f"127.0.0.1:{rest_port}") as client, pytest.raises(InputError, match="is this gRPC's port"):
        client([b"image"])


def test_the_proxy_on_the_way_is_named(rest_port, answering, monkeypatch):
    address = f"127.0.0.1:{answering(lambda *_: response(text=[b'a'], confidence=[0.5], status=[0]))}"
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{rest_port}")
    with Client(address) as client, pytest.raises(InputError) as caught:
        client([b"image"])
    assert f"through the proxy 127.0.0.1:{rest_port} of http_proxy; no_proxy=127.0.0.1 in" in str(caught.value)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Client(address) as client:
        assert client([b"image"])[0] == ["a"]
