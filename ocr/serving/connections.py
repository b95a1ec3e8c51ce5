"""Connections to the REST port, which are bounded: those that wait for their clients must not use up the descriptors."""

import asyncio
import contextlib
import dataclasses
import errno
import functools
import logging
import pathlib
import socket
import ssl
import time
from collections.abc import Iterator

from aiohttp import web

from ocr.serving import background

SILENT_S = 75.0  # that a connection may wait for its client: for a request, or for the rest of its header
HANDSHAKE_S = 10.0  # until a new connection speaks the protocol
_RESERVED = 64  # descriptors, for the model's files and whatever else is opened for a moment
_SWEEP_S = 1.0
_BACKLOG = 128
_BODY = b'{"error": "too many connections; retry later"}'
_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
_REFUSAL += b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)

_LOG = logging.getLogger(__name__)


def available(wanted: int) -> int:
    """Raises the soft limit on open files, if the hard one allows, and returns how many of `wanted` descriptors there are."""
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return wanted
    folder = pathlib.Path("/proc/self/fd")
    reserved = _RESERVED + (len(list(folder.iterdir())) if folder.is_dir() else _RESERVED)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < reserved + wanted:
        higher = reserved + wanted if hard == resource.RLIM_INFINITY else min(reserved + wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (higher, hard))
            soft = higher
    return max(min(wanted, soft - reserved), 2)


@dataclasses.dataclass(eq=False)
class _Connection:
    """A connection.

    Attributes:
      socket: Closed by the transport.
      since: When its client was last heard or answered.
      busy: Whether a request has arrived and is being answered.
      start: The task that starts it, which takes a while if it is encrypted.
      transport: None until it is started.
    """

    socket: socket.socket
    since: float
    busy: bool = False
    start: asyncio.Task | None = None
    transport: asyncio.BaseTransport | None = None

    def is_closed(self) -> bool:
        if self.transport is None and self.start is not None and self.start.done():
            self.socket.close()  # it could not be started
        return self.socket.fileno() < 0

    def drop(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()
        elif self.start is not None:
            self.start.cancel()


class Connections:
    """Accepts connections and closes those that wait too long for their clients.

    At the limit a new connection takes the place of the one that has waited longest; if all are being answered, it is refused.

    Args:
      limit: Largest number of connections.

    Attributes:
      port: Where it listens.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._open: dict[web.RequestHandler, _Connection] = {}
        self._listeners: list[socket.socket] = []
        self._reached = False
        self.port = 0

    def listen(self, host: str, port: int) -> None:
        """Binds the port, or any free one for port 0, at all addresses of the host.

        Raises:
          OSError: It is not free.
        """
        self.port = port
        unusable: OSError | None = None
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
            try:
                listener = socket.create_server((address[0], self.port), family=family, backlog=_BACKLOG)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                unusable = error  # a machine may name an address of IPv6 and have none
                continue
            listener.setblocking(False)
            self._listeners.append(listener)
            self.port = listener.getsockname()[1]
        if unusable and not self._listeners:
            raise unusable

    async def run(self, server: web.Server, tls: ssl.SSLContext | None, failures: background.FailureLog) -> None:
        """Accepts connections until cancelled.

        Args:
          server: Answers their requests.
          tls: Encrypts them, if given.
          failures: Logs what fails.
        """
        accepting = [functools.partial(self._accept, listener, server, tls) for listener in self._listeners]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(background.keep_running("closing silent connections", self._sweep, failures))
                for accept in accepting:
                    tasks.create_task(background.keep_running("accepting connections", accept, failures))
        finally:
            for listener in self._listeners:
                listener.close()
            for connection in self._open.values():
                if connection.transport is None:
                    connection.drop()

    def heard(self, handler: web.RequestHandler) -> None:
        """Notes that a client has begun a request."""
        if connection := self._open.get(handler):
            connection.since = time.monotonic()

    @contextlib.contextmanager
    def answering(self, handler: web.RequestHandler) -> Iterator[None]:
        """Keeps the connection of a request that has arrived open while this context lasts."""
        connection = self._open.get(handler)
        if connection is None:
            yield
            return
        connection.busy = True
        try:
            yield
        finally:
            connection.busy, connection.since = False, time.monotonic()

    async def _accept(self, listener: socket.socket, server: web.Server, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # the client has left
            except OSError:
                await self._make_room(max(len(self._open) - 8, 0))  # descriptors are lacking
                raise
            if len(self._open) >= self._limit and not await self._make_room(self._limit - 1):
                with accepted, contextlib.suppress(OSError):
                    if not tls:
                        accepted.send(_REFUSAL)
                continue
            handler = server()
            self._open[handler] = connection = _Connection(accepted, time.monotonic())
            connection.start = asyncio.create_task(self._start(connection, handler, tls))
            await asyncio.sleep(0)  # many new connections must not keep the loop from all else

    async def _start(self, connection: _Connection, handler: web.RequestHandler, tls: ssl.SSLContext | None) -> None:
        timeout = HANDSHAKE_S if tls else None
        with contextlib.suppress(OSError):  # the client has left, or speaks no TLS
            connection.transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: handler, connection.socket, ssl=tls, ssl_handshake_timeout=timeout
            )

    async def _make_room(self, most: int) -> bool:
        """Closes those that have waited longest for their clients; returns whether at most `most` are open then."""
        self._forget_closed()
        waiting = sorted((one for one in self._open.values() if not one.busy), key=lambda one: one.since)
        for connection in waiting[: max(len(self._open) - most, 0)]:
            connection.drop()
        if len(self._open) > most and not self._reached:
            self._reached = True
            _LOG.warning("all %d connections are in use: a new one closes the one that is silent longest", self._limit)
        for _ in range(10):  # the loop closes them
            if len(self._open) <= most:
                return True
            await asyncio.sleep(0)
            self._forget_closed()
        return False

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._forget_closed()
            now = time.monotonic()
            for connection in self._open.values():
                if not connection.busy and now > connection.since + SILENT_S:
                    connection.drop()

    def _forget_closed(self) -> None:
        self._open = {handler: connection for handler, connection in self._open.items() if not connection.is_closed()}
