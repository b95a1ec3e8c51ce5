"""Work on all cores, its results in order: processes that hold a few pieces at a time, and end when their parent does."""

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

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_AHEAD = 2  # pieces per worker that are under way or done and not yet taken


def in_order(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], workers: int, prepare: Callable[..., object], *given: Any
) -> Generator[Result, None, None]:
    """Yields what `work` makes of each piece, in order. However many there are, only a few are in memory.

    Args:
      work: a function of a module, called in a worker.
      pieces: that can be pickled.
      workers: processes; 0 for one a core, and with 1 all is done in this process.
      prepare: called once in each worker, before any piece.
      *given: the arguments of `prepare`.

    Raises:
      InputError: a worker was killed.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        prepare(*given)
        yield from map(work, pieces)
        return
    context = multiprocessing.get_context("spawn")  # a process with threads must not fork
    with concurrent.futures.ProcessPoolExecutor(workers, context, _begin, (os.getpid(), prepare, given)) as pool:
        resource_tracker.ensure_running()  # it would let Ctrl-C through, if the first worker had to start it
        try:
            yield from ahead(pool, work, pieces, workers)
        except concurrent.futures.BrokenExecutor as error:
            raise InputError(f"--workers={workers}: one of them was killed, for want of memory perhaps") from error
        finally:
            pool.shutdown(cancel_futures=True)


def ahead(
    pool: concurrent.futures.Executor, work: Callable[[Piece], Result], pieces: Iterable[Piece], workers: int
) -> Generator[Result, None, None]:
    """Yields what a pool's `work` makes of each piece, in order, a few of them under way at a time."""
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    for piece in pieces:
        with _without_interrupts():
            waiting.append(pool.submit(work, piece))
        if len(waiting) >= _AHEAD * workers:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Starts workers with Ctrl-C blocked: it comes to the parent too, which ends them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _begin(parent: int, prepare: Callable[..., object], given: tuple[Any, ...]) -> None:
    def watch() -> None:  # a parent that was killed cannot end its workers
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    prepare(*given)
