import lzma
import pathlib
import string
from collections.abc import Callable

import foreign
import numpy as np
import pyarrow as pa
import pytest
from foreign import encode, noise
from pyarrow import parquet

from tfrecords import manifest
from tfrecords.errors import InputError

DATA = pathlib.Path(__file__).parent
Expected = tuple[dict[str, str], list[tuple[int, str, str]]]  # texts by name, and the rejects


def save(folder: pathlib.Path, *names: str) -> None:
    """Saves images; that of a name is the noise of its length."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        noise(len(name)).save(folder / name)


def gt(folder: pathlib.Path) -> Expected:
    """As OCRopus and kraken have it: with and without line feeds, a BOM, several images of one line."""
    save(folder, "a.png", "deep/b1.bin.png", "deep/c12.nrm.png", "deep/c12.bin.png", "e.tif", "unlabelled.png", "two.jpg")
    texts = {"a": "abc\n", "deep/b1": "\ufeffd e", "deep/c12": "x1\r\n", "e": "E", "lost": "l", "two": "o\nt\n", "none": ""}
    for name, text in texts.items():
        (folder / f"{name}.gt.txt").write_bytes(text.encode())
    save(folder, "none.png")
    (folder / "latin.gt.txt").write_bytes("é".encode("latin-1"))
    save(folder, "latin.png")
    kept = {"a.png": "abc", "deep/b1.bin.png": "d e", "deep/c12.nrm.png": "x1", "e.tif": "E"}
    rejects = ["latin.png bad_line", "lost.gt.txt missing_file", "none.png empty_label", "two.jpg bad_line"]
    return kept, [(number, *row.split()) for number, row in enumerate(rejects, 5)]


def names(folder: pathlib.Path) -> Expected:
    save(folder, "abc_0.png", "a_b_12.jpg", "deep/x y_3.png")
    return {"abc_0.png": "abc", "deep/x y_3.png": "x y"}, [(1, "a_b_12.jpg", "not_in_charset")]


def paddle(folder: pathlib.Path) -> Expected:
    """As PaddleOCR's `rec_gt.txt`, where one text may have several images."""
    save(folder, "a.png", "bb.png", "ccc.png")
    rows = ['["a.png", "bb.png"]\tone', "ccc.png\ttwo", "no tab", '["a.png", "d.png"]\tthree', "../x.png\tout"]
    (folder / "list").write_text("\n".join(rows))
    rejects = ["4 no@tab bad_line", "5 a.png duplicate_name", "6 d.png missing_file", "7 ../x.png outside_images"]
    parts = [row.replace("@", "\0").split() for row in rejects]
    return {"a.png": "one", "bb.png": "one", "ccc.png": "two"}, [
        (int(number), name.replace("\0", " "), reason) for number, name, reason in parts
    ]


def json_file(folder: pathlib.Path) -> Expected:
    """As docTR's `labels.json`."""
    save(folder, "a.png", "bb.png")
    pairs = '{"a.png": "one", "bb.png": "t\\u0077o", "a.png": "again", "c.png": ["x"], "/etc/passwd": "x", "d\\ud800": "x"}'
    (folder / "list").write_text(pairs)
    reasons = ["a.png duplicate_name", "c.png bad_line", "/etc/passwd outside_images", "d\\ud800 bad_line"]
    return {"a.png": "one", "bb.png": "two"}, [(number, *row.split()) for number, row in enumerate(reasons, 3)]


def csv(folder: pathlib.Path) -> Expected:
    save(folder, "a.png", "bb.png", "c,c.png")
    rows = ["Id,File Name,Text", "1,a.png,one", '2,bb.png,"t""w', 'o"', '3,"c,c.png",two', "4,a.png", "", "5,a.png,again"]
    (folder / "list.csv").write_text("\n".join(rows), "utf-8-sig")
    rejects = ["4 bb.png not_in_charset", "6 @ bad_line", "7 @ bad_line", "8 a.png duplicate_name"]
    parts = [row.split() for row in rejects]
    return {"a.png": "one", "c,c.png": "two"}, [(int(number), name.strip("@"), reason) for number, name, reason in parts]


def tsv(folder: pathlib.Path) -> Expected:
    save(folder, "a.png", "bb.png")
    (folder / "list.tsv").write_text('label\tpath\n"one\ta.png\ntwo\tbb.png\n')
    return {"a.png": '"one', "bb.png": "two"}, []


