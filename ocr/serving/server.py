"""Serves an export over gRPC and REST until it is stopped; on shutdown it drains accepted requests."""

import asyncio
import logging
import pathlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import grpc
from aiohttp import web
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from ocr.serving import cors, grpc_api, grpc_standard, rest_api, version_policy
from ocr.serving.connections import HANDSHAKE_S, SILENT_S, Connections, available
from ocr.serving.corrections import Corrections
from ocr.serving.serve_config import ServeConfig
from ocr.serving.service import Service
from ocr.serving.versions import Versions, list_numbers
from tfrecords.errors import InputError

_POLL_S = 0.1  # between two checks whether to stop
_WAITING_REQUESTS = 4  # of the largest size
_DRAIN_S = 60.0  # for accepted requests on shutdown
_MAX_RESPONSE_BYTES = 256 * 2**20

_LOG = logging.getLogger(__name__)


def serve(config: ServeConfig, stopped: Callable[[], bool]) -> dict:
    """Serves until stopped.

    Args:
      config: The server's configuration.
      stopped: Returns whether to shut down.

    Returns:
      `interrupted`, and `version`, the newest that was served at last.

    Raises:
      InputError: There is no export, a port is taken, or a certificate cannot be read.
      IntegrityError: The export is damaged.
    """
    tls = _tls_context(config)
    # Before loading the model, which takes seconds. gRPC's own error would not say why.
    for flag, port in (("grpc_port", config.grpc_port), ("rest_port", config.rest_port)):
        try:
            family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
            socket.create_server((config.host, port), family=family).close()
        except OSError as error:
            raise InputError(f"--{flag}={port}: cannot listen at {_address(config.host, port)}: {error.strerror}") from error
    versions = Versions(pathlib.Path(config.export_dir), version_policy.parse_policy(config.model_version_policy))
    labels = version_policy.parse_labels(config.version_labels)
    for label, number in labels.items():
        if number not in versions.served:
            _LOG.warning("--version_labels: %s:%d: this version is not served yet", label, number)
    max_bytes = _WAITING_REQUESTS * config.max_request_mb * 2**20
    service = Service(versions, config.max_batch, config.max_waiting, max_bytes, config.max_lines, config.model_name, labels)
    asyncio.run(_serve(config, service, tls, stopped))
    return {"interrupted": True, "version": service.versions.current.number}


async def _serve(config: ServeConfig, service: Service, tls: ssl.SSLContext | None, stopped: Callable[[], bool]) -> None:
    limit = available(2 * config.max_connections) // 2
    if limit < config.max_connections:
        allowed = "at most %d at each port, as the hard limit on open files allows (ulimit -Hn)"
        _LOG.warning(f"--max_connections=%d: {allowed}", config.max_connections, limit)
    max_bytes = config.max_request_mb * 2**20
    grpc_server, grpc_port = _grpc_server(config, service, max_bytes, limit)
    connections = Connections(limit)
    corrections = Corrections(pathlib.Path(config.corrections_dir)) if config.corrections_dir else None
    application = rest_api.application(service, max_bytes, connections, corrections)
    if config.cors_origins:
        cors.allow(application, config.cors_origins.split(","), own_paths=(rest_api.CORRECTIONS,))
    # aiohttp's own decompression answers damaged bodies with a traceback in the log.
    options: dict[str, Any] = {"auto_decompress": False, "logger": rest_api.HTTP_LOG, "access_log": None}
    rest_server = web.AppRunner(application, shutdown_timeout=_DRAIN_S, **options)
    await rest_server.setup()
    try:
        connections.listen(config.host, config.rest_port)
    except OSError as error:
        raise InputError(f"--rest_port={config.rest_port}: {error.strerror}") from error
    assert rest_server.server is not None
    running = asyncio.create_task(service.run(config.poll_s))
    accepting = asyncio.create_task(connections.run(rest_server.server, tls, service.failures))
    await grpc_server.start()
    _LOG.info(
        "version %s of %s: gRPC at %s:%d, REST and a page at http%s://%s:%d/",
        *(list_numbers(service.versions.served), config.export_dir, config.host, grpc_port),
        *("s" if tls else "", config.host, connections.port),
    )
    while not stopped():
        await asyncio.sleep(_POLL_S)
    service.draining = True
    accepting.cancel()
    await asyncio.gather(grpc_server.stop(_DRAIN_S), rest_server.cleanup())
    running.cancel()


def _grpc_server(config: ServeConfig, service: Service, max_bytes: int, limit: int) -> tuple[grpc.aio.Server, int]:
    """Returns the server and its port."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", _MAX_RESPONSE_BYTES),
            ("grpc.so_reuseport", 0),  # so that a second server on the same port fails
            ("grpc.max_allowed_incoming_connections", limit),
            ("grpc.max_connection_idle_ms", int(1000 * SILENT_S)),
            ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_S)),
        ]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(grpc_api.PredictionServicer(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(grpc_api.ModelServicer(service), server)
    grpc_standard.add_to_server(server, service, grpc_api.SERVICES, limit)
    address = _address(config.host, config.grpc_port)
    if config.tls_cert:
        pair = (pathlib.Path(config.tls_key).read_bytes(), pathlib.Path(config.tls_cert).read_bytes())
        return server, server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    return server, server.add_insecure_port(address)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls_context(config: ServeConfig) -> ssl.SSLContext | None:
    if not config.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (ssl.SSLError, OSError) as error:
        raise InputError(f"--tls_cert={config.tls_cert} --tls_key={config.tls_key}: {error}") from error
    return context
