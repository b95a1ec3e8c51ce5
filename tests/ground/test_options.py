import pathlib

import pytest

from ocr import options

NAMES = ["a", "b", "a,b", "a, b,", "a:b", "c:2", "d@train", "e,f@x"]


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    for name in NAMES:
        (tmp_path / name / "records").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ("a", ["a"]),
        ("b,a", ["b", "a"]),
        ("b:2,a:1", ["b:2", "a:1"]),
        ("b@x,a@y", ["b@x", "a@y"]),
        ("b@x:1,a@y:2", ["b@x:1", "a@y:2"]),
        ("a,b", ["a,b"]),
        ("b,a,b", ["b", "a,b"]),
        ("a,b/records,b", ["a,b/records", "b"]),
        ("a,b@eval:3,a:b:1", ["a,b@eval:3", "a:b:1"]),
        ("a, b,,a", ["a, b,", "a"]),
        ("{absolute}/a,b/records@eval,{absolute}/b", ["{absolute}/a,b/records@eval", "{absolute}/b"]),
        ("e,f@x,d@train", ["e,f@x", "d@train"]),
        ("none,a,neither:2", ["none", "a", "neither:2"]),
        (",".join(["x" * 99] * 60), ["x" * 99] * 60),
    ],
)
def test_a_comma_in_an_existing_name_does_not_split_a_list(folder: pathlib.Path, given: str, paths: list[str]):
    pieces = given.format(absolute=folder).split(",")
    assert options.join_paths(pieces) == [path.format(absolute=folder) for path in paths]


@pytest.mark.parametrize(
    ("item", "parts"),
    [
        ("a:3", ("a", 3.0)),
        ("a:b", ("a:b", None)),
        ("a:b:2", ("a:b", 2.0)),
        ("c:2", ("c:2", None)),
        ("c:2@eval", ("c:2@eval", None)),
        ("c:2/records", ("c:2/records", None)),
        ("a:b/none", ("a:b/none", None)),
    ],
)
def test_a_colon_in_a_name_begins_no_weight(folder: pathlib.Path, item: str, parts: tuple):
    assert options.parse_weighted(item) == parts
