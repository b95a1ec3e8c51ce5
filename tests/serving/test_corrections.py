import base64
import json
import pathlib
import random
import struct
import urllib.error
import urllib.request

import grpc
import pytest

from ocr.data import convert
from ocr.data.convert_config import ConvertConfig
from ocr.serving import corrections as module
from ocr.serving.corrections import Corrections
from ocr.serving.service import RequestError
from tfrecords import files


def test_a_corrected_line_becomes_a_record_and_the_last_correction_counts(trained, tmp_path: pathlib.Path):
    first, second = (path.read_bytes() for path in sorted((trained.lines / "eval").glob("*.png"))[:2])
    folder = tmp_path / "corrections"
    for image, text in ((first, "12"), (second, "3 4"), (first, "56")):
        Corrections(folder).save(image, text)
    assert len(list(folder.iterdir())) == 4
    records = tmp_path / "records"
    convert.convert(ConvertConfig(images=str(folder), charset="ascii", output=str(records)))
    characters = files.read_json(records / "lines-train.manifest.json")["characters"]
    assert set(characters) == set("563 4")


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\u2028b", "a" * 1001, "\ud800", "a\tb", "a\0", "\x1b[0m"])
def test_a_text_that_is_not_one_line_is_not_kept(trained, tmp_path: pathlib.Path, text: str):
    image = next((trained.lines / "eval").glob("*.png")).read_bytes()
    with pytest.raises(RequestError, match="text: "):
        Corrections(tmp_path).save(image, text)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_moved_away_is_made_again_and_one_that_cannot_be_written_is_no_fault_of_the_client(
    trained, tmp_path: pathlib.Path, caplog
):
    image = next((trained.lines / "eval").glob("*.png")).read_bytes()
    folder = tmp_path / "corrections"
    corrections = Corrections(folder)
    folder.rename(tmp_path / "taken")
    corrections.save(image, "1")
    assert len(list(folder.iterdir())) == 2
    folder.rename(tmp_path / "taken_too")
    folder.touch()
    with pytest.raises(RequestError, match=r"^the server cannot keep corrections now$") as refused:
        corrections.save(image, "1")
    assert refused.value.code == grpc.StatusCode.UNAVAILABLE
    assert str(folder) in caplog.text


def png(seed: int, size: int) -> bytes:
    """Returns what the server takes for a PNG file of 100 x 30 pixels, of a size in bytes."""
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 100, 30, 8, 0, 0, 0, 0)
    return head + random.Random(seed).randbytes(size - len(head))


def test_a_full_folder_is_refused_until_files_are_taken_away(tmp_path: pathlib.Path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_MAX_BYTES", 9_000)
    one, other = Corrections(tmp_path), Corrections(tmp_path)
    first = one.save(png(1, 5_000), "1")
    with pytest.raises(RequestError, match=r"^the server's folder of corrections is full$") as refused:
        other.save(png(2, 5_000), "2")
    assert refused.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"--corrections_dir={tmp_path}: full" in caplog.text
    one.save(png(1, 5_000), "3")  # another text for what is there needs no room
    assert {path.name for path in tmp_path.iterdir()} == {first, first.replace(".png", ".gt.txt")}
    assert (tmp_path / first).with_suffix(".gt.txt").read_text() == "3\n"
    other.save(png(3, 3_000), "4")
    with pytest.raises(RequestError, match="is full"):
        one.save(png(4, 3_000), "5")  # what the other server has kept counts too
    (tmp_path / first).unlink()
    one.save(png(4, 3_000), "5")


def test_small_files_are_limited_in_number(tmp_path: pathlib.Path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_LINES", 10)
    corrections = Corrections(tmp_path)
    for seed in range(10):
        corrections.save(png(seed, 64), "1")
    with pytest.raises(RequestError, match="is full"):
        corrections.save(png(10, 64), "1")
    assert len(list(tmp_path.iterdir())) == 20


def test_a_link_that_leads_nowhere_does_no_harm(tmp_path: pathlib.Path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    Corrections(tmp_path).save(png(1, 64), "1")
    assert len(list(tmp_path.iterdir())) == 3


def test_only_new_files_are_asked_for_their_size(tmp_path: pathlib.Path, monkeypatch):
    for number in range(20):
        (tmp_path / str(number)).write_bytes(b"1")
    asked, lstat = [], module.os.lstat
    monkeypatch.setattr(module.os, "lstat", lambda path: asked.append(pathlib.Path(path)) or lstat(path))
    corrections = Corrections(tmp_path)
    corrections.save(png(1, 64), "1")
    first = len([path for path in asked if path.parent == tmp_path])
    corrections.save(png(2, 64), "2")
    assert (first, len([path for path in asked if path.parent == tmp_path]) - first) == (20, 2)


WIDE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 30_000, 3_000, 8, 0, 0, 0, 0) + bytes(4)


@pytest.mark.parametrize("image", [b"", b"junk", b"GIF89a", b"\x89PNG\r\n\x1a\n", WIDE])
def test_what_is_not_a_png_or_jpeg_file_is_not_kept(tmp_path: pathlib.Path, image: bytes):
    with pytest.raises(RequestError, match="image_bytes: "):
        Corrections(tmp_path).save(image, "1")


def test_the_server_keeps_corrections_where_it_was_told_to(
    trained, small_exports, serve_in_thread, tmp_path: pathlib.Path, monkeypatch
):
    image = next((trained.lines / "eval").glob("*.png")).read_bytes()
    folder = tmp_path / "corrections"

    def post(body: object, content_type: str = "application/json") -> tuple[int, dict]:
        request = urllib.request.Request(
            f"{address.rest}/v1/corrections", json.dumps(body).encode(), {"Content-Type": content_type}
        )
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    good = {"image_bytes": {"b64": base64.b64encode(image).decode()}, "text": "0815"}
    second = {"image_bytes": {"b64": base64.b64encode(png(1, 100)).decode()}, "text": "1"}
    with serve_in_thread(small_exports, corrections_dir=str(folder)) as address:
        status, answer = post(good)
        assert status == 200
        assert (folder / answer["file"]).read_bytes() == image
        assert (folder / answer["file"]).with_suffix(".gt.txt").read_text() == "0815\n"
        # A page of another site can send plain text without being allowed to.
        assert post(good, "text/plain") == (400, {"error": "Content-Type: text/plain: must be application/json"})
        for bad in ([], {"text": "1"}, {**good, "text": 1}, {**good, "image_bytes": 1}, {**good, "more": 1}):
            assert post(bad)[0] == 400
        monkeypatch.setattr(module, "_MAX_LINES", 1)
        assert post(second) == (429, {"error": "the server's folder of corrections is full"})
    assert len(list(folder.iterdir())) == 2
