"""The two formats of the progress display: a live bar on a terminal, a line per interval otherwise."""

import io
import re

import pytest

from ocr import progress
from ocr.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Returns a list whose only element is the time in seconds, long after the machine was started."""
    seconds = [1e6]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00"), (75, "1:15"), (3723, "1:02:03")])
def test_durations_are_formatted_with_hours_only_if_there_are_any(seconds: float, text: str):
    assert progress.clock(seconds) == text


def test_without_a_terminal_there_is_one_line_per_interval_and_one_at_the_end(now, capsys: pytest.CaptureFixture[str]):
    with Progress("packing", 400, "lines") as bar:
        for second in range(1, 20):
            now[0] += 1
            bar.update(10 * second)
        bar.update(400)
    assert capsys.readouterr().err.splitlines() == [
        "packing [######                  ] 100/400 lines, 10/s, 0:10 used, 0:40 total, 0:30 remaining",
        "packing [########################] 400/400 lines, 21/s, 0:19 used",
    ]


def test_the_rate_counts_from_the_start_and_the_note_follows_it(now, capsys: pytest.CaptureFixture[str]):
    with Progress("training", 100, "steps", start=50) as bar:
        now[0] += 5
        bar.update(60, "loss 1.25", always=True)
    assert capsys.readouterr().err == (
        "training [##############          ] 60/100 steps, 2/s, loss 1.25, 0:05 used, 0:25 total, 0:20 remaining\n"
    )


def test_on_a_terminal_one_line_is_overwritten_ten_times_a_second_at_most(now, monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    with Progress("packing", 400, "lines") as bar:
        for done in range(1, 101):
            now[0] += 0.01
            bar.update(done)
    shown = terminal.getvalue()
    assert shown.endswith("\n")
    lines = re.split(r"\r\x1b\[K", shown.removesuffix("\n"))[1:]
    assert 9 <= len(lines) <= 11
    assert lines[0].startswith("packing [")
    assert {len(line) for line in lines} == {39}


def test_nothing_is_shown_at_the_end_of_a_job_that_failed(now, capsys: pytest.CaptureFixture[str]):
    def fail() -> None:
        with Progress("packing", 400, "lines") as bar:
            bar.update(10)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert capsys.readouterr().err == ""
