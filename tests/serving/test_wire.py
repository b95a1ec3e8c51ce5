"""Our encoding of TensorFlow Serving's messages against its own classes."""

import concurrent.futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from ocr.serving import wire
from ocr.serving.client import Client
from tfrecords.errors import IntegrityError


def test_a_request_is_what_serving_understands():
    pixels, width = np.arange(2 * 32 * 300, dtype=np.uint8).reshape(2, 32, 300), np.array([300, 7], np.int32)
    files = [b"", b"\x00\xff" * 3000, "线".encode()]
    message = wire.request("ocr", "lines", {"pixels": pixels, "width": width, "image_bytes": files})
    request = predict_pb2.PredictRequest.FromString(message)
    assert (request.model_spec.name, request.model_spec.signature_name) == ("ocr", "lines")
    found = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
    np.testing.assert_array_equal(found["pixels"], pixels)
    np.testing.assert_array_equal(found["width"], width)
    assert found["image_bytes"].tolist() == files
    log = prediction_log_pb2.PredictionLog.FromString(wire.log(message))
    assert log.predict_log.request == request
    signature, inputs = wire.logged(wire.log(message))
    assert signature == "lines"
    np.testing.assert_array_equal(inputs["pixels"], pixels)
    assert inputs["image_bytes"].tolist() == files


def as_fields(value: np.ndarray):
    """Returns a message with a field a value, as servers may send it too."""
    proto = tf.make_tensor_proto(np.zeros(value.shape, value.dtype))
    for field in ("tensor_content", "float_val", "int_val"):
        proto.ClearField(field)
    {"f": proto.float_val, "i": proto.int_val}[value.dtype.kind].extend(value.ravel().tolist())
    return proto


@pytest.mark.parametrize(
    "value",
    [
        np.array([0.25, -1e30, 3.5], np.float32),
        np.array([0.25], np.float32),
        np.array([-1, 2**31 - 1, 0, 300], np.int32),
        np.array([[1, 2], [3, 4]], np.int32),
        np.zeros([0], np.int32),
        np.zeros([2, 0], np.float32),
    ],
)
@pytest.mark.parametrize("encode", [tf.make_tensor_proto, as_fields])
def test_an_answer_is_decoded_however_its_numbers_are_sent(value, encode):
    response = predict_pb2.PredictResponse()
    response.outputs["it"].CopyFrom(encode(value))
    (found,) = wire.response(response.SerializeToString()).values()
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("texts", [[], [b""], ["白日".encode(), b"", b"a" * 1000], [[b"a", b""], [b"b", b"c"]]])
def test_texts_are_decoded(texts):
    response = predict_pb2.PredictResponse()
    response.outputs["text"].CopyFrom(tf.make_tensor_proto(np.array(texts, object), tf.string))
    assert wire.response(response.SerializeToString())["text"].tolist() == texts


def test_a_cut_answer_is_found():
    response = predict_pb2.PredictResponse()
    response.outputs["text"].CopyFrom(tf.make_tensor_proto([b"abc", b"def"]))
    whole = response.SerializeToString()
    for length in range(1, len(whole)):
        with pytest.raises((ValueError, LookupError)):
            wire.response(whole[:length])


@pytest.mark.parametrize(
    "message",
    [
        b"junk",
        wire._field(1, wire._number(1, 5)),
        wire._number(1, 5),
        wire._field(1, wire._field(1, b"text") + wire._number(2, 3)),
        wire._field(1, wire._field(1, b"text") + wire._field(2, wire._number(1, 3) + wire._number(2, 7))),
        wire._field(
            1, wire._field(1, b"it") + wire._field(2, wire._number(1, 3) + wire._field(2, b"") + wire._number(7, 2**70))
        ),
    ],
)
def test_what_is_no_message_is_said_to_be_none(message: bytes):
    with pytest.raises(ValueError, match=r"."):
        wire.response(message)
    with pytest.raises(ValueError, match=r"."):
        wire.logged(message)


def an_answer(**outputs) -> bytes:
    response = predict_pb2.PredictResponse()
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return response.SerializeToString(deterministic=True)  # it names a test


@pytest.mark.parametrize(
    "answer",
    [
        b"junk",
        an_answer(confidence=[0.5], status=[0]),
        an_answer(text=[b"a", b"b"], confidence=[0.5], status=[0]),
        an_answer(text=[b"\xff"], confidence=[0.5], status=[0]),
        an_answer(text=[1], confidence=[0.5], status=[0]),
    ],
)
def test_a_client_names_a_server_whose_answer_is_none(answer: bytes):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(lambda *_: answer)
    service = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        with Client(f"localhost:{port}") as client, pytest.raises(IntegrityError, match=f"--server=localhost:{port}: "):
            client([b"image"])
    finally:
        server.stop(None)
