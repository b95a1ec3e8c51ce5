import asyncio
import contextlib

from ocr.serving import background


def test_what_fails_is_run_again_and_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(background, "_PAUSE_S", 0.001)
    failures = [
        OSError(24, "Too many open files"),
        OSError(24, "Too many open files"),
        ValueError("odd"),
        OSError(5, "I/O"),
    ] * 3
    count = 0

    async def fail() -> None:
        nonlocal count
        count += 1
        if count <= len(failures):
            raise failures[count - 1]
        await asyncio.sleep(60)

    async def run() -> None:
        task = asyncio.create_task(background.keep_running("watching", fail, background.FailureLog()))
        while count <= len(failures):
            await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert caplog.messages == [
        "watching continues after a failure: OSError: [Errno 24] Too many open files",
        "watching continues after a failure: ValueError: odd",
        "watching continues after a failure: OSError: [Errno 5] I/O",
    ]
    assert [record.exc_info is not None for record in caplog.records] == [False, True, False]