def lmdb(folder: pathlib.Path) -> Expected:
    """As deep-text-recognition-benchmark has it; written by LMDB 0.9.36. Its images are flat, 17 to 19 are spoiled."""
    (folder / "MJ").mkdir()
    (folder / "MJ" / "data.mdb").write_bytes(lzma.decompress((DATA / "sample.mdb.xz").read_bytes()))
    kept = {f"MJ/image-{number:09d}": str(number) for number in range(1, 61) if number not in (17, 18, 19)}
    spoiled = {17: "missing_file", 18: "bad_line", 19: "bad_line"}
    return kept, [(number, f"MJ/image-{number:09d}", reason) for number, reason in spoiled.items()]


def hugging_face(folder: pathlib.Path) -> Expected:
    """With {bytes, path} as Hugging Face has it, and bytes alone; in several row groups."""
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    save(folder, "own.png")
    cells = [{"bytes": encode(noise(seed)), "path": "x.png"} for seed in range(5)]
    cells += [{"bytes": None, "path": "own.png"}, {"bytes": None, "path": "../secret.png"}, None]
    texts = ["t0", "t1", "t2", "t3", None, "own", "secret", "none"]
    table = pa.table({"id": pa.array(range(8)), "image": pa.array(cells, type=struct), "text": pa.array(texts)})
    parquet.write_table(table, folder / "a.parquet", row_group_size=3)
    parquet.write_table(pa.table({"image": [encode(noise(9))], "label": ["t9"]}), folder / "b.parquet")
    kept = {**{f"a.parquet#{row}": f"t{row - 1}" for row in range(1, 5)}, "a.parquet#6": "own", "b.parquet#1": "t9"}
    return kept, [
        (5, "a.parquet#5", "empty_label"),
        (7, "a.parquet#7", "outside_images"),
        (8, "a.parquet#8", "missing_file"),
    ]


SOURCES: dict[str, tuple[Callable[[pathlib.Path], Expected], str]] = {
    "gt": (gt, ""),
    "names": (names, ""),
    "paddle": (paddle, "list"),
    "json": (json_file, "list"),
    "csv": (csv, "list.csv"),
    "tsv": (tsv, "list.tsv"),
    "lmdb": (lmdb, ""),
    "parquet": (hugging_face, ""),
}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "images").mkdir()
    noise(0).save(tmp_path / "secret.png")
    return tmp_path / "images"


@pytest.mark.parametrize("source", SOURCES)
def test_every_line_of_a_source_becomes_a_record_or_a_reject(folder: pathlib.Path, tmp_path: pathlib.Path, source: str):
    make, listed = SOURCES[source]
    kept, rejects = make(folder)
    (tmp_path / "charset").write_text("".join(f"{character}\n" for character in string.ascii_letters + string.digits + ' "'))
    given = {"charset": str(tmp_path / "charset"), "labels": str(folder / listed) if listed else ""}
    summary = foreign.pack(folder, **given)
    assert (summary["records"], summary["rejects"]) == (len(kept), len(rejects))
    packed = foreign.records(tmp_path / "records")
    assert {name: text for name, (text, _) in packed.items()} == kept
    assert foreign.rejects(tmp_path / "records") == rejects
    provenance = manifest.load(tmp_path / "records" / "lines-train.manifest.json").provenance
    assert provenance["source"] == ("csv" if source == "tsv" else source)
    for name, (text, pixels) in packed.items():
        if source == "lmdb":
            assert (pixels == 4 * int(text)).all()
        elif source == "parquet" and name != "a.parquet#6":
            np.testing.assert_array_equal(pixels, noise(int(text[1:])))
        elif not name.endswith(".jpg"):
            np.testing.assert_array_equal(pixels, noise(7 if source == "parquet" else len(name)))
    explicit = "csv" if source == "tsv" else source
    foreign.pack(folder, **given, source=explicit, output=str(tmp_path / "explicit"), workers=3 if source == "lmdb" else 1)
    for path in (tmp_path / "records").iterdir():  # whichever way it is named, and however many processes read
        assert path.read_bytes() == (tmp_path / "explicit" / path.name).read_bytes()


