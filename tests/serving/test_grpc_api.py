import json

import grpc
import numpy as np
import pytest
import tensorflow as tf
from http_and_grpc import get, predict, predict_request
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"name": "other"}, grpc.StatusCode.NOT_FOUND),
        ({"signature": "none"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"signature": "lines"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["no model", "no signature", "signature with other inputs"],
)
def test_a_request_to_the_wrong_model_is_refused(stub, files, options: dict[str, str], code: grpc.StatusCode):
    with pytest.raises(grpc.RpcError) as caught:
        predict(stub, files[:1], **options)
    assert caught.value.code() == code


def test_a_shape_without_its_values_is_refused(stub, files):
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
    for sizes, message in ([-1], "shape"), ([100], "fewer values than its shape"):  # of one file, sent once
        request = predict_request(files[:1])
        request.inputs["image_bytes"].tensor_shape.ClearField("dim")
        for size in sizes:
            request.inputs["image_bytes"].tensor_shape.dim.add(size=size)
        with pytest.raises(grpc.RpcError, match=message) as caught:
            stub.Predict(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_invalid_request_is_refused_with_its_reason(stub, files):
    wide = predict_request([], "lines")
    wide.ClearField("inputs")
    for name, kind, shape in (("pixels", tf.uint8, (0, 32, 60_000_000)), ("width", tf.int32, (0,))):
        wide.inputs[name].dtype = kind.as_datatype_enum
        for size in shape:
            wide.inputs[name].tensor_shape.dim.add(size=size)
    overflowing = predict_request([], "lines")
    overflowing.ClearField("inputs")
    overflowing.inputs["pixels"].CopyFrom(tf.make_tensor_proto(np.zeros([1, 32, 1], np.uint8)))
    overflowing.inputs["pixels"].ClearField("tensor_content")
    overflowing.inputs["pixels"].int_val.extend([300] * 32)
    overflowing.inputs["width"].CopyFrom(tf.make_tensor_proto(np.ones(1, np.int32)))
    resource = predict_request(files[:1])
    resource.inputs["image_bytes"].dtype = 20
    other_input = predict_request(files[:1])
    other_input.inputs["x" * 50_000].CopyFrom(other_input.inputs["image_bytes"])
    filtered = predict_request(files[:1])
    filtered.output_filter.append("x" * 100_000)
    for invalid, message in (
        (wide, "at most 8000 pixels wide"),
        (overflowing, "inputs: "),
        (resource, "inputs: "),
        (other_input, "the inputs are"),
        (filtered, "output_filter: there is no xxx"),
    ):
        with pytest.raises(grpc.RpcError, match=message) as caught:
            stub.Predict(invalid)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_response_has_the_outputs_that_were_requested(stub, files):
    response = predict(stub, files[:1])
    assert sorted(response.outputs) == ["confidence", "status", "text"]
    assert response.model_spec.version.value == 1
    request = predict_request(files[:1])
    request.output_filter.append("text")
    assert list(stub.Predict(request).outputs) == ["text"]


def test_signatures_and_versions_are_described_over_both_interfaces(server):
    channel = grpc.insecure_channel(server.grpc)
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "ocr"
    response = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "detailed", "lines"} <= set(signatures.signature_def)
    _, body = get(f"{server.rest}/v1/models/ocr/metadata")
    assert json.loads(body)["metadata"]["signature_def"]["signature_def"].keys() == set(signatures.signature_def)
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "ocr"
    (version,) = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status).model_version_status
    assert (version.version, version.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    _, body = get(f"{server.rest}/v1/models/ocr")
    assert json.loads(body)["model_version_status"][0]["state"] == "AVAILABLE"
