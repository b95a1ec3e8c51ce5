"""TensorFlow Serving's gRPC interface, on its own messages: PredictionService and ModelService."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from ocr.serving import wire
from ocr.serving.service import ModelRequest, RequestError, Service


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; what else there is, is for models of other kinds."""

    def __init__(self, service: Service):
        self._service = service

    async def Predict(self, request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext):
        async def counted():
            with self._service.counted():
                return await self._predict(request, context)

        return await _answered(context, counted)

    async def _predict(self, request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext):
        asked = _asked(request.model_spec)
        shapes = {name: tuple(d.size for d in value.tensor_shape.dim) for name, value in request.inputs.items()}
        # A small message may name a large shape.
        self._service.check_sizes(asked, shapes)
        for name, shape in shapes.items():
            sent = len(request.inputs[name].string_val) if name == "image_bytes" else request.ByteSize()
            if math.prod(shape) > sent:
                raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: fewer values than its shape {list(shape)} says")
        try:
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, f"inputs: {error}") from error
        version, outputs = await self._service.predict(asked, inputs, context.time_remaining())
        response = predict_pb2.PredictResponse(model_spec=_spec(version.number, asked.signature or "serving_default"))
        wanted = set(request.output_filter)
        if unknown := wanted - outputs.keys():
            raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, f"output_filter: there is no {', '.join(sorted(unknown))}")
        for name, value in outputs.items():
            if not wanted or name in wanted:
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value, tf.string if value.dtype == object else None))
        return response

    async def GetModelMetadata(self, request, context: grpc.aio.ServicerContext):
        async def found():
            if unknown := set(request.metadata_field) - {"signature_def"}:
                raise RequestError(
                    grpc.StatusCode.INVALID_ARGUMENT, f"metadata_field: there is no {', '.join(sorted(unknown))}"
                )
            version = self._service.find(_asked(request.model_spec))
            response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=_spec(version.number))
            response.metadata["signature_def"].Pack(version.signatures)
            return response

        return await _answered(context, found)


class Model(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus. Which versions there are is said by the folder alone."""

    def __init__(self, service: Service):
        self._service = service

    async def GetModelStatus(self, request, context: grpc.aio.ServicerContext):
        async def found():
            return status(self._service, _asked(request.model_spec))

        return await _answered(context, found)


def status(service: Service, asked: ModelRequest) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the state of the versions, or of the one that is asked for.

    Raises:
      Refused: there is no such model or version.
    """
    states = service.versions.states
    if asked.name != wire.MODEL or asked.label or asked.version not in (None, *states):
        service.find(asked)
    response = get_model_status_pb2.GetModelStatusResponse()
    for number, state in sorted(states.items(), reverse=True):
        if asked.version in (None, number):
            response.model_version_status.add(version=number, state=state).status.error_code = 0
    return response


async def _answered(context: grpc.aio.ServicerContext, answer: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await answer()
    except RequestError as refused:
        await context.abort(refused.code, str(refused))


def _asked(spec: model_pb2.ModelSpec) -> ModelRequest:
    version = spec.version.value if spec.HasField("version") else None
    return ModelRequest(spec.name, version, spec.version_label, spec.signature_name)


def _spec(number: int, signature: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=wire.MODEL, signature_name=signature)
    spec.version.value = number
    return spec
