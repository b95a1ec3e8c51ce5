"""Hostile labels files and images: each line is packed or rejected, and nothing outside the images folder is ever read."""

import importlib
import os
import pathlib
import struct
import subprocess
import sys
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from PIL import Image

from ocr.data import convert, labels
from ocr.data import folder as folders
from ocr.data.convert_config import ConvertConfig
from tfrecords import reader
from tfrecords.errors import InputError

NAMES = [
    b"a.png",
    b"b.jpg",
    b"deep/c.png",
    b"../secret.png",
    b"/etc/passwd",
    b"out",
    b"fifo",
    b"none.png",
    b"",
    b"a\0.png",
    b".",
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    here = tmp_path_factory.mktemp("hostile")
    folder = here / "images"
    (folder / "deep").mkdir(parents=True)
    for path in (folder / "a.png", folder / "b.jpg", folder / "deep" / "c.png", here / "secret.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 90), np.uint8)).save(path)
    (folder / "out").symlink_to(here / "secret.png")
    (folder / "inside").symlink_to(folder / "a.png")
    (folder / "up").symlink_to(here)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "to_loop").symlink_to("loop")
    (folder / "gone.png").symlink_to(here / "gone.png")
    (here / "store").mkdir()
    (here / "store" / "object.png").symlink_to(here / "secret.png")
    (folder / "annex").symlink_to("../store")
    os.mkfifo(folder / "fifo")
    os.mkfifo(here / "fifo")
    return folder


def pack(images: pathlib.Path, content: bytes, output: pathlib.Path, **fields) -> dict:
    output.mkdir(exist_ok=True)
    (output / "labels.txt").write_bytes(content)
    given = {"images": str(images), "labels": str(output / "labels.txt"), "charset": "digits", "workers": 1}
    return convert.convert(ConvertConfig(output=str(output / "records"), **{**given, **fields}))


def rejects(output: pathlib.Path) -> list[list[str]]:
    return [row.split("\t") for row in (output / "records" / "lines-train.rejects.tsv").read_text("utf-8").splitlines()]


ROWS = strategies.one_of(
    strategies.binary(max_size=12),
    strategies.builds(
        lambda name, gap, rest: name + gap + rest,
        strategies.sampled_from(NAMES),
        strategies.sampled_from([b"\t", b" ", b"", b"\xc2\xa0"]),
        strategies.one_of(
            strategies.text("0123456789", max_size=5).map(str.encode),
            strategies.text(max_size=4).map(lambda text: text.encode("utf-8", "surrogatepass")),
            strategies.lists(strategies.integers(-2, 2**70), max_size=3).map(lambda ids: " ".join(map(str, ids)).encode()),
        ),
    ),
)


@pytest.mark.parametrize("examples", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_every_line_becomes_a_record_or_a_reject(images: pathlib.Path, tmp_path_factory, examples: int):
    @hypothesis.settings(max_examples=examples, deadline=None)
    @hypothesis.given(rows=strategies.lists(ROWS, min_size=1, max_size=12), end=strategies.sampled_from([b"\n", b"\r\n"]))
    def check(rows: list[bytes], end: bytes) -> None:
        check_counts(images, end.join(rows) + end, tmp_path_factory.mktemp("any"))

    check()


def check_counts(images: pathlib.Path, content: bytes, output: pathlib.Path) -> None:
    count = content.count(b"\n") - content.endswith((b"\n\n", b"\n\r\n"))
    try:
        summary = pack(images, content, output)
    except InputError as error:
        assert any(part in str(error) for part in ("none of its", "no labels in it", "has no tab"))  # noqa: PT017
        return
    assert summary["records"] + summary["rejects"] == count
    assert summary["records"] == reader.find(str(output / "records"), "train")[1].records
    rows = rejects(output)
    assert len(rows) == summary["rejects"]
    assert {row[2] for row in rows} <= set(labels.REASONS)
    numbers = [int(row[0]) for row in rows]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.png", "outside_images"),
        ("deep/../../secret.png", "outside_images"),
        ("/etc/passwd", "outside_images"),
        ("out", "outside_images"),
        ("up/secret.png", "outside_images"),
        ("loop", "missing_file"),
        ("fifo", "missing_file"),
        ("deep", "missing_file"),
        ("deep/", "missing_file"),
        (".", "missing_file"),
        ("none/none.png", "missing_file"),
        ("a.png/b", "missing_file"),
        ("x" * 300, "missing_file"),
        ("a\0.png", "bad_line"),
    ],
)
def test_a_name_that_leads_outside_or_nowhere_is_rejected(images: pathlib.Path, tmp_path: pathlib.Path, name: str, reason: str):
    assert pack(images, f"a.png\t1\n{name}\t2\n".encode(), tmp_path)["records"] == 1
    assert [row[2] for row in rejects(tmp_path)] == [reason]


