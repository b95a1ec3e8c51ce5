"""Damaged files in other tools' formats: an error in one line or rejects, and no file outside the folder is opened."""

import collections
import contextlib
import io
import json
import lzma
import pathlib
import random
import sys
from collections.abc import Iterator

import foreign
import pyarrow as pa
import pytest
from pyarrow import parquet
from test_page_xml import alto_xml, page_xml, text_line

from ocr.data import entries, labels
from ocr.data.folder import Folder
from ocr.data.labels import Reject
from ocr.data.sources import choose
from ocr.data.sources.images import Images
from tfrecords.errors import InputError

DATA = pathlib.Path(__file__).parent
OPENED: list[str] | None = None  # names of files, while they are recorded


def note(event: str, arguments: tuple) -> None:
    if event == "open" and OPENED is not None:
        OPENED.append(str(arguments[0]))


sys.addaudithook(note)


@contextlib.contextmanager
def recorded() -> Iterator[list[str]]:
    global OPENED
    OPENED = []
    try:
        yield OPENED
    finally:
        OPENED = None


def page(folder: pathlib.Path) -> tuple[str, bytes]:
    lines = [text_line(f"l{top}", f"10,{top} 210,{top} 210,{top + 32} 10,{top + 32}", "abc") for top in (10, 60, 110)]
    lines.append(text_line("turned", "10,20 210,40 205,72 5,52", "abc", '<Baseline points="10,46 210,66"/>'))
    return "one.xml", page_xml("".join(lines)).encode()


def alto(folder: pathlib.Path) -> tuple[str, bytes]:
    box = 'HPOS="10" VPOS="20" WIDTH="200" HEIGHT="32"'
    shape = '<Shape><Polygon POINTS="20,100 180,100 180,132 20,132"/></Shape>'
    lines = f'<TextLine ID="a" {box} BASELINE="46"><String CONTENT="a"/></TextLine>'
    return "one.xml", alto_xml(lines + lines.replace("><", f">{shape}<", 1)).encode()


def json_file(folder: pathlib.Path) -> tuple[str, bytes]:
    return "list.json", json.dumps(
        {f"{name}.png": f"text {name}" for name in ("a", "b", "caf\u00e9")}, ensure_ascii=False
    ).encode()


def table(folder: pathlib.Path) -> tuple[str, bytes]:
    return "list.csv", b'file,text\na.png,one\n"b.png","t,wo"\na.png,"th\nree"\n'


def lmdb(folder: pathlib.Path) -> tuple[str, bytes]:
    return "data.mdb", lzma.decompress((DATA / "sample.mdb.xz").read_bytes())


def parquet_file(folder: pathlib.Path) -> tuple[str, bytes]:
    out = io.BytesIO()
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": foreign.encode(foreign.noise(seed)), "path": "x.png"} for seed in range(3)]
    cells.append({"bytes": None, "path": "a.png"})
    columns = {"image": pa.array(cells, type=struct), "text": pa.array(["a", "b", "c", "d"])}
    parquet.write_table(pa.table(columns), out, row_group_size=2)
    return "one.parquet", out.getvalue()


FILES = {"page": page, "alto": alto, "json": json_file, "csv": table, "lmdb": lmdb, "parquet": parquet_file}
INSERTED = (
    b"../secret.png",
    b"/etc/passwd",
    b"&lol;",
    b'<!DOCTYPE a [<!ENTITY lol SYSTEM "/etc/passwd">]>',
    b"\0",
    b"\xff",
    b"1e999",
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Returns a file that is cut, or has bytes changed, replaced, taken out or put in."""
    octets = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 40))):
        at = rng.randrange(len(octets) + 1)
        # A database has its structure at the beginning of pages of 4,096 bytes.
        at = min(rng.choice((at, at // 4096 * 4096 + rng.randrange(160))), len(octets))
        match rng.randrange(6):
            case 0:
                octets[at : at + 1] = rng.randbytes(1)
            case 1:
                octets[at : at + 8] = rng.choice((b"\xff" * 8, bytes(8), rng.randbytes(8)))
            case 2:
                octets[at : at + rng.randrange(100)] = b""
            case 3:
                name = rng.choice((b"p1.tif", b"a.png", b'""'))  # instead of an image's name, or somewhere
                if (found := octets.find(name)) >= 0:
                    at, octets[found : found + len(name)] = found, b""
                octets[at:at] = rng.choice(INSERTED)
            case 4:
                octets[at:at] = octets[at // 2 : at // 2 + rng.randrange(200)]
            case 5 if rng.random() < 0.2:
                del octets[at:]
    return bytes(octets)


@pytest.mark.parametrize("source", FILES)
@pytest.mark.parametrize("count", [100, pytest.param(2_000, marks=pytest.mark.slow)])
def test_a_damaged_file_is_refused_or_its_lines_are_rejected(tmp_path: pathlib.Path, source: str, count: int):
    folder = tmp_path / "images"
    folder.mkdir()
    foreign.noise(2).save(tmp_path / "secret.png")
    foreign.noise(1, 400, 200).save(folder / "p1.tif")
    foreign.noise(3).save(folder / "a.png")
    name, content = FILES[source](folder)
    outcomes: collections.Counter[str] = collections.Counter()
    for seed in range(count):
        (folder / name).write_bytes(damaged(content, random.Random(seed)) if seed else content)
        with recorded() as opened:
            for outcome in outcomes_of(source, folder, name):
                outcomes[outcome] += 1
        outside = [path for path in opened if path.endswith(("secret.png", "passwd"))]
        assert not outside, (seed, outside)
    assert outcomes["read"]
    assert len(outcomes) > 1
    assert outcomes.keys() <= {"read", "refused", *labels.REASONS}


def outcomes_of(source: str, folder: pathlib.Path, name: str) -> Iterator[str]:
    """Yields for each entry `read` or the reason why not; at last `refused` if the whole file is."""
    reader = Folder(str(folder), False)
    images, last = Images(reader), 0
    try:
        if source in choose.OF_FILES:
            found = choose.OF_FILES[source](folder / name)
        else:
            found = choose.OF_FOLDERS[source](reader, reader.names())
        for entry in found:
            assert entry.number > last
            last = entry.number
            entry = entries.parse(entries.line(entry).removesuffix(b"\n"))
            try:
                if entry.reason:
                    raise Reject(entry.reason, entry.detail)
                images.read(entry)
                yield "read"
            except Reject as reject:
                yield reject.reason
    except InputError as error:
        yield "refused" if "\n" not in str(error) else "refused in several lines"
