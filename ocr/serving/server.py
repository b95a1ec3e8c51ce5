"""Serves an export over gRPC and REST, until it is told to end: then it answers what it has taken, and takes no more."""

import asyncio
import pathlib
import socket
import ssl
import sys
from collections.abc import Callable

import grpc
from aiohttp import web
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from ocr.config import ServeConfig
from ocr.serving import grpc_api, rest_api
from ocr.serving.service import Service
from ocr.serving.versions import Versions
from tfrecords.errors import InputError

_LOOK_S = 0.1  # between two looks whether to end
_REQUESTS = 4  # of the largest size that may wait
_GRACE_S = 60.0  # for answers that are being read when the server is to end
_REPLY_BYTES = 256 * 2**20  # at most


def serve(config: ServeConfig, stopped: Callable[[], bool]) -> dict:
    """Serves.

    Args:
      config: how.
      stopped: says whether to end.

    Returns:
      `interrupted`, and `version`, the last that was served.

    Raises:
      InputError: there is no export, a port is taken, or a certificate cannot be read.
      IntegrityError: the export is damaged.
    """
    tls = _tls(config)
    versions = Versions(pathlib.Path(config.export_dir))
    max_bytes = _REQUESTS * config.max_request_mb * 2**20
    service = Service(versions, config.max_batch, config.max_waiting, max_bytes, config.max_lines)
    asyncio.run(_serve(config, service, tls, stopped))
    return {"interrupted": True, "version": service.versions.newest.number}


async def _serve(config: ServeConfig, service: Service, tls: ssl.SSLContext | None, stopped: Callable[[], bool]) -> None:
    running = asyncio.create_task(service.run(config.poll_s))
    max_bytes = config.max_request_mb * 2**20
    of_grpc, grpc_port = _grpc_server(config, service, max_bytes)
    of_rest = web.AppRunner(rest_api.application(service, max_bytes), access_log=None, shutdown_timeout=_GRACE_S)
    await of_rest.setup()
    site = web.TCPSite(of_rest, config.host, config.rest_port, ssl_context=tls)
    try:
        await site.start()
    except OSError as error:
        raise InputError(f"--rest_port={config.rest_port}: {error.strerror}") from error
    await of_grpc.start()
    rest_port = of_rest.addresses[0][1]
    s = "s" * bool(config.tls_cert)
    print(
        f"version {service.versions.newest.number} of {config.export_dir}: gRPC at {config.host}:{grpc_port}, "
        f"REST and a page at http{s}://{config.host}:{rest_port}/",
        file=sys.stderr,
        flush=True,
    )
    while not stopped() and not running.done():
        await asyncio.sleep(_LOOK_S)
    service.draining = True
    await asyncio.gather(of_grpc.stop(_GRACE_S), of_rest.cleanup())
    if running.done():
        running.result()  # which tells what went wrong
    running.cancel()


def _grpc_server(config: ServeConfig, service: Service, max_bytes: int) -> tuple[grpc.aio.Server, int]:
    """Returns the server, and its port."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", _REPLY_BYTES),
            ("grpc.so_reuseport", 0),  # a second server is to be told that the port is taken
        ]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(grpc_api.Prediction(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(grpc_api.Model(service), server)
    address = f"[{config.host}]:{config.grpc_port}" if ":" in config.host else f"{config.host}:{config.grpc_port}"
    try:
        socket.create_server((config.host, config.grpc_port), family=_family(config.host)).close()  # gRPC would print a line
    except OSError as error:
        raise InputError(f"--grpc_port={config.grpc_port}: cannot listen at {address}: {error.strerror}") from error
    if config.tls_cert:
        pair = (pathlib.Path(config.tls_key).read_bytes(), pathlib.Path(config.tls_cert).read_bytes())
        return server, server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    return server, server.add_insecure_port(address)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _tls(config: ServeConfig) -> ssl.SSLContext | None:
    if not config.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (ssl.SSLError, OSError) as error:
        raise InputError(f"--tls_cert={config.tls_cert} --tls_key={config.tls_key}: {error}") from error
    return context
