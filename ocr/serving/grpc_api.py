"""TensorFlow Serving's gRPC interface, with its own messages: PredictionService and ModelService."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from ocr.serving.service import ModelRequest, RequestError, Service, invalid_argument
from ocr.serving.versions import END
from tfrecords import errors

_FILES = (prediction_service_pb2.DESCRIPTOR, model_service_pb2.DESCRIPTOR)
SERVICES = tuple(each.full_name for file in _FILES for each in file.services_by_name.values())
_UNKNOWN = grpc.StatusCode.UNKNOWN.value[0]


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the other methods of PredictionService are for other kinds of models."""

    def __init__(self, service: Service):
        self._service = service

    async def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs a signature."""

        async def measured_predict() -> predict_pb2.PredictResponse:
            with self._service.measured():
                return await self._predict(request, context)

        return await _or_abort(context, measured_predict, self._service)

    async def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext
    ) -> predict_pb2.PredictResponse:
        signature = self._service.find_signature(_model_request(request.model_spec))
        shapes = {name: tuple(d.size for d in value.tensor_shape.dim) for name, value in request.inputs.items()}
        # A small message can claim a large shape, so check before decoding.
        self._service.check_shapes(signature, shapes)
        for name, shape in shapes.items():
            is_text = signature.inputs[name].dtype == tf.string
            sent = len(request.inputs[name].string_val) if is_text else request.ByteSize()
            if math.prod(shape) > sent:
                raise invalid_argument(f"{name}: fewer values than its shape {list(shape)} says")
        try:
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise invalid_argument(f"inputs: {error}") from error
        outputs = await self._service.predict(signature, inputs, context.time_remaining())
        spec = _model_spec(self._service, signature.version.number, signature.name)
        response = predict_pb2.PredictResponse(model_spec=spec)
        requested = set(request.output_filter)
        if unknown := requested - outputs.keys():
            raise invalid_argument(f"output_filter: there is no {', '.join(sorted(unknown))}")
        for name, value in outputs.items():
            if not requested or name in requested:
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value, tf.string if value.dtype == object else None))
        return response

    async def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Describes the model's signatures."""

        async def metadata() -> get_model_metadata_pb2.GetModelMetadataResponse:
            if unknown := set(request.metadata_field) - {"signature_def"}:
                raise invalid_argument(f"metadata_field: there is no {', '.join(sorted(unknown))}")
            version = self._service.find_version(_model_request(request.model_spec))
            response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=_model_spec(self._service, version.number))
            response.metadata["signature_def"].Pack(version.signatures)
            return response

        return await _or_abort(context, metadata, self._service)


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; there is no HandleReloadConfigRequest, since the folder alone decides which versions there are."""

    def __init__(self, service: Service):
        self._service = service

    async def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.aio.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Lists the versions with their states."""

        async def status() -> get_model_status_pb2.GetModelStatusResponse:
            return model_status(self._service, _model_request(request.model_spec))

        return await _or_abort(context, status, self._service)


def model_status(service: Service, model: ModelRequest) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the states of all versions, or of the one that is named; those that cannot be loaded have an error.

    Raises:
      RequestError: There is no such model or version.
    """
    wanted = service.version_number(model)
    failures = service.versions.failures()
    states = {**dict.fromkeys(failures, END), **service.versions.states}
    if wanted not in (None, *states):
        raise service.not_served(model)
    response = get_model_status_pb2.GetModelStatusResponse()
    for number in sorted(states if wanted is None else [wanted], reverse=True):
        status = response.model_version_status.add(version=number, state=states[number]).status
        if number in failures:
            status.error_code, status.error_message = _UNKNOWN, failures[number]
        else:
            status.error_code = 0
    return response


async def _or_abort(context: grpc.aio.ServicerContext, respond: Callable[[], Awaitable[Any]], service: Service) -> Any:
    """Returns the response; a RequestError becomes the call's status, and so does whatever else fails."""
    try:
        return await respond()
    except RequestError as error:
        code, message = error.code, str(error)
    except Exception as error:  # noqa: BLE001 - the next request may well be answered
        service.failures.add("answering a request", error)
        code, message = grpc.StatusCode.INTERNAL, errors.first_line(error)
    await context.abort(code, message)
    return None


def _model_request(spec: model_pb2.ModelSpec) -> ModelRequest:
    version = spec.version.value if spec.HasField("version") else None
    return ModelRequest(spec.name, version, spec.version_label, spec.signature_name)


def _model_spec(service: Service, version: int, signature: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=service.model_name, signature_name=signature)
    spec.version.value = version
    return spec
