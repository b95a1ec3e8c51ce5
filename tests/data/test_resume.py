"""A conversion that is killed and resumed makes what an uninterrupted one makes. `make resume-proof` does it at full size."""

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

from ocr.synthesis import render
from ocr.synthesis.render import RenderConfig
from tfrecords import files

LINES, MOMENTS = int(os.environ.get("RESUME_LINES", "3000")), int(os.environ.get("RESUME_MOMENTS", "3"))
SHARDS = 12


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Draws some lines and gives each many names; every 97th line has a fault, every 101st name comes again later."""
    here = tmp_path_factory.mktemp("resume")
    drawn = 300
    render.render(RenderConfig(output=str(here / "drawn"), count=drawn, degrade="scan", charset="digits"))
    rows = [row.split("\t") for row in (here / "drawn" / "labels.txt").read_text("utf-8").splitlines()]
    (here / "lines").mkdir()
    with open(here / "labels.txt", "w", encoding="utf-8") as labels:
        for number in range(LINES):
            name, text = rows[number % drawn]
            own = f"{number % (LINES - LINES // 101)}.jpg"
            if not (here / "lines" / own).exists():
                os.link(here / "drawn" / name, here / "lines" / own)
            labels.write(f"{own}\t{text if number % 97 else '?'}\n")
    return [f"--images={here / 'lines'}", f"--labels={here / 'labels.txt'}", "--charset=digits", f"--num_shards={SHARDS}"]


def start(arguments: list[str], output: pathlib.Path, *more: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "tools.make_tfrecords", *arguments, f"--output={output}", *more]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """Returns what an uninterrupted run makes, and how many seconds it takes."""
    folder, begun = tmp_path_factory.mktemp("whole") / "records", time.monotonic()
    with start(arguments, folder) as process:
        assert process.wait() == 0
    return content(folder), time.monotonic() - begun


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_conversion_is_resumed_to_the_same_bytes(arguments, uninterrupted, tmp_path: pathlib.Path, moment: int):
    whole, seconds = uninterrupted
    folder = tmp_path / "records"
    aside = folder / ".lines-train.partial"
    with start(arguments, folder) as process:
        if MOMENTS > 3:  # anywhere, from the start to beyond the end
            time.sleep(seconds * (moment + random.Random(moment).random()) / MOMENTS)
        else:
            while process.poll() is None and len(list(aside.glob("0*"))) <= (1, 4, SHARDS - 1)[moment]:
                time.sleep(0.001)
        process.kill()
    left = aside / "progress.json"
    finished = len(files.read_json(left)["shards"]) if left.exists() else 0
    kept = {path.name: path.stat().st_mtime_ns for path in aside.glob("0*")} if finished else {}
    with start(arguments, folder, "--resume") as process:
        assert process.wait() == 0
    assert content(folder) == whole
    for index in range(finished):  # gone on with, not made again
        final = folder / f"lines-train.tfrecord-{index:05d}-of-{SHARDS:05d}"
        assert kept.get(f"{index:05d}", final.stat().st_mtime_ns) == final.stat().st_mtime_ns
    assert moment == 0 or MOMENTS > 3 or finished


def test_resuming_a_finished_one_changes_nothing(arguments, uninterrupted, tmp_path: pathlib.Path):
    folder = tmp_path / "records"
    for _ in range(2):  # the first starts afresh
        with start(arguments, folder, "--resume") as process:
            assert process.wait() == 0
        assert content(folder) == uninterrupted[0]
    with start(arguments, folder, "--resume", "--pixels_per_frame=2") as process:
        assert process.wait() == 1
        assert "pixels_per_frame: saved 4, given 2" in process.stderr.read()
    with start(arguments, folder) as process:
        assert process.wait() == 1


@pytest.mark.alike
@pytest.mark.parametrize("workers", [1, 3])
def test_the_bytes_are_the_same_for_any_number_of_workers(arguments, uninterrupted, tmp_path: pathlib.Path, workers: int):
    with start(arguments, tmp_path / "records", f"--workers={workers}") as process:
        assert process.wait() == 0
    assert content(tmp_path / "records") == uninterrupted[0]


def test_beam_makes_the_same_bytes(arguments, uninterrupted, tmp_path: pathlib.Path):
    pytest.importorskip("apache_beam")
    beam = ["--engine=beam", "--beam_options=--runner=BundleBasedDirectRunner"]
    with start(arguments, tmp_path / "records", *beam) as process:
        assert process.wait() == 0, process.stderr.read()
    assert content(tmp_path / "records") == uninterrupted[0]
    with start(arguments, tmp_path / "more", "--engine=beam", "--beam_options=--runner=Nobody") as process:
        assert process.wait() == 1
        assert "Unexpected pipeline runner: Nobody" in process.stderr.read()
