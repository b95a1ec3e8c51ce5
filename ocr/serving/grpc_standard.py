"""gRPC's standard services: the health of the server, as probes ask for it, and descriptions of its services (reflection).

See https://grpc.io/docs/guides/health-checking and https://grpc.io/docs/guides/reflection.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool

from ocr.serving.connections import SILENT_S
from ocr.serving.grpc_messages import HEALTH, POOL, REFLECTION, message_class
from ocr.serving.service import Service

_POLL_S = 0.5  # between two looks at the state of the server
_MAX_NAME_LENGTH = 100  # in a message

_CheckRequest, _CheckResponse = message_class(HEALTH, "HealthCheckRequest"), message_class(HEALTH, "HealthCheckResponse")
_ListRequest, _ListResponse = message_class(HEALTH, "HealthListRequest"), message_class(HEALTH, "HealthListResponse")


def add_to_server(server: grpc.aio.Server, service: Service, services: Sequence[str], max_streams: int) -> None:
    """Adds both services to a server.

    Args:
      server: The server.
      service: Knows whether the server is shutting down, and the name of its model.
      services: Full names of the other gRPC services of the server.
      max_streams: How many calls of each service that last may be open at a time.
    """
    health = Health(service, services, max_streams)
    check, listing, watch = _CheckResponse.SerializeToString, _ListResponse.SerializeToString, _CheckResponse.SerializeToString
    methods = {
        "Check": grpc.unary_unary_rpc_method_handler(health.check, _CheckRequest.FromString, check),
        "List": grpc.unary_unary_rpc_method_handler(health.list, _ListRequest.FromString, listing),
        "Watch": grpc.unary_stream_rpc_method_handler(health.watch, _CheckRequest.FromString, watch),
    }
    handlers = [grpc.method_handlers_generic_handler(f"{HEALTH}.Health", methods)]
    reflections = [f"{package}.ServerReflection" for package in REFLECTION]
    names = [*services, f"{HEALTH}.Health", *reflections]
    for package, name in zip(REFLECTION, reflections, strict=True):
        request, response = (message_class(package, f"ServerReflection{kind}") for kind in ("Request", "Response"))
        info = Reflection(service, names, max_streams, response).info
        method = grpc.stream_stream_rpc_method_handler(info, request.FromString, response.SerializeToString)
        handlers.append(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}))
    server.add_generic_rpc_handlers(tuple(handlers))


class _Streams:
    """Counts calls that last, which are bounded: each costs memory, and keeps its connection open."""

    def __init__(self, limit: int):
        self._limit, self._open = limit, 0

    @contextlib.asynccontextmanager
    async def counted(self, context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
        """Counts a call while this context lasts; aborts the call if there are too many."""
        self._open += 1
        try:
            if self._open > self._limit:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {self._limit} calls of this kind are open")
            yield
        finally:
            self._open -= 1


class Health:
    """Says whether the server serves: by the empty name, by that of the model, and by those of the gRPC services.

    A server listens once a version is loaded and never unloads the last one, so it serves until it shuts down.

    Args:
      service: Knows whether the server is shutting down, and the name of its model.
      services: Full names of the gRPC services.
      max_streams: How many calls may watch at a time.
    """

    def __init__(self, service: Service, services: Sequence[str], max_streams: int):
        self._service, self._streams = service, _Streams(max_streams)
        self._names = ("", service.model_name, *services)

    def _response(self, name: str) -> Any:
        if name not in self._names:
            return _CheckResponse(status=_CheckResponse.SERVICE_UNKNOWN)
        return _CheckResponse(status=_CheckResponse.NOT_SERVING if self._service.draining else _CheckResponse.SERVING)

    async def check(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Returns the status of a name."""
        if request.service not in self._names:
            known = ", ".join(filter(None, self._names))
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.service[:_MAX_NAME_LENGTH]!r} is not one of {known}")
        return self._response(request.service)

    async def list(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Returns the status of every name."""
        return _ListResponse(statuses={name: self._response(name) for name in self._names})

    async def watch(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        """Yields the status of a name now and when the server shuts down, which ends the call."""
        async with self._streams.counted(context):
            yield self._response(request.service)
            while not self._service.draining:
                await asyncio.sleep(_POLL_S)
            yield self._response(request.service)


class Reflection:
    """Describes services, so that tools such as grpcurl can call them.

    Args:
      service: Knows whether the server is shutting down.
      names: Full names of the services.
      max_streams: How many calls may be open at a time.
      response: Class of the responses.
    """

    def __init__(self, service: Service, names: Sequence[str], max_streams: int, response: Any):
        self._service, self._names, self._streams, self._response = service, names, _Streams(max_streams), response

    async def info(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        """Answers requests until the client is silent for too long or the server shuts down."""
        async with self._streams.counted(context):
            async for request in self._until_silent(requests):
                yield self._answer(request)

    def _answer(self, request: Any) -> Any:
        response = self._response(valid_host=request.host, original_request=request)
        if request.HasField("list_services"):
            for name in sorted(self._names):
                response.list_services_response.service.add(name=name)
        elif request.HasField("file_containing_symbol") or request.HasField("file_by_filename"):
            try:
                files = list(_files(request))
            except KeyError:
                response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
                response.error_response.error_message = "there is no such symbol or file"
            else:
                response.file_descriptor_response.file_descriptor_proto.extend(files)
        else:
            response.error_response.error_code = grpc.StatusCode.UNIMPLEMENTED.value[0]
            response.error_response.error_message = "extensions are not described"
        return response

    async def _until_silent(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        iterator = aiter(requests)
        while True:
            reading = asyncio.ensure_future(anext(iterator, None))
            deadline = time.monotonic() + SILENT_S
            try:
                while not reading.done():
                    if self._service.draining or time.monotonic() > deadline:
                        return
                    await asyncio.wait({reading}, timeout=_POLL_S)
            finally:
                reading.cancel()
            if (request := reading.result()) is None:
                return
            yield request


def _files(request: Any) -> Iterator[bytes]:
    """Yields the file that a request names, and those that it needs, as serialized FileDescriptorProto.

    Raises:
      KeyError: There is none.
    """
    find, name = "FindFileContainingSymbol", request.file_containing_symbol
    if request.HasField("file_by_filename"):
        find, name = "FindFileByName", request.file_by_filename
    try:
        file = getattr(POOL, find)(name)
    except KeyError:
        file = getattr(descriptor_pool.Default(), find)(name)
    files, waiting = {file.name: file}, [file]
    while waiting:
        needed = [other for other in waiting.pop().dependencies if other.name not in files]
        files |= {other.name: other for other in needed}
        waiting += needed
    for each in files.values():
        yield each.serialized_pb
