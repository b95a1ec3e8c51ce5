import json
import pathlib

import foreign
import pytest

from ocr.data import inputs
from ocr.data.convert_config import ConvertConfig
from ocr.data.entries import Entry
from ocr.data.split_by import SplitBy
from tfrecords.errors import InputError


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Returns a folder of 40 lines; line 7 is damaged."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(1, 41):
        foreign.noise(number).save(folder / f"{number}.png")
    rows = [f"{number}.png\tt{number}" if number != 7 else "7.png" for number in range(1, 41)]
    (tmp_path / "labels.txt").write_text("\n".join(rows))
    return folder


def test_one_command_packs_two_splits_that_share_no_line(folder: pathlib.Path, tmp_path: pathlib.Path):
    given = {"labels": str(tmp_path / "labels.txt"), "split_by": "0.3", "num_shards": 2}
    summary = foreign.pack(folder, **given)
    assert (summary["records"], summary["rejects"], summary["shards"]) == (39, 1, 4)
    assert sum(part["records"] + part["rejects"] for part in summary["splits"].values()) == 40
    packed = [foreign.texts(tmp_path / "records", split) for split in ("train", "eval")]
    assert not packed[0].keys() & packed[1].keys()
    assert packed[0] | packed[1] == {f"{number}.png": f"t{number}" for number in range(1, 41) if number != 7}
    assert 4 <= len(packed[1]) <= 20
    rejects = [row for split in ("train", "eval") for row in foreign.rejects(tmp_path / "records", split)]
    assert rejects == [(7, "", "bad_line")]  # by its number in the whole file
    before = {path: path.read_bytes() for path in (tmp_path / "records").iterdir()}
    assert foreign.pack(folder, **given, resume=True) == summary
    assert {path: path.read_bytes() for path in (tmp_path / "records").iterdir()} == before
    with pytest.raises(InputError, match="split train is already there"):
        foreign.pack(folder, **given)
    with pytest.raises(InputError, match=r"--resume: .* was made with other settings"):
        foreign.pack(folder, **{**given, "split_by": "0.6"}, resume=True)


def test_the_characters_of_all_lines_are_known_before_they_are_packed(folder: pathlib.Path, tmp_path: pathlib.Path):
    output = tmp_path / "records"
    labels = str(tmp_path / "labels.txt")
    config = ConvertConfig(images=str(folder), labels=labels, charset="digits", output=str(output), split_by="0.3")
    assert inputs.characters(config) == "0123456789t"
    assert list(output.iterdir()) == []


def test_a_line_stays_in_its_split_when_others_are_added(folder: pathlib.Path, tmp_path: pathlib.Path):
    rows = (tmp_path / "labels.txt").read_text().splitlines()
    (tmp_path / "some.txt").write_text("\n".join(rows[::-1][:25]))
    for labels in ("labels", "some"):
        foreign.pack(folder, labels=str(tmp_path / f"{labels}.txt"), split_by="0.3", output=str(tmp_path / labels))
    all_lines, some = (foreign.texts(tmp_path / labels, "eval").keys() for labels in ("labels", "some"))
    assert some == all_lines & {row.split("\t")[0] for row in rows[::-1][:25]}


def test_a_share_of_many_names_is_as_large_as_it_says():
    chosen = [SplitBy("0.1").is_eval(Entry(1, f"{number}.png")) for number in range(20_000)]
    assert 1_850 < sum(chosen) < 2_150
    assert [SplitBy("0.1").is_eval(Entry(1, f"./{number}.png")) for number in range(200)] == chosen[:200]


def test_lines_of_a_page_stay_together():
    for page in range(50):
        lines = [Entry(number, f"{page}.xml#{number}", group=f"{page}.xml") for number in range(20)]
        assert len({SplitBy("0.5").is_eval(line) for line in lines}) == 1


def test_a_file_lists_the_names_for_evaluation(folder: pathlib.Path, tmp_path: pathlib.Path, caplog):
    (tmp_path / "list").write_text("5.png\n3*\nnone.png\n\n", "utf-8-sig")
    foreign.pack(folder, labels=str(tmp_path / "labels.txt"), split_by=str(tmp_path / "list"))
    names = {"3.png", "5.png", *(f"{number}.png" for number in range(30, 40))}
    assert foreign.texts(tmp_path / "records", "eval").keys() == names
    assert "1 of its lines match no name, the first: 'none.png'" in caplog.text


@pytest.mark.parametrize(
    ("split_by", "message"),
    [
        ("1.5", "--split_by=1.5: must be between 0 and 1, or a file of names"),
        ("nan", "--split_by=nan: must be between 0 and 1"),
        ("0.0001", "none of the 40 lines is for the split eval"),
        ("nowhere", "--split_by=nowhere: No such file"),
        ("{folder}", "Is a directory"),
    ],
)
def test_a_split_that_cannot_be_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path, split_by: str, message: str):
    with pytest.raises(InputError, match=message):
        foreign.pack(folder, labels=str(tmp_path / "labels.txt"), split_by=split_by.format(folder=folder))
    assert not list((tmp_path / "records").glob("*"))


def test_the_second_split_is_known_to_be_free_before_the_first_is_packed(folder: pathlib.Path, tmp_path: pathlib.Path):
    foreign.pack(folder, labels=str(tmp_path / "labels.txt"), split="eval")
    with pytest.raises(InputError, match="split eval is already there"):
        foreign.pack(folder, labels=str(tmp_path / "labels.txt"), split_by="0.3")
    manifest = json.loads((tmp_path / "records" / "lines-eval.manifest.json").read_text())
    assert manifest["split"] == "eval"
    assert not (tmp_path / "records" / "lines-train.manifest.json").exists()