def test_a_labels_file_whose_lines_are_no_json_lists_is_one_of_ours(folder: pathlib.Path, tmp_path: pathlib.Path):
    save(folder, "a.png", "[b].png", "{c}.png")
    for name in ("[b].png", "{c}.png"):
        (folder / "list.tsv").write_text(f"{name}\tone\na.png\ttwo\n")
        foreign.pack(folder, labels=str(folder / "list.tsv"), split=f"split_{name[1]}")
        assert foreign.texts(tmp_path / "records", f"split_{name[1]}") == {name: "one", "a.png": "two"}
    assert manifest.load(tmp_path / "records" / "lines-split_b.manifest.json").provenance["label_format"] == "text"


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        (["a.png"], {}, "--labels: has to be given: --images=.* has no texts in it"),
        (["a_1.png", "b.png"], {}, "has no texts in it"),
        (["a.png", "labels.txt"], {}, "--labels: has to be given: perhaps --labels=.*/labels.txt"),
        (["a.gt.txt", "data.mdb"], {}, "could be gt or lmdb: say which with --source"),
        (["a.png"], {"source": "gt"}, "has no text lines"),
        (["data.mdb"], {}, "data.mdb: it is not a database of LMDB"),
        (["a.parquet"], {}, "a.parquet: damaged Parquet"),
        (["l.json"], {"source": "json", "labels": "l.json"}, "l.json: not JSON"),
        (["l.csv"], {"source": "csv", "labels": "l.csv"}, "its first line must name a column of images"),
        ([], {"source": "csv", "labels": "none.csv"}, "none.csv: No such file"),
        ([], {"source": "csv"}, "--labels: has to be given with --source=csv"),
        ([], {"source": "gt", "labels": "x"}, "--labels: not taken with --source=gt"),
        ([], {"source": "gt", "engine": "beam"}, "--engine=beam: takes only a labels file"),
        ([], {"source": "tif"}, "--source=tif: must be one of"),
    ],
)
def test_what_is_no_source_is_refused_in_a_line(folder: pathlib.Path, files: list[str], fields: dict, message: str):
    for name in files:
        (folder / name).write_bytes(b"junk")
    if "labels" in fields:
        fields = {**fields, "labels": str(folder / fields["labels"])}
    with pytest.raises(InputError, match=message) as refused:
        foreign.pack(folder, **fields)
    assert "\n" not in str(refused.value)


def test_links_in_a_folder_are_not_read_unless_they_are_followed(folder: pathlib.Path, tmp_path: pathlib.Path):
    save(folder, "a.png", "b.png")
    (folder / "a.gt.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "b.gt.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "more").mkdir()
    save(tmp_path / "more", "c.png")
    (tmp_path / "more" / "c.gt.txt").write_text("c")
    (tmp_path / "more" / "loop").symlink_to(tmp_path / "more")
    (folder / "more").symlink_to(tmp_path / "more")
    foreign.pack(folder)
    assert foreign.rejects(tmp_path / "records") == [(2, "b.png", "outside_images")]
    foreign.pack(folder, follow_links=True, output=str(tmp_path / "followed"))
    assert foreign.texts(tmp_path / "followed") == {"a.png": "a", "b.png": "secret", "more/c.png": "c"}


def test_the_manifest_counts_the_images_that_were_re_encoded(folder: pathlib.Path, tmp_path: pathlib.Path):
    for name, kind in (("a", "TIFF"), ("b", "TIFF"), ("c", "WEBP"), ("d", "PNG"), ("e", "GIF")):
        (folder / f"{name}.{kind.lower()}").write_bytes(
            encode(noise(1), kind, **({"lossless": True} if kind == "WEBP" else {}))
        )
        (folder / f"{name}.gt.txt").write_text(name)
    (folder / "f.tif").write_bytes(b"II*\0junk")
    (folder / "f.gt.txt").write_text("f")
    (folder / "labels.txt").write_text("a.tiff\ta\nb.tiff\tb\nc.webp\tc\nd.png\td\ne.gif\te\nf.tif\tf\n")
    summary = foreign.pack(folder, labels=str(folder / "labels.txt"))
    assert summary["reencoded"] == {"TIFF": 2, "WebP": 1}
    assert (summary["records"], summary["reasons"]) == (5, {"undecodable": 1})
    packed = foreign.records(tmp_path / "records")
    for _, pixels in packed.values():
        np.testing.assert_array_equal(pixels, noise(1))
    assert manifest.load(tmp_path / "records" / "lines-train.manifest.json").reencoded == {"TIFF": 2, "WebP": 1}
    fields = {"image_format": "raw", "output": str(tmp_path / "raw")}
    assert foreign.pack(folder, labels=str(folder / "labels.txt"), **fields) == summary
