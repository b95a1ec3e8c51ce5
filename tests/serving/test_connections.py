"""Connections that wait for their clients, to a server without a model."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ocr.serving import background, connections
from ocr.serving.connections import Connections

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(limit: int, release: asyncio.Event) -> AsyncIterator[int]:
    """Serves `/`, and `/wait` which answers after `release`; gives the port."""
    bounded = Connections(limit)

    async def answer(request: web.Request) -> web.Response:
        bounded.heard(request.protocol)
        if request.path == "/wait":
            with bounded.answering(request.protocol):
                await release.wait()
        return web.Response(text="answer")

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    bounded.listen("localhost", 0)
    assert runner.server is not None
    task = asyncio.create_task(bounded.run(runner.server, None, background.FailureLog()))
    yield bounded.port
    assert not task.done()
    task.cancel()
    await runner.cleanup()


async def connect(port: int, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def answer(port: int, sent: bytes = GET) -> bytes:
    reader, writer = await connect(port, sent)
    received = await asyncio.wait_for(reader.read(1000), 5)
    writer.close()
    return received


async def is_closed(reader: asyncio.StreamReader, wait_s: float = 0.2) -> bool:
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(wait_s):
            while await reader.read(1000):
                pass
        return True
    return False


def test_at_the_limit_the_connection_that_is_silent_longest_makes_room():
    async def run() -> None:
        async with serving(4, asyncio.Event()) as port:
            idle = [await connect(port, sent) for sent in (b"", b"GET / HT", GET, b"", b"", b"")]
            for _ in range(20):
                assert b"200 OK" in await answer(port)
            closed = [await is_closed(reader) for reader, _ in idle]
            assert closed[:2] == [True, True]
            for _, writer in idle:
                writer.close()

    asyncio.run(run())


def test_a_connection_that_is_answered_stays_and_a_new_one_is_refused():
    async def run() -> None:
        release = asyncio.Event()
        async with serving(3, release) as port:
            waiting = [await connect(port, GET.replace(b"/ ", b"/wait ", 1)) for _ in range(3)]
            await asyncio.sleep(0.1)
            refused = await answer(port)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert refused.endswith(b'{"error": "too many connections; retry later"}')
            release.set()
            for reader, _ in waiting:
                assert b"200 OK" in await asyncio.wait_for(reader.read(1000), 5)
            assert b"200 OK" in await answer(port)
            for _, writer in waiting:
                writer.close()

    asyncio.run(run())


def test_a_silent_connection_times_out(monkeypatch):
    monkeypatch.setattr(connections, "SILENT_S", 0.5)
    monkeypatch.setattr(connections, "_SWEEP_S", 0.05)

    async def run() -> None:
        release = asyncio.Event()
        async with serving(10, release) as port:
            silent = [await connect(port, sent) for sent in (b"", b"GET / HT", GET)]
            answered = await connect(port, GET.replace(b"/ ", b"/wait ", 1))
            assert [await is_closed(reader, 5) for reader, _ in silent] == [True] * 3
            assert not await is_closed(answered[0])
            release.set()
            assert b"200 OK" in await asyncio.wait_for(answered[0].read(1000), 5)
            for _, writer in [*silent, answered]:
                writer.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "expected"), [(300, 2000, 1000, 1000), (300, 400, 1000, None), (68, 68, 9, 2)]
)
def test_the_soft_limit_on_descriptors_is_raised_as_far_as_the_hard_one_allows(soft, hard, wanted, expected):
    program = "from ocr.serving.connections import available; import resource; "
    program += f"print(available({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    line = ["sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh", sys.executable, "-c", program]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    count, now_soft, now_hard = map(int, done.stdout.split())
    assert now_hard == hard
    assert now_soft >= min(hard, wanted)
    assert count == expected if expected else 200 < count < hard
