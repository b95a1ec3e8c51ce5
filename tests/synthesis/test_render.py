import itertools
import pathlib
import string

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFont

from ocr.data import verify
from ocr.synthesis import fonts, render
from ocr.synthesis.render import RenderConfig
from ocr.synthesis.styles import STYLES
from tfrecords import schema
from tfrecords.errors import InputError


def draw(folder: pathlib.Path, name: str = "lines", **fields) -> dict[str, str]:
    """Renders lines; returns their texts by file name."""
    render.render(RenderConfig(**{"output": str(folder / name), "count": 20, "workers": 1, **fields}))
    rows = (folder / name / "labels.txt").read_text("utf-8").splitlines()
    return dict(row.split("\t") for row in rows)


def pixels_of(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_images_have_the_requested_size_and_texts_the_requested_length(tmp_path: pathlib.Path):
    texts = draw(tmp_path, min_chars=3, max_chars=6, charset="digits", width=200, height=40)
    assert len(texts) == 20
    assert {3, 4, 5, 6} >= {len(text) for text in texts.values()} > {4}
    assert set("".join(texts.values())) <= set("0123456789")
    for name in texts:
        with Image.open(tmp_path / "lines" / name) as image:
            assert (image.size, image.mode) == ((200, 40), "L")
            assert np.ptp(np.asarray(image)) > 100  # ink on paper


def test_at_natural_width_longer_texts_are_wider(tmp_path: pathlib.Path):
    texts = draw(tmp_path, min_chars=1, max_chars=30, width=0)
    lengths = [len(text) for text in texts.values()]
    widths = [pixels_of(tmp_path / "lines" / name).shape[1] for name in texts]
    assert np.corrcoef(lengths, widths)[0, 1] > 0.9


@pytest.mark.parametrize("degrade", STYLES)
def test_the_same_seed_gives_the_same_files_for_any_number_of_workers(tmp_path: pathlib.Path, degrade: str):
    draw(tmp_path, "one", count=150, degrade=degrade)
    draw(tmp_path, "two", count=150, degrade=degrade, workers=2)
    draw(tmp_path, "other", count=150, degrade=degrade, seed=1)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert not set(files(tmp_path / "one").values()) & set(files(tmp_path / "other").values())


def test_no_text_has_a_space_at_an_end_or_two_in_a_row(tmp_path: pathlib.Path):
    (tmp_path / "charset.txt").write_text("a\nb\n \n\u3000\n", "utf-8")
    texts = draw(tmp_path, charset=str(tmp_path / "charset.txt"), min_chars=1, max_chars=8, count=200).values()
    assert any(" " in text for text in texts)
    for text in texts:
        assert text == text.strip()
        assert not any(a.isspace() and b.isspace() for a, b in itertools.pairwise(text))


def test_texts_are_sampled_from_the_corpus(tmp_path: pathlib.Path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the quick  brown fox\n\n,,\njumps over, the lazy dog\n", "utf-8")
    (tmp_path / "charset.txt").write_text("\n".join(string.ascii_lowercase + " "), "utf-8")
    texts = draw(tmp_path, charset=str(tmp_path / "charset.txt"), corpus=(str(corpus),), min_chars=4, count=100).values()
    clean = "the quick brown fox|jumps over|the lazy dog"
    assert all(text in clean and 4 <= len(text) <= 10 for text in texts)
    assert len(set(texts)) > 20


def test_a_font_is_used_only_for_characters_that_it_has(tmp_path: pathlib.Path):
    font = fonts.open_fonts(())[0]
    assert all(map(font.has, "aZ09., "))
    assert not any(map(font.has, "中あ\U0010ffff\u0378"))
    (tmp_path / "charset.txt").write_text("a\n中\nb\n", "utf-8")
    texts = draw(tmp_path, charset=str(tmp_path / "charset.txt"))
    assert set("".join(texts.values())) == {"a", "b"}


def test_fonts_are_opened_by_glob_patterns(tmp_path: pathlib.Path):
    built_in = ImageFont.load_default(20)
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "one.ttf").write_bytes(built_in.font_bytes)
    assert [pathlib.Path(font.path).name for font in fonts.open_fonts((f"{tmp_path}/fonts/*.ttf",))] == ["one.ttf"]
    assert draw(tmp_path, fonts=(f"{tmp_path}/**/*.ttf",)).values()


@pytest.mark.parametrize("name", ["[a]*.ttf", "a#1", "a:b", "a\\1.ttf"])
def test_a_font_that_is_there_is_opened_whatever_its_name(tmp_path: pathlib.Path, name: str):
    (tmp_path / name).write_bytes(ImageFont.load_default(20).font_bytes)
    (tmp_path / "a").touch()
    for pattern, weight in ((f"{tmp_path}/{name}", 1.0), (f"{tmp_path}/{name}:2", 2.0), (f"{tmp_path}/{name}#0", 1.0)):
        ((font,), expected) = fonts.open_fonts((pattern,)), f"{tmp_path}/{name}"
        assert (font.path, font.weight) == (expected, weight)


def test_a_text_too_long_for_the_width_is_scaled_down_and_not_cut(tmp_path: pathlib.Path):
    texts = draw(tmp_path, min_chars=30, max_chars=30, width=200)
    for name in texts:
        pixels = pixels_of(tmp_path / "lines" / name)
        paper = pixels[0, 0]
        assert np.abs(pixels[:, [0, -1]] - paper).max() < 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fonts": ("/nowhere/*.ttf",)}, r"--fonts=/nowhere/\*\.ttf: matches no file"),
        ({"fonts": ("{here}/junk.ttf",)}, "junk.ttf: cannot be read as a font"),
        ({"corpus": ("/nowhere",)}, "--corpus=/nowhere: No such file"),
        ({"corpus": ("{here}/empty.txt",)}, "no run of 5 characters"),
        ({"corpus": ("{here}/latin1.txt",)}, "latin1.txt: not UTF-8 at byte 3"),
        (
            {"corpus": ("{here}/chinese.txt",), "charset": "gb2312"},
            "no font has every character of '[中文]{5,10}', nor of 199 other",
        ),
        ({"charset": "klingon"}, "--charset=klingon"),
        ({"charset": "{here}/chinese_charset.txt"}, "none of the fonts has a character"),
        ({"degrade": "awful"}, "--degrade=awful: must be one of clean, screen, scan, hard, page, photo, sign"),
        ({"count": 0}, "--count: has to be given"),
        ({"count": -1}, "--count=-1: must be 1 to"),
        ({"whole_lines": True, "count": 3}, "--whole_lines: needs --corpus, and excludes --count"),
        ({"min_chars": 9, "max_chars": 3}, "--max_chars=3: must be 9 to 1000"),
        ({"output": "{here}"}, "already there"),
        ({"width": 20, "min_chars": 30, "max_chars": 30}, "--width=20 --height=32: no room for"),
        ({"output": "{here}/junk.ttf/lines"}, "not a folder"),
    ],
)
def test_an_invalid_input_is_named_and_nothing_is_left_behind(tmp_path: pathlib.Path, fields: dict, message: str):
    (tmp_path / "junk.ttf").write_bytes(b"junk")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin1.txt").write_bytes("Grüße".encode("latin-1").replace(b"Gr", b"Gra"))
    (tmp_path / "chinese.txt").write_text("中文" * 20, "utf-8")
    (tmp_path / "chinese_charset.txt").write_text("中\n文\n", "utf-8")
    before = sorted(tmp_path.rglob("*"))

    def here(value):
        if isinstance(value, tuple):
            return tuple(map(here, value))
        return value.replace("{here}", str(tmp_path)) if isinstance(value, str) else value

    with pytest.raises(InputError, match=message):
        draw(tmp_path, **{name: here(value) for name, value in fields.items()})
    assert sorted(tmp_path.rglob("*")) == before


def records_in(folder: pathlib.Path) -> list[dict]:
    """Returns the records of a folder as NumPy values, in order."""
    shards = sorted(str(path) for path in folder.glob("*.tfrecord-*"))
    parsed = [
        schema.parse(tf.constant([record]), middles=True) for record in tf.data.TFRecordDataset(shards).as_numpy_iterator()
    ]
    return [{key: value[0].numpy() for key, value in record.items()} for record in parsed]


def test_records_have_the_content_of_the_files_and_the_position_of_each_character(tmp_path: pathlib.Path):
    texts = draw(tmp_path, "files", count=30, degrade="scan", width=0)
    render.render(
        RenderConfig(output=str(tmp_path / "records"), count=30, degrade="scan", width=0, tfrecords=True, split="eval")
    )
    rows = records_in(tmp_path / "records")
    assert {row["filename"].decode(): row["text"].decode() for row in rows} == texts
    for row in rows:
        assert row["encoded"] == (tmp_path / "files" / row["filename"].decode()).read_bytes()
        assert len(row["middles"]) == len(row["text"])
        assert row["font"] == b"Aileron Regular"  # Pillow's built-in font
        assert 0 <= row["middles"].min() <= row["middles"].max() < row["width"]
    assert verify.verify(tmp_path / "records")["records"] == 30


def test_labels_that_do_not_fit_into_the_frames_are_refused_for_records(tmp_path: pathlib.Path):
    fields = {"count": 1, "width": 75, "min_chars": 20, "max_chars": 20, "tfrecords": True}
    with pytest.raises(InputError, match="--width=75: too narrow for lines like"):
        draw(tmp_path, **fields)


def test_whole_lines_are_drawn_once_each_in_order(tmp_path: pathlib.Path):
    (tmp_path / "corpus.txt").write_text("first\nsecond\nthird line\n", "utf-8")
    fields = {"count": 0, "whole_lines": True, "corpus": (str(tmp_path / "corpus.txt"),), "charset": "ascii", "min_chars": 1}
    assert list(draw(tmp_path, **fields).values()) == ["first", "second", "third line"]


def test_the_contact_sheet_shows_the_lines(tmp_path: pathlib.Path):
    draw(tmp_path, contact_sheet=str(tmp_path / "sheet.png"))
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "lines" / "000000.png") as line:
        assert sheet.size[0] > 2 * line.width
        np.testing.assert_array_equal(np.asarray(sheet.convert("L"))[6:38, 6 : 6 + line.width], np.asarray(line))