@pytest.mark.parametrize(
    "name",
    ["inside", "deep/../a.png", "./a.png", "deep//c.png", "up/images/a.png", "{images}/a.png", "{images}/deep/../inside"],
)
def test_a_name_that_leads_back_inside_is_read(images: pathlib.Path, tmp_path: pathlib.Path, name: str):
    assert pack(images, f"{name.format(images=images)}\t1\n".encode(), tmp_path)["records"] == 1


@pytest.mark.parametrize("name", ["{images}/../secret.png", "{images}x/a.png", "{images}/out", "{images}/up/secret.png"])
def test_an_absolute_name_that_leads_outside_is_rejected(images: pathlib.Path, tmp_path: pathlib.Path, name: str):
    pack(images, f"a.png\t1\n{name.format(images=images)}\t2\n".encode(), tmp_path)
    assert [row[2] for row in rejects(tmp_path)] == ["outside_images"]


FOLLOWED = ["out", "up/secret.png", "{images}/../secret.png", "{images}/out", "annex/object.png", "deep/../out"]


@pytest.mark.parametrize("name", FOLLOWED)
def test_links_and_absolute_names_may_lead_outside_if_followed(images: pathlib.Path, tmp_path: pathlib.Path, name: str):
    row = f"a.png\t1\n{name.format(images=images)}\t2\n".encode()
    assert pack(images, row, tmp_path / "not")["reasons"] == {"outside_images": 1}
    assert rejects(tmp_path / "not")[0][3].endswith("; --follow_links reads it")
    assert pack(images, row, tmp_path / "followed", follow_links=True)["records"] == 2


@pytest.mark.parametrize(
    ("name", "reason", "detail"),
    [
        ("../secret.png", "outside_images", "../secret.png is not in {images}"),
        ("deep/../../secret.png", "outside_images", "deep/../../secret.png is not in {images}"),
        ("loop", "missing_file", "Too many levels of symbolic links"),
        ("to_loop", "missing_file", "Too many levels of symbolic links"),
        ("gone.png", "missing_file", "a link to a file that is not there"),
        ("{images}/../fifo", "missing_file", "not a regular file"),
        ("up", "missing_file", "not a regular file"),
    ],
)
def test_even_then_a_line_without_an_image_is_rejected(
    images: pathlib.Path, tmp_path: pathlib.Path, name: str, reason: str, detail: str
):
    row = f"a.png\t1\n{name.format(images=images)}\t2\n".encode()
    assert pack(images, row, tmp_path, follow_links=True)["records"] == 1
    assert [row[2:] for row in rejects(tmp_path)] == [[reason, detail.format(images=images)]]


def test_links_to_one_file_are_images_of_their_own(images: pathlib.Path, tmp_path: pathlib.Path):
    # Where files are stored by their content, images that are equal are links to one file.
    assert pack(images, b"a.png\t1\ninside\t1\nout\t2\nup/secret.png\t3\n", tmp_path, follow_links=True)["records"] == 4


@pytest.mark.parametrize("engine", ["local", pytest.param("beam", marks=pytest.mark.slow)])
def test_an_image_under_several_spellings_is_packed_once(images: pathlib.Path, tmp_path: pathlib.Path, engine: str):
    names = ["none.png", "./a.png", "a.png", "deep/../a.png", "deep/c.png", "deep//c.png", f"{images}/deep/c.png", "b.jpg"]
    content = "".join(f"{name}\t1\n" for name in [*names, "up/images/a.png"]).encode()
    if engine == "beam":
        beam = pytest.importorskip("apache_beam") and importlib.import_module("ocr.data.convert_beam")
        tmp_path.joinpath("labels.txt").write_bytes(content)
        given = {"images": str(images), "labels": str(tmp_path / "labels.txt"), "charset": "digits", "engine": "beam"}
        options = "--runner=BundleBasedDirectRunner"
        beam.run(ConvertConfig(output=str(tmp_path / "records"), beam_options=options, num_shards=2, **given))
    else:
        pack(images, content, tmp_path)
    duplicates = [int(row[0]) for row in rejects(tmp_path) if row[2] == "duplicate_name"]
    assert duplicates == [3, 4, 6, 7, 9]


