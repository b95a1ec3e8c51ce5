"""Exports are served from folders of any name."""

import shutil

import pytest
from http_and_grpc import b64, post

from ocr.serving import saved_model
from ocr.serving.client import Client

NAMES = [
    "[a]",
    "a*b?[!c]\\d",
    "[",
    "]",
    "*",
    "?",
    "\\",
    "a\\*b",
    "{a,b}",
    "a b",
    " a ",
    "a\tb",
    "a\nb",
    "a\r",
    "'a'",
    '"a"',
    "`a`",
    "$HOME",
    "~",
    "~root",
    "-a",
    "--export_dir=a",
    "%41%2f%s",
    "#a",
    "a:b",
    "a,b",
    "a;b&c|d<e>",
    "a@b=c",
    ".a",
    "...",
    "7",
    "模型",
    "😀",
    "e\u0301\u202e",
    "x" * 255,
]


@pytest.fixture(scope="module")
def expected(cold_exports, files) -> list[str]:
    return saved_model.load(cold_exports)(files[:1])[0]


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_an_export_is_served_from_a_folder_of_any_name(
    serve_in_thread, cold_exports, files, expected, tmp_path, monkeypatch, name: str
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cold_exports, tmp_path / name)
    with serve_in_thread(name) as server:
        status, response = post(f"{server.rest}/v1/models/ocr:predict", {"instances": [b64(files[0])]})
        assert (status, response["predictions"][0]["text"]) == (200, expected[0])
        with Client(server.grpc) as client:
            assert client(files[:1])[0] == expected
