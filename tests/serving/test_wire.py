"""The encoding of TensorFlow Serving's messages, compared with its own classes."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from ocr.serving import wire


def test_requests_and_logs_are_what_tensorflow_serving_understands():
    pixels, width = np.arange(2 * 32 * 300, dtype=np.uint8).reshape(2, 32, 300), np.array([300, 7], np.int32)
    files = [b"", b"\x00\xff" * 3000, "线".encode()]
    message = wire.encode_request("ocr", "lines", {"pixels": pixels, "width": width, "image_bytes": files})
    request = predict_pb2.PredictRequest.FromString(message)
    assert (request.model_spec.name, request.model_spec.signature_name) == ("ocr", "lines")
    decoded = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
    np.testing.assert_array_equal(decoded["pixels"], pixels)
    np.testing.assert_array_equal(decoded["width"], width)
    assert decoded["image_bytes"].tolist() == files
    log = prediction_log_pb2.PredictionLog.FromString(wire.encode_log(message))
    assert log.predict_log.request == request
    signature, inputs = wire.decode_log(wire.encode_log(message))
    assert signature == "lines"
    np.testing.assert_array_equal(inputs["pixels"], pixels)
    assert inputs["image_bytes"].tolist() == files


def one_field_per_value(value: np.ndarray):
    """Returns a message with a field for each value, the other way in which servers may send a tensor."""
    proto = tf.make_tensor_proto(np.zeros(value.shape, value.dtype))
    for field in ("tensor_content", "float_val", "int_val"):
        proto.ClearField(field)
    {"f": proto.float_val, "i": proto.int_val}[value.dtype.kind].extend(value.ravel().tolist())
    return proto


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(np.array([0.25, -1e30, 3.5], np.float32), id="floats"),
        pytest.param(np.array([0.25], np.float32), id="one float"),
        pytest.param(np.array([-1, 2**31 - 1, 0, 300], np.int32), id="integers"),
        pytest.param(np.array([[1, 2], [3, 4]], np.int32), id="matrix"),
        pytest.param(np.zeros([0], np.int32), id="no integers"),
        pytest.param(np.zeros([2, 0], np.float32), id="rows without columns"),
    ],
)
@pytest.mark.parametrize("encode", [tf.make_tensor_proto, one_field_per_value])
def test_numbers_are_decoded_in_either_encoding(value, encode):
    response = predict_pb2.PredictResponse()
    response.outputs["it"].CopyFrom(encode(value))
    (decoded,) = wire.decode_response(response.SerializeToString()).values()
    assert decoded.dtype == value.dtype
    np.testing.assert_array_equal(decoded, value)


@pytest.mark.parametrize(
    "texts",
    [[], [b""], ["白日".encode(), b"", b"a" * 1000], [[b"a", b""], [b"b", b"c"]]],
    ids=["none", "empty", "several", "matrix"],
)
def test_texts_are_decoded(texts):
    response = predict_pb2.PredictResponse()
    response.outputs["text"].CopyFrom(tf.make_tensor_proto(np.array(texts, object), tf.string))
    assert wire.decode_response(response.SerializeToString())["text"].tolist() == texts


def test_a_truncated_response_is_refused():
    response = predict_pb2.PredictResponse()
    response.outputs["text"].CopyFrom(tf.make_tensor_proto([b"abc", b"def"]))
    message = response.SerializeToString()
    for length in range(1, len(message)):
        with pytest.raises((ValueError, LookupError)):
            wire.decode_response(message[:length])


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"junk", id="junk"),
        pytest.param(wire.bytes_field(1, wire.int_field(1, 5)), id="a number for a name"),
        pytest.param(wire.int_field(1, 5), id="a number for an output"),
        pytest.param(wire.bytes_field(1, wire.bytes_field(1, b"text") + wire.int_field(2, 3)), id="a number for a tensor"),
        pytest.param(
            wire.bytes_field(
                1, wire.bytes_field(1, b"text") + wire.bytes_field(2, wire.int_field(1, 3) + wire.int_field(2, 7))
            ),
            id="a number for a shape",
        ),
        pytest.param(
            wire.bytes_field(
                1,
                wire.bytes_field(1, b"it")
                + wire.bytes_field(2, wire.int_field(1, 3) + wire.bytes_field(2, b"") + wire.int_field(7, 2**70)),
            ),
            id="a number of 70 bits",
        ),
    ],
)
def test_an_invalid_message_raises_value_error(message: bytes):
    with pytest.raises(ValueError, match=r"."):
        wire.decode_response(message)
    with pytest.raises(ValueError, match=r"."):
        wire.decode_log(message)
