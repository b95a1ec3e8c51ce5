"""What fails beside the requests or within one is logged, and never ends the server."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from tfrecords import errors

_PAUSE_S = 0.5  # after a failure
_REPEAT_S = 3600.0  # until the same failure is logged again

_LOG = logging.getLogger(__name__)


class FailureLog:
    """Logs failures, the same one only once an hour."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def add(self, what: str, error: Exception) -> None:
        """Logs what failed and why; with a traceback unless the surroundings are the cause, as they are of an OSError."""
        message, now = f"{what}: {type(error).__name__}: {errors.first_line(error)}", time.monotonic()
        self._logged = {old: at for old, at in self._logged.items() if now < at + _REPEAT_S}
        if message not in self._logged:
            self._logged[message] = now
            _LOG.warning("%s", message, exc_info=None if isinstance(error, OSError) else error)


async def keep_running(what: str, run: Callable[[], Awaitable[None]], failures: FailureLog) -> None:
    """Runs something until cancelled, and again whenever it fails.

    Args:
      what: Names it in the log.
      run: Starts it.
      failures: Logs why it failed.
    """
    while True:
        try:
            await run()
        except Exception as error:  # noqa: BLE001 - a server outlives whatever happens around it
            failures.add(f"{what} continues after a failure", error)
        await asyncio.sleep(_PAUSE_S)
