"""Requests to a server, for tests."""

import base64
import json
import urllib.error
import urllib.request

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2


def get(url: str) -> tuple[int, bytes]:
    """Returns the status and the body of a response."""
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def post(url: str, body: object, **headers: str) -> tuple[int, dict]:
    """Returns the status and the JSON of a response."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def b64(file: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(file).decode()}


def predict_request(images: list[bytes], signature: str = "", name: str = "ocr") -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string, [len(images)]))
    return request


def predict(stub, images: list[bytes], signature: str = "", name: str = "ocr", **options):
    return stub.Predict(predict_request(images, signature, name), **options)


def texts(response: predict_pb2.PredictResponse) -> list[str]:
    return [text.decode() for text in response.outputs["text"].string_val]
