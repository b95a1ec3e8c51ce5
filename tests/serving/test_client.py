import concurrent.futures

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
