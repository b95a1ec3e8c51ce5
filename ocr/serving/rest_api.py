"""TensorFlow Serving's REST interface, the metrics, the health checks and the web page."""

import asyncio
import json
import logging
import pathlib
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from aiohttp import http_exceptions, web
from google.protobuf import json_format

from ocr.serving import grpc_api, rest_json, server_metrics
from ocr.serving.connections import Connections
from ocr.serving.corrections import Corrections
from ocr.serving.service import ModelRequest, RequestError, Service, invalid_argument
from tfrecords import errors

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_WEB = pathlib.Path(__file__).parent / "web"
_FILES = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_BODY_TIMEOUT_S = 60.0
_POLL_S = 0.5  # between two checks whether the server is shutting down
_MODEL = "/v1/models/{name:[^/:]+}"
_VERSION = "/versions/{version:[0-9]{1,18}}"
_LABEL = "/labels/{label:[^/:]+}"
CORRECTIONS = "/v1/corrections"

# Names of encodings, and the window sizes by which zlib knows them; deflate comes with a header of zlib, or without.
_ENCODINGS = {"": (), "identity": (), "gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _BodyTooLargeError(RequestError):
    def __init__(self, max_bytes: int):
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, f"the body exceeds {max_bytes} bytes, the largest that is allowed")


