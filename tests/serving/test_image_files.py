import io
import os
import pathlib
import sys

import pytest

from ocr.images import header
from ocr.serving import image_files


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Returns a folder `lines`, whose files hold their names, and goes to the folder that it is in."""
    names = ["b.png", "a.JPG", "10.gif", "9.bmp", "labels.txt", ".hidden.png", ".git/x.png", "deep/c.tif", "deep/er/d.jpeg"]
    for name in names:
        (tmp_path / "lines" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lines" / name).write_text(name)
    (tmp_path / "secret.png").write_text("secret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "e.png").write_text("stored")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lines"


INSIDE = ["10.gif", "9.bmp", "a.JPG", "b.png", "deep/c.tif", "deep/er/d.jpeg"]


@pytest.mark.parametrize("argument", ["lines", "./lines", "lines/", "../{parent}/lines", "{absolute}"])
def test_a_folder_stands_for_its_image_files_in_order(folder: pathlib.Path, argument: str):
    argument = argument.format(parent=folder.parent.name, absolute=folder)
    images = list(image_files.read(["store/e.png", argument]))
    slash = "" if argument.endswith("/") else "/"
    assert images == [
        ("store/e.png", b"stored", ""),
        *((f"{argument}{slash}{name}", name.encode(), "") for name in INSIDE),
    ]


def test_links_lead_out_of_a_folder_only_if_they_are_followed(folder: pathlib.Path):
    (folder / "f.png").symlink_to(folder / "b.png")
    (folder / "g.png").symlink_to(folder.parent / "secret.png")
    (folder / "more").symlink_to("../store")
    (folder / "again").symlink_to("deep")
    (folder / "up").symlink_to("..")
    (folder / "deep" / "here").symlink_to(".")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    refused = "a link out of lines; --follow_links reads it"
    expected = {f"lines/{name}": (name.encode(), "") for name in INSIDE} | {"lines/f.png": (b"b.png", "")}
    expected |= {"lines/loop.png": (b"", "Too many levels of symbolic links")}
    expected |= {"lines/gone.png": (b"", "No such file or directory")}
    outside = {"lines/g.png": (b"", refused), "lines/more": (b"", refused), "lines/up": (b"", refused)}
    assert {name: rest for name, *rest in image_files.read(["lines"])} == {k: [*v] for k, v in (expected | outside).items()}
    followed = {"lines/g.png": (b"secret", ""), "lines/more/e.png": (b"stored", ""), "lines/up/secret.png": (b"secret", "")}
    images = {name: rest for name, *rest in image_files.read(["lines"], follow_links=True)}
    assert images == {k: [*v] for k, v in (expected | followed).items()}


def test_a_folder_without_images_or_that_cannot_be_listed_is_one_that_cannot_be_read(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    (folder.parent / "empty" / "deep").mkdir(parents=True)
    (folder.parent / "empty" / "labels.txt").touch()
    ((name, content, reason),) = image_files.read(["empty"])
    assert (name, content) == ("empty", b"")
    assert reason.startswith("no image in it (no file that ends in .png, .jpg, ")
    scandir = os.scandir

    def refuse(path: str):
        if path in ("store", "lines/deep/er"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images = list(image_files.read(["store", "lines"]))
    denied = [(name, reason) for name, _, reason in images if reason]
    assert denied == [("store", "Permission denied"), ("lines/deep/er", "Permission denied")]
    assert len(images) == 1 + len(INSIDE)


def test_standard_input_is_an_image(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x89PNG\r\n\xff")))
    assert list(image_files.read(["-", "-"])) == [("-", b"\x89PNG\r\n\xff", ""), ("-", b"", "standard input is empty")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(header.MAX_BYTES + 9))))
    assert [len(content) for _, content, _ in image_files.read(["-"])] == [header.MAX_BYTES + 1]
    monkeypatch.setattr(sys, "stdin", None)
    assert list(image_files.read(["-"])) == [("-", b"", "standard input is empty")]
