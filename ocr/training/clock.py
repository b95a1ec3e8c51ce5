"""The time that a training takes, and what part of it goes by in waiting."""

import math
import time


class Clock:
    """The time since the last training line of the journal."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size, self.steps = batch_size, 0
        self._used = self._waited = self.a_step = 0.0
        self._since = time.monotonic()

    def add(self, steps: int, waited: float) -> None:
        """Counts steps; so many seconds of them were spent waiting for input."""
        used = time.monotonic() - self._since
        self.steps += steps
        self._used += used
        self._waited += waited
        self.a_step = used / steps

    def restart(self) -> None:
        """Leaves out what has passed since: an evaluation is no training time."""
        self._since = time.monotonic()

    def figures(self) -> dict[str, float | None]:
        return {
            "lines_per_second": self.steps * self._batch_size / self._used,
            "input_wait": None if math.isnan(self._waited) else self._waited / self._used,
        }