class _ClientsFaults(logging.Filter):
    """Leaves out what clients send that is not HTTP: they are told so."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], http_exceptions.HttpProcessingError))


HTTP_LOG = logging.getLogger(f"{__name__}.http")
HTTP_LOG.addFilter(_ClientsFaults())


def application(
    service: Service, max_bytes: int, connections: Connections, corrections: Corrections | None = None
) -> web.Application:
    """Returns the application that answers HTTP requests.

    Args:
      service: Reads the lines.
      max_bytes: Size of a request.
      connections: Learns which of them wait for their clients.
      corrections: Keeps what people correct on the page; None if it is not to be kept.
    """
    values = {b"{model_name}": service.model_name.encode(), b"{corrects}": b"true" if corrections else b"false"}
    files = {path: _filled(file, values) for path, (file, _) in _FILES.items()}

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        connections.heard(request.protocol)
        try:
            return await handler(request)
        except RequestError as error:
            too_large = isinstance(error, _BodyTooLargeError)
            return _error(413 if too_large else _HTTP_STATUS.get(error.code, 500), str(error))
        except web.HTTPException as error:
            return _error(error.status, error.text or error.reason)
        except ConnectionError:
            raise  # the client has left
        except Exception as error:  # noqa: BLE001 - the next request may well be answered
            service.failures.add("answering a request", error)
            return _error(500, errors.first_line(error))

    async def predict(request: web.Request) -> web.StreamResponse:
        with service.measured():
            body = await _read_body(request, service, max_bytes)
            with connections.answering(request.protocol):
                # In threads: large bodies would block the event loop.
                model = _model_request(request)
                signature, inputs, rows = await asyncio.to_thread(rest_json.parse_request, model, body, service)
                outputs = await service.predict(signature, inputs, None)
                return _json_response(await asyncio.to_thread(rest_json.format_outputs, outputs, rows))

    async def status(request: web.Request) -> web.StreamResponse:
        states = json_format.MessageToDict(
            grpc_api.model_status(service, _model_request(request)),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        return _json_response(states)

    async def metadata(request: web.Request) -> web.StreamResponse:
        version = service.find_version(_model_request(request))
        signatures = json_format.MessageToDict(version.signatures, preserving_proto_field_name=True)
        spec = {"name": service.model_name, "signature_name": "", "version": str(version.number)}
        return _json_response({"model_spec": spec, "metadata": {"signature_def": signatures}})

    async def correct(request: web.Request) -> web.StreamResponse:
        assert corrections is not None
        # Browsers send no JSON to another site without asking it first.
        if request.content_type != "application/json":
            raise invalid_argument(f"Content-Type: {request.content_type}: must be application/json")
        body = await _read_body(request, service, max_bytes)
        image, text = await asyncio.to_thread(rest_json.parse_correction, body)
        return _json_response({"file": await asyncio.to_thread(corrections.save, image, text)})

    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(body=service.metrics.format(), headers={"Content-Type": server_metrics.CONTENT_TYPE})

    async def alive(_: web.Request) -> web.StreamResponse:
        return web.Response(text="alive\n")

    async def ready(_: web.Request) -> web.StreamResponse:
        return web.Response(text="shutting down\n", status=503) if service.draining else web.Response(text="ready\n")

    async def page(request: web.Request) -> web.StreamResponse:
        _, content_type = _FILES[request.path]
        return web.Response(body=files[request.path], content_type=content_type, charset="utf-8", headers=_HEADERS)

    app = web.Application(middlewares=[answer_errors], client_max_size=max_bytes)
    for which in ("", _VERSION, _LABEL):
        app.router.add_post(f"{_MODEL}{which}:predict", predict)
        app.router.add_get(f"{_MODEL}{which}", status)
        app.router.add_get(f"{_MODEL}{which}/metadata", metadata)
    if corrections:
        app.router.add_post(CORRECTIONS, correct)
    app.router.add_get("/monitoring/prometheus/metrics", metrics)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    for path in _FILES:
        app.router.add_get(path, page)
    return app


def _filled(file: str, values: dict[bytes, bytes]) -> bytes:
    content = (_WEB / file).read_bytes()
    for name, value in values.items():
        content = content.replace(name, value)
    return content


def _json_response(value: Any, status: int = 200) -> web.Response:
    return web.json_response(value, status=status, dumps=lambda value: json.dumps(value, ensure_ascii=False))


def _error(status: int, message: str) -> web.Response:
    # A body may have made half a surrogate pair part of the message.
    return _json_response({"error": message.encode("utf-8", "backslashreplace").decode()}, status)


async def _read_body(request: web.Request, service: Service, max_bytes: int) -> bytes:
    """Returns the body of a request.

    Raises:
      RequestError: It is malformed or too large, or did not arrive in time.
    """
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise invalid_argument(f"Content-Encoding: {encoding}: the body must be plain, or encoded as gzip or deflate")
    if (request.content_length or 0) > max_bytes:
        raise _BodyTooLargeError(max_bytes)
    reading = asyncio.ensure_future(request.read())
    deadline = time.monotonic() + _BODY_TIMEOUT_S
    while not reading.done() and not service.draining and time.monotonic() < deadline:
        await asyncio.wait({reading}, timeout=_POLL_S)
    if not reading.done():
        reading.cancel()
        if service.draining:
            raise RequestError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, f"the body did not arrive within {_BODY_TIMEOUT_S:.0f} seconds")
    try:
        body = reading.result()
    except web.HTTPRequestEntityTooLarge as error:
        raise _BodyTooLargeError(max_bytes) from error
    except (web.RequestPayloadError, http_exceptions.HttpProcessingError, OSError) as error:
        raise invalid_argument(f"the body cannot be read: {errors.first_line(error)}") from error
    return await asyncio.to_thread(_decompress, body, encoding, max_bytes)


def _decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Returns a body without its encoding, as Content-Encoding names it.

    Raises:
      RequestError: It is damaged or too large.
    """
    for window in _ENCODINGS[encoding]:
        decoder = zlib.decompressobj(window)
        try:
            decoded = decoder.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if len(decoded) > max_bytes:
            raise _BodyTooLargeError(max_bytes)
        if not decoder.eof or decoder.unused_data:
            continue
        return decoded
    if _ENCODINGS[encoding]:
        raise invalid_argument(f"Content-Encoding: {encoding}: the body is not, or is cut or damaged")
    return body


def _model_request(request: web.Request) -> ModelRequest:
    match = request.match_info
    version = int(match["version"]) if "version" in match else None
    return ModelRequest(match["name"], version, match.get("label", ""))