@pytest.mark.parametrize(
    ("name", "file", "hint"),
    [
        ("caf\u00e9.png", "cafe\u0301.png", "in Unicode's form NFD, not NFC"),
        ("cafe\u0301.png", "caf\u00e9.png", "in Unicode's form NFC, not NFD"),
        ("A.PNG", "a.png", "in other upper and lower case"),
        ("Deep/A.png", "deep/a.png", "in other upper and lower case"),
        ("deep\\a.png", "deep/a.png", "with / for"),
        ("a.png ", "a.png", "without the blank at an end"),
        (" a.png", "a.png", "without the blank at an end"),
        ("a.png", "a.png ", "with a blank at an end"),
        ('"a.png"', "a.png", "; there is 'a.png'"),
        ("a", "a.png", "; there is 'a.png'"),
        ("a.jpg", "a.png", "; there is 'a.png'"),
        ("lines/a.png", "a.png", "; there is 'a.png'"),
        ("/a.png", "a.png", "; there is 'a.png'"),
        ("C:\\lines\\a.png", "a.png", "; there is 'a.png'"),
    ],
)
def test_a_reject_names_the_file_that_is_spelled_otherwise(tmp_path: pathlib.Path, name: str, file: str, hint: str):
    (tmp_path / "images" / file).parent.mkdir(parents=True)
    for path in (tmp_path / "images" / file, tmp_path / "images" / "good.png"):
        Image.new("L", (90, 32)).save(path, "PNG")
    pack(tmp_path / "images", f"good.png\t1\n{name}\t2\n".encode(), tmp_path)
    ((_, _, reason, detail),) = rejects(tmp_path)
    assert reason == ("outside_images" if name == "/a.png" else "missing_file")
    assert f"there is {file!r}" in detail
    assert hint in detail


def test_a_hint_names_no_file_outside(images: pathlib.Path, tmp_path: pathlib.Path):
    names = ["SECRET.png", "up/SECRET.png", "../Secret.png", "OUT", "up/Images/none"]
    pack(images, "".join(f"{name}\t1\n" for name in ["a.png", *names]).encode(), tmp_path)
    assert not [row for row in rejects(tmp_path) if "there is" in row[3]]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("a.png,12", "no tab in 'a.png,12', which looks like CSV: replace the first ',' by a tab"),
        ("a.png 12", "no tab in 'a.png 12', where a blank is in its place"),
        ("a.png\t12\rb.png", "lines must end with line feeds"),
        ("a.png\t12 ", "a blank at an end of the text"),
        ("a.png\t12\t3", "more than one tab"),
        ("a.png\t1 2 3", "if these are ids, give --label_format=ids"),
        ("a.png\t\uff11", "other forms of these characters"),
    ],
)
def test_a_reject_says_what_is_wrong_with_the_line(images: pathlib.Path, tmp_path: pathlib.Path, line: str, hint: str):
    pack(images, f"b.jpg\t1\n{line}\n".encode(), tmp_path)
    ((*_, detail),) = rejects(tmp_path)
    assert hint in detail


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("12\ta.png", "a.png"),
        ("12\tdeep/c.png", "deep/c.png"),
        ("12\timages/A.PNG", "a.png"),
        ("\ta.png", "a.png"),
        ("12\ta", ""),
        ("a.png\tb.jpg", ""),
        ("12\tnone.png", ""),
        ("12\t../secret.png", ""),
    ],
)
def test_a_reject_says_if_the_columns_are_swapped(images: pathlib.Path, tmp_path: pathlib.Path, line: str, file: str):
    pack(images, f"b.jpg\t1\n{line}\n".encode(), tmp_path)
    ((*_, detail),) = rejects(tmp_path)
    assert (f"; {file!r} is a file: are the columns swapped? Write name<TAB>text" in detail) == bool(file)
    assert ("swapped" in detail) == bool(file)


