"""Shows the progress of a long job on stderr: a live bar on a terminal, a line every ten seconds otherwise."""

import shutil
import sys
import time
from types import TracebackType

_BAR = 24  # characters
_LIVE_S, _LINE_S = 0.1, 10.0


def clock(seconds: float) -> str:
    """Formats a duration in seconds as `1:02:03` or `2:03`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Progress:
    """A progress display, used as a context manager.

    Args:
      job: one word for the job.
      total: the count when it is done.
      unit: the unit of the count, in the plural.
      start: the initial count.
    """

    def __init__(self, job: str, total: int, unit: str, start: int = 0):
        self._job, self._total, self._unit, self._start = job, total, unit, start
        self._live = sys.stderr.isatty()
        self._begun = time.monotonic()
        self._shown_at = self._begun if not self._live else 0.0
        self._done = self._shown = start

    def __enter__(self) -> "Progress":
        return self

    def update(self, done: int, note: str = "", always: bool = False) -> None:
        """Sets the count, and shows it unless it was shown a moment ago.

        Args:
          done: the count.
          note: what to show beside it, such as the loss.
          always: whether to show it in any case.
        """
        self._done = done
        now = time.monotonic()
        if always or now - self._shown_at >= (_LIVE_S if self._live else _LINE_S):
            self._shown_at = now
            self._show(done, note, "" if self._live else "\n")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            sys.stderr.write("\n")
        elif kind is None and self._shown < self._done:
            self._show(self._done, "", "\n")

    def _show(self, done: int, note: str, end: str) -> None:
        self._shown = done
        used = time.monotonic() - self._begun
        rate = (done - self._start) / max(used, 1e-9)
        left = (self._total - done) / rate if rate > 0 else 0.0
        share = done / max(self._total, 1)
        bar = "#" * round(share * _BAR)
        parts = [f"{self._job} [{bar:<{_BAR}}] {done}/{self._total} {self._unit}", f"{rate:.0f}/s", *([note] if note else [])]
        parts += [f"{clock(used)} used"]
        parts += [f"{clock(used + left)} total", f"{clock(left)} remaining"] if done < self._total else []
        line = ", ".join(parts)
        if self._live:  # a line that wraps could not be written over
            line = line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(("\r\x1b[K" if self._live else "") + line + end)
        sys.stderr.flush()
