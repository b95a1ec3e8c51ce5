"""Maps a function over items in worker processes, in order and with bounded memory.

Workers end when their parent does, even if it is killed.
"""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from tfrecords.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 2  # submitted items per worker whose results have not been yielded


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
    context = multiprocessing.get_context("spawn")  # forking a process with threads is unsafe
    with concurrent.futures.ProcessPoolExecutor(workers, context, _begin, (os.getpid(), prepare, arguments)) as pool:
        resource_tracker.ensure_running()  # started by the first worker, it would inherit a mask that lets SIGINT through
        try:
            yield from ahead(pool, work, items, workers)
        except concurrent.futures.BrokenExecutor as error:
            raise InputError(f"--workers={workers}: a worker was killed, perhaps because memory ran out") from error
        finally:
            pool.shutdown(cancel_futures=True)


def ahead(
    pool: concurrent.futures.Executor, work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Yields `work(item)` for each item, in order, with a few items submitted to the pool at a time."""
    pending: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    for item in items:
        with _without_interrupts():
            pending.append(pool.submit(work, item))
        if len(pending) >= _AHEAD * workers:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Blocks SIGINT while workers are started: Ctrl-C also reaches the parent, which ends them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _begin(parent: int, prepare: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    def watch() -> None:  # a killed parent cannot end its workers
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    prepare(*arguments)
