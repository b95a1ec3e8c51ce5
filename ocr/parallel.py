"""Maps a function over items in worker processes, in order and with bounded memory.

Workers end when their parent does, even if it is killed; and a worker that is killed ends the map, whatever it was doing.
"""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from tfrecords.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
_GONE = (EOFError, OSError)  # what a pipe raises if the other end is gone
_AHEAD = 2  # submitted items per worker whose results have not been yielded


class _WorkerKilledError(Exception):
    pass


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, prepare: Callable[..., object], *arguments: Any
) -> Generator[Result, None, None]:
    """Yields `work(item)` for each item, in order, with only a few items in memory at a time.

    Args:
      work: a module-level function, called in a worker.
      items: the items, which are pickled.
      workers: the number of processes; 0 for one per core. With 1 everything runs in this process.
      prepare: called once in each worker, before the first item.
      *arguments: of `prepare`.

    Raises:
      InputError: a worker was killed.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        prepare(*arguments)
        yield from map(work, items)
        return
    with _start(workers, work, prepare, arguments) as connections:
        try:
            yield from _spread(connections, items)
        except _WorkerKilledError as error:
            raise InputError(f"--workers={workers}: a worker was killed, perhaps because memory ran out") from error


def ahead(
    pool: concurrent.futures.Executor, work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Yields `work(item)` for each item, in order, with a few items submitted to the pool at a time."""
    pending: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) >= _AHEAD * workers:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@contextlib.contextmanager
def _start(
    workers: int, work: Callable[[Any], Any], prepare: Callable[..., object], arguments: tuple[Any, ...]
) -> Iterator[Sequence[Connection]]:
    """Starts workers, each at the end of a pipe of its own.

    A `ProcessPoolExecutor` has one pipe for all results, and waits forever if a worker is killed while it writes to it.
    """
    context = multiprocessing.get_context("spawn")  # forking a process with threads is unsafe
    resource_tracker.ensure_running()  # started with the first worker, it would inherit the mask below
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work, prepare, arguments), daemon=True)
            with _without_interrupts():
                process.start()
            theirs.close()  # the worker's is the only one left, so that its end is the end of the pipe
            stack.callback(process.join)
            stack.callback(process.terminate)
            connections.append(stack.enter_context(ours))
        yield connections


def _spread(connections: Sequence[Connection], items: Iterable[Any]) -> Iterator[Any]:
    """Gives each idle worker the next item, and yields the results in the order of the items.

    A busy worker gets none: both ends of a full pipe would wait for each other.
    """
    iterator, idle = enumerate(items), list(connections)
    busy: dict[Connection, int] = {}
    results: dict[int, tuple[Any, Exception | None]] = {}
    yielded, more = 0, True
    while True:
        while more and idle and len(busy) + len(results) < _AHEAD * len(connections):
            if numbered := next(iterator, None):
                worker = idle.pop()
                try:
                    worker.send(numbered[1])
                except _GONE as error:
                    raise _WorkerKilledError from error
                busy[worker] = numbered[0]
            else:
                more = False
        if yielded in results:
            result, failure = results.pop(yielded)
            if failure:
                raise failure
            yield result
            yielded += 1
        elif not busy:
            return
        else:
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, Connection)
                try:
                    results[busy.pop(ready)] = ready.recv()
                except _GONE as error:
                    raise _WorkerKilledError from error
                idle.append(ready)


def _serve(parent: Connection, work: Callable[[Any], Any], prepare: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Works on items until the parent closes the pipe, or is gone."""
    prepared = False
    with contextlib.suppress(*_GONE):
        while True:
            item = parent.recv()
            answer: tuple[Any, Exception | None]
            try:
                if not prepared:
                    prepare(*arguments)
                    prepared = True
                answer = work(item), None
            except Exception as error:  # noqa: BLE001  # it is raised in the parent
                answer = None, error
            parent.send(answer)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Blocks SIGINT and SIGHUP while a worker is started: a terminal's also reach the parent, which ends it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
