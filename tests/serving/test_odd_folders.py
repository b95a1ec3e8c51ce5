"""Exports are served from folders of any name."""

import shutil

import pytest
from http_and_grpc import b64, post

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


@pytest.mark.parametrize("name", NAMES)
def test_an_export_is_served_from_a_folder_of_any_name(serve_in_thread, small_exports, tmp_path, monkeypatch, name: str):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_exports, tmp_path / name)
    with serve_in_thread(name) as server:
        status, response = post(f"{server.rest}/v1/models/ocr:predict", {"instances": [b64(b"an image")]})
        assert (status, response["predictions"][0]["text"]) == (200, "from a variable")
        with Client(server.grpc) as client:
            assert client([b"an image"])[0] == ["from a variable"]
