"""TensorFlow Serving's REST interface, the metrics, and the page."""

import asyncio
import base64
import binascii
import json
import pathlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import prometheus_client
from aiohttp import http_exceptions, web
from google.protobuf import json_format

from ocr.serving import grpc_api, wire
from ocr.serving.service import ModelRequest, RequestError, Service

_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_PAGE = pathlib.Path(__file__).parent / "web"
_FILES = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_BODY_S = 60.0  # for a body to come
_LOOK_S = 0.5  # between two looks whether the server is to end
_MODEL = "/v1/models/{name:[^/:]+}"
_VERSION = "/versions/{version:[0-9]{1,18}}"
_LABEL = "/labels/{label:[^/:]+}"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(service: Service, max_bytes: int) -> web.Application:
    """Returns what answers HTTP requests.

    Args:
      service: that reads.
      max_bytes: of a request.
    """

    @web.middleware
    async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RequestError as refused:
            return _error(_HTTP.get(refused.code, 500), str(refused))
        except web.HTTPException as error:
            return _error(error.status, error.text or error.reason)

    async def predict(request: web.Request) -> web.StreamResponse:
        with service.counted():
            body = await _body(request, service, max_bytes)
            asked, inputs, rows = await asyncio.to_thread(_parse_request, _asked(request), body, service)
            _, outputs = await service.predict(asked, inputs, None)
            return web.json_response(await asyncio.to_thread(_answer, outputs, rows), dumps=_dumps)

    async def status(request: web.Request) -> web.StreamResponse:
        found = json_format.MessageToDict(
            grpc_api.status(service, _asked(request)),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        return web.json_response(found, dumps=_dumps)

    async def describe(request: web.Request) -> web.StreamResponse:
        version = service.find(_asked(request))
        of_model = json_format.MessageToDict(version.signatures, preserving_proto_field_name=True)
        spec = {"name": wire.MODEL, "signature_name": "", "version": str(version.number)}
        return web.json_response({"model_spec": spec, "metadata": {"signature_def": of_model}}, dumps=_dumps)

    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(
            body=prometheus_client.generate_latest(service.registry),
            headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
        )

    async def alive(_: web.Request) -> web.StreamResponse:
        return web.Response(text="alive\n")

    async def ready(_: web.Request) -> web.StreamResponse:
        return web.Response(text="about to end\n", status=503) if service.draining else web.Response(text="ready\n")

    async def page(request: web.Request) -> web.StreamResponse:
        name, kind = _FILES[request.path]
        return web.Response(body=(_PAGE / name).read_bytes(), content_type=kind, charset="utf-8", headers=_HEADERS)

    app = web.Application(middlewares=[errors], client_max_size=max_bytes)
    for which in ("", _VERSION, _LABEL):
        app.router.add_post(f"{_MODEL}{which}:predict", predict)
        app.router.add_get(f"{_MODEL}{which}", status)
        app.router.add_get(f"{_MODEL}{which}/metadata", describe)
    app.router.add_get("/monitoring/prometheus/metrics", metrics)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    for path in _FILES:
        app.router.add_get(path, page)
    return app


def _error(status: int, message: str) -> web.Response:
    message = message.encode("utf-8", "backslashreplace").decode()  # a body may name half a character
    return web.json_response({"error": message}, status=status, dumps=_dumps)


async def _body(request: web.Request, service: Service, max_bytes: int) -> bytes:
    """Returns the body of a request.

    Raises:
      Refused: it did not come, or not in time.
      web.HTTPRequestEntityTooLarge: it is larger than may be.
    """
    if (announced := request.content_length or 0) > max_bytes:
        raise web.HTTPRequestEntityTooLarge(max_bytes, announced)
    reading = asyncio.ensure_future(request.read())
    end = time.monotonic() + _BODY_S
    while not reading.done() and not service.draining and time.monotonic() < end:
        await asyncio.wait({reading}, timeout=_LOOK_S)
    if not reading.done():
        reading.cancel()
        if service.draining:
            raise RequestError(grpc.StatusCode.UNAVAILABLE, "the server is about to end")
        raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, f"the body did not come within {_BODY_S:.0f} seconds")
    try:
        return reading.result()
    except (web.RequestPayloadError, http_exceptions.HttpProcessingError, OSError) as error:
        raise _bad(f"the body cannot be read: {error}") from error


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _asked(request: web.Request) -> ModelRequest:
    match = request.match_info
    version = int(match["version"]) if "version" in match else None
    return ModelRequest(match["name"], version, match.get("label", ""))


def _parse_request(asked: ModelRequest, body: bytes, service: Service) -> tuple[ModelRequest, dict[str, np.ndarray], bool]:
    """Returns what a request asks: the model, its inputs by name, and whether they came, and the answer is to go, row by row.

    Raises:
      Refused: it is none.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _bad(f"the body is not JSON: {error}") from error
    if not isinstance(given, dict) or ("instances" in given) == ("inputs" in given):
        raise _bad("the body must be an object with either instances or inputs")
    signature = given.get("signature_name", "")
    if not isinstance(signature, str):
        raise _bad("signature_name must be a string")
    asked = asked._replace(signature=signature)
    wanted = service.signature(asked)
    if isinstance(given.get("instances"), list):
        service.check_lines(len(given["instances"]))  # before anything is made of each
    columns = _columns(given["instances"], list(wanted)) if "instances" in given else given["inputs"]
    if not isinstance(columns, dict) or "b64" in columns:
        if len(wanted) > 1:
            raise _bad(f"inputs must be an object with {', '.join(wanted)}")
        columns = dict.fromkeys(wanted, columns)
    inputs = {}
    for name, values in columns.items():
        if not isinstance(values, list):
            raise _bad(f"{name}: not a list")
        if name == "image_bytes":
            inputs[name] = np.empty(len(values), object)
            inputs[name][:] = [_bytes(value) for value in values]
        elif name in wanted:
            inputs[name] = _numbers(name, values, wanted[name].dtype.as_numpy_dtype)
    service.check_sizes(asked, {name: inputs[name].shape if name in inputs else () for name in columns})
    return asked, inputs, "instances" in given


def _columns(instances: Any, names: list[str]) -> dict[str, list]:
    """Returns the inputs by name that come row by row: as objects, or bare where there is but one input."""
    if not isinstance(instances, list):
        raise _bad("instances: not a list")
    if len(names) == 1 and not all(isinstance(row, dict) and names[0] in row for row in instances):
        instances = [{names[0]: row} for row in instances]
    if not all(isinstance(row, dict) and sorted(row) == sorted(names) for row in instances):
        raise _bad(f"instances: each must be an object with {', '.join(names)}")
    return {name: [row[name] for row in instances] for name in names}


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise _bad(f"b64: {error}") from error
    raise _bad('image_bytes: each must be {"b64": "…"}')


def _numbers(name: str, values: list, kind: type) -> np.ndarray:
    try:
        found = np.array(values)
    except ValueError as error:
        raise _bad(f"{name}: rows of different shapes") from error
    if found.size and (found.dtype.kind not in "iu" or (found.astype(kind) != found).any()):
        raise _bad(f"{name}: has values that are no {np.dtype(kind).name}")
    return found.astype(kind)


def _bad(message: str) -> RequestError:
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def _answer(outputs: dict[str, np.ndarray], rows: bool) -> dict[str, Any]:
    columns = {name: _plain(value.tolist()) for name, value in outputs.items()}
    if not rows:
        return {"outputs": columns}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value
