"""Signals that stop a command: SIGINT, SIGTERM and SIGHUP."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP was received; the argument is its number."""


received: list[int] = []  # within stop_on_signal


def handled() -> list[signal.Signals]:
    """Returns the signals after which a command stops: without SIGHUP if nohup has it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [signal.SIGHUP])]


def raise_interrupted(number: int, _: object) -> None:
    """Handles a signal: raises `Interrupted`."""
    raise Interrupted(number)


@contextlib.contextmanager
def stop_on_signal(promise: str = "saving, then exiting") -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGINT, SIGTERM or SIGHUP was received. A second signal ends the process at once.

    Signals are received in a thread, since Python's own handlers do not run during a call into TensorFlow.

    Args:
      promise: what happens after the first signal, for the message.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        for number in iter(lambda: os.read(reading, 1), b""):
            if received:
                os.write(2, b"exiting at once: what was not saved is lost\n")
                os._exit(128 + number[0])
            received.append(number[0])
            print(f"\n{signal.Signals(number[0]).name}: {promise}; send it again to exit at once", file=sys.stderr, flush=True)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    for number in handled():
        signal.signal(number, lambda *_: None)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield lambda: bool(received)
    finally:
        signal.set_wakeup_fd(before)
        for number in handled():
            signal.signal(number, raise_interrupted)
        os.close(writing)
        listener.join()
        os.close(reading)
