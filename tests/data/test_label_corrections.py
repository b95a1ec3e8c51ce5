import json
import pathlib

import foreign
import pytest

from tfrecords.errors import InputError

ROWS = ["1.png\tone", "2.png\ttwo", "3.png", "missing.png\tx", "5.png\tü", "wide\u3000name.png\tsix", "7.png\tseven"]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, row in enumerate(ROWS, 1):
        if "missing" not in row:
            foreign.noise(number).save(folder / row.split("\t")[0])
    (tmp_path / "labels.txt").write_text("\n".join(ROWS), "utf-8")
    return folder


def pack(folder: pathlib.Path, corrections: str, **fields) -> dict:
    path = folder.parent / "corrections.tsv"
    path.write_text(corrections, "utf-8")
    return foreign.pack(folder, corrections=str(path), labels=str(folder.parent / "labels.txt"), **fields)


def test_texts_are_corrected_or_dropped_and_every_line_is_accounted_for(folder: pathlib.Path, tmp_path: pathlib.Path, caplog):
    caplog.set_level("INFO")
    corrections = "\ufeff1.png\t1\r\n2.png\t\n\n5.png\tfive\nmissing.png\tthere\nwide\u3000name.png\t6\nnone.png\tx\n"
    summary = pack(folder, corrections)
    assert foreign.texts(tmp_path / "records") == {"1.png": "1", "5.png": "five", "wide\u3000name.png": "6", "7.png": "seven"}
    rejected = [(2, "2.png", "dropped"), (3, "", "bad_line"), (4, "missing.png", "missing_file")]
    assert foreign.rejects(tmp_path / "records") == rejected
    assert summary["records"] + summary["rejects"] == len(ROWS)
    assert "4 lines corrected, 1 dropped" in caplog.text
    assert "1 of its lines match no name, the first: 'none.png'" in caplog.text


def test_names_may_be_as_tables_show_them(folder: pathlib.Path, tmp_path: pathlib.Path):
    pack(folder, "wide\\u3000name.png\t6")
    assert foreign.texts(tmp_path / "records")["wide\u3000name.png"] == "6"


def test_corrections_apply_to_other_sources_and_to_both_splits(folder: pathlib.Path, tmp_path: pathlib.Path):
    (tmp_path / "labels.json").write_text(json.dumps({f"{number}.png": "x" for number in (1, 2, 5, 7)}))
    (tmp_path / "held").write_text("2.png\n7.png\n")
    (tmp_path / "fixed").write_text("1.png\tA\n2.png\tB\n7.png\t\n")
    given = {"labels": str(tmp_path / "labels.json"), "split_by": str(tmp_path / "held")}
    summary = foreign.pack(folder, corrections=str(tmp_path / "fixed"), **given)
    assert foreign.texts(tmp_path / "records") == {"1.png": "A", "5.png": "x"}
    assert foreign.texts(tmp_path / "records", "eval") == {"2.png": "B"}
    assert summary["reasons"] == {"dropped": 1}


def test_a_run_is_not_resumed_with_other_corrections(folder: pathlib.Path):
    summary = pack(folder, "1.png\t1")
    assert pack(folder, "1.png\t1", resume=True) == summary
    with pytest.raises(InputError, match="was made with other settings"):
        pack(folder, "1.png\t2", resume=True)


@pytest.mark.parametrize(
    ("corrections", "message"),
    [
        ("1.png one", "line 1 is '1.png one'; it must be a name, a tab and a text"),
        ("1.png\ta\n\tb", "line 2"),
        ("1.png\ta\n1.png\tb", "line 2 names 1.png again"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path, corrections: str, message: str):
    with pytest.raises(InputError, match=message):
        pack(folder, corrections)
    assert not list((tmp_path / "records").glob("*"))
