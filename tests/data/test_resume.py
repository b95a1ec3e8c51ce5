"""A killed conversion resumes to the same bytes as an uninterrupted one. `make resume-proof` does it at full size."""

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
    """Renders lines and gives each many names; every 97th line has a fault, every 101st name occurs again later."""
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
    """Returns the files of an uninterrupted run, and how many seconds it takes."""
    folder, begun = tmp_path_factory.mktemp("uninterrupted") / "records", time.monotonic()
    with start(arguments, folder) as process:
        assert process.wait() == 0
    return content(folder), time.monotonic() - begun


@pytest.mark.parametrize("moment", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(MOMENTS) if n != 1)])
def test_a_killed_conversion_resumes_to_the_same_bytes(arguments, uninterrupted, invoke, tmp_path: pathlib.Path, moment: int):
    expected, seconds = uninterrupted
    folder = tmp_path / "records"
    staging = folder / ".lines-train.partial"
    with start(arguments, folder) as process:
        if MOMENTS > 3:  # anywhere, from the start to beyond the end
            time.sleep(seconds * (moment + random.Random(moment).random()) / MOMENTS)
        else:
            while process.poll() is None and len(list(staging.glob("0*"))) <= (1, 4, SHARDS - 1)[moment]:
                time.sleep(0.001)
        process.kill()
    progress = staging / "progress.json"
    finished = len(files.read_json(progress)["shards"]) if progress.exists() else 0
    times = {path.name: path.stat().st_mtime_ns for path in staging.glob("0*")} if finished else {}
    assert invoke("make_tfrecords", *arguments, f"--output={folder}", "--resume").returncode == 0
    assert content(folder) == expected
    for index in range(finished):  # these shards were not written again
        final = folder / f"lines-train.tfrecord-{index:05d}-of-{SHARDS:05d}"
        assert times.get(f"{index:05d}", final.stat().st_mtime_ns) == final.stat().st_mtime_ns
    assert moment == 0 or MOMENTS > 3 or finished


def test_resuming_a_finished_conversion_changes_nothing(arguments, uninterrupted, invoke, tmp_path: pathlib.Path):
    folder = tmp_path / "records"
    line = ["make_tfrecords", *arguments, f"--output={folder}"]
    for _ in range(2):  # the first one finds nothing to resume
        assert invoke(*line, "--resume").returncode == 0
        assert content(folder) == uninterrupted[0]
    refused = invoke(*line, "--resume", "--pixels_per_frame=2")
    assert refused.returncode == 1
    assert "pixels_per_frame: saved 4, given 2" in refused.stderr
    assert invoke(*line).returncode == 1


@pytest.mark.alike
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_records_do_not_depend_on_the_number_of_workers(arguments, uninterrupted, tmp_path: pathlib.Path, workers: int):
    with start(arguments, tmp_path / "records", f"--workers={workers}") as process:
        assert process.wait() == 0
    assert content(tmp_path / "records") == uninterrupted[0]


@pytest.mark.slow
def test_beam_writes_the_same_bytes(arguments, uninterrupted, tmp_path: pathlib.Path):
    pytest.importorskip("apache_beam")
    beam = ["--engine=beam", "--beam_options=--runner=BundleBasedDirectRunner"]
    with start(arguments, tmp_path / "records", *beam) as process:
        assert process.wait() == 0, process.stderr.read()
    assert content(tmp_path / "records") == uninterrupted[0]


def test_an_unknown_beam_runner_is_refused(arguments, invoke, tmp_path: pathlib.Path):
    pytest.importorskip("apache_beam")
    beam = ["--engine=beam", "--beam_options=--runner=Nobody"]
    refused = invoke("make_tfrecords", *arguments, f"--output={tmp_path / 'records'}", *beam)
    assert refused.returncode == 1
    assert "Unexpected pipeline runner: Nobody" in refused.stderr