def test_hints_follow_links_where_lines_do(images: pathlib.Path, tmp_path: pathlib.Path):
    for follow_links, file in ((False, ""), (True, "out")):
        pack(images, b"b.jpg\t1\n12\tout\n", tmp_path / file, follow_links=follow_links)
        assert (f"{file!r} is a file" in rejects(tmp_path / file)[0][3]) == follow_links


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, colour: int = 0) -> bytes:
    """Returns a PNG file of a few hundred bytes that says it is as large as that."""
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    data = zlib.compress(bytes(min(height * (width + 1), 2**20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("check", ["full", "header"])
def test_an_image_that_is_damaged_or_too_large_is_rejected(images: pathlib.Path, tmp_path: pathlib.Path, check: str):
    folder = tmp_path / "images"
    folder.mkdir()
    good = (images / "a.png").read_bytes()
    jpeg = (images / "b.jpg").read_bytes()
    files = {
        "bomb.png": (png(2**31 - 1, 2**31 - 1), "too_large"),
        "wide.png": (png(1_000_000, 32), "too_large"),
        "none.png": (png(0, 32), "undecodable"),
        "empty.png": (b"", "undecodable"),
        "junk.png": (b"GARBAGE", "undecodable"),
        "cut.jpg": (jpeg[:20], "undecodable"),
        "large.png": (None, "too_large"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content or b"")
    with open(folder / "large.png", "wb") as file:
        file.write(good)
        file.truncate(5 * 2**30)  # a hole: no room on the disk
    (folder / "good.png").write_bytes(good)
    rows = "".join(f"{name}\t1\n" for name in [*files, "good.png"])
    assert pack(folder, rows.encode(), tmp_path, check=check)["records"] == 1
    assert {row[1]: row[2] for row in rejects(tmp_path)} == {name: reason for name, (_, reason) in files.items()}


def test_check_header_does_not_notice_damaged_image_data(images: pathlib.Path, tmp_path: pathlib.Path):
    folder = tmp_path / "images"
    folder.mkdir()
    content = (images / "a.png").read_bytes()
    (folder / "a.png").write_bytes(content)
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "cut.jpg").write_bytes((images / "b.jpg").read_bytes()[:200])
    rows = b"a.png\t1\ncut.png\t2\ncut.jpg\t3\n"
    assert pack(folder, rows, tmp_path / "full")["reasons"] == {"undecodable": 2}
    assert pack(folder, rows, tmp_path / "header", check="header")["reasons"] in ({}, {"undecodable": 1})


@pytest.mark.parametrize("line", ["12\t{path}", "{path}\t12", "{path}"])
def test_a_path_of_a_million_folders_takes_no_time(images: pathlib.Path, tmp_path: pathlib.Path, line: str):
    assert pack(images, f"a.png\t1\n{line.format(path='a/' * 500_000)}\n".encode(), tmp_path)["records"] == 1


def test_a_line_of_ten_megabytes_is_one_bad_line(images: pathlib.Path, tmp_path: pathlib.Path):
    rows = b"a.png\t1\n" + b"b.jpg\t" + b"7" * 10_000_000 + b"\n" + b"deep/c.png\t2\n"
    assert pack(images, rows, tmp_path) == {"records": 2, "rejects": 1, "shards": 1, "reasons": {"bad_line": 1}}
    assert [(row[0], row[3]) for row in rejects(tmp_path)] == [("2", "longer than 1048576 bytes")]


@pytest.mark.parametrize("image_format", ["keep", "raw"])
def test_a_cmyk_jpeg_is_packed(tmp_path: pathlib.Path, image_format: str):
    (tmp_path / "images").mkdir()
    Image.new("CMYK", (77, 41), (9, 9, 9, 9)).save(tmp_path / "images" / "a.jpg")
    assert pack(tmp_path / "images", b"a.jpg\t1\n", tmp_path, image_format=image_format)["records"] == 1


def test_a_reader_keeps_few_folders_open(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, images: pathlib.Path):
    monkeypatch.setattr(folders, "_MAX_OPEN_FOLDERS", 3)
    content = (images / "a.png").read_bytes()
    for index in range(10):
        (tmp_path / "images" / str(index)).mkdir(parents=True)
        (tmp_path / "images" / str(index) / "a.png").write_bytes(content)
    rows = "".join(f"{index % 10}/a.png\t{index}\n" for index in range(20))
    open_before = len([*pathlib.Path("/proc/self/fd").iterdir()])
    assert pack(tmp_path / "images", rows.encode(), tmp_path)["records"] == 10
    assert len([*pathlib.Path("/proc/self/fd").iterdir()]) <= open_before + 4


def test_worker_processes_load_no_tensorflow():
    code = "import sys, ocr.data.line_reader; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
