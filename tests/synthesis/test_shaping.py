import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, features

from ocr.charset import Charset
from ocr.synthesis import drawing, fonts, render, shaping, texts
from ocr.synthesis.styles import STYLES

DEJAVU = pathlib.Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
shaped = pytest.mark.skipif(not (features.check("raqm") and DEJAVU.exists()), reason="needs Raqm and DejaVu Sans")
ARABIC, HEBREW = "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("aZ0 ,\u00e9\u4e2d\uff11\u3042\u0416\u03b1\ud55c", ""),
        (ARABIC, "Arabic"),
        ("\u0663", "Arabic"),
        (HEBREW, "Hebrew"),
        ("\u0710", "Syriac"),
        ("\u0780", "Thaana"),
        ("\u0915", "Devanagari"),
        ("\u0995", "Bengali"),
        ("\u0b95", "Tamil"),
        ("\u0e01", "Thai"),
        ("\u1000", "Myanmar"),
        ("\u1780", "Khmer"),
        ("\u0f40", "Tibetan"),
        ("\u0301", "combining marks"),
        ("\u1112", "Hangul in single jamo"),
    ],
)
def test_scripts_that_cannot_be_drawn_letter_by_letter_are_known_by_name(text: str, name: str):
    assert {shaping.script(character) for character in text} == {name}
    assert shaping.is_needed(f"a{text}") == bool(name)


@shaped
def test_hebrew_runs_from_right_to_left():
    font = fonts.Font(str(DEJAVU))
    columns = font.shaped("\u05e9\u05d5", 40).any(0)  # shin, which is wide, and vav, which is narrow
    gap = np.flatnonzero(~columns)
    assert gap[0] == pytest.approx(font.glyph("\u05d5", 40).ink.shape[1], abs=1)
    assert len(columns) - 1 - gap[-1] == pytest.approx(font.glyph("\u05e9", 40).ink.shape[1], abs=1)


@shaped
def test_arabic_letters_join():
    beh = "\u0628" * 4
    for seed in range(5):
        line = drawing.draw(beh, fonts.Font(str(DEJAVU)), 32, 0, STYLES["clean"], np.random.default_rng(seed))
        levels = np.asarray(line.image).astype(int)
        columns = np.flatnonzero((np.abs(levels - levels[0, 0]) > 40).any(0))
        assert columns[-1] - columns[0] + 1 == len(columns), "there is a gap between the letters"
        assert line.middles == []


@shaped
@pytest.mark.parametrize("degrade", STYLES)
def test_arabic_lines_are_rendered_to_files_and_records(tmp_path: pathlib.Path, degrade: str):
    (tmp_path / "charset.txt").write_text("".join(f"{c}\n" for c in dict.fromkeys(ARABIC + " ab1")), "utf-8")
    (tmp_path / "corpus.txt").write_text(f"{ARABIC} ab1 {ARABIC}\n", "utf-8")
    given = {"charset": str(tmp_path / "charset.txt"), "corpus": (str(tmp_path / "corpus.txt"),), "fonts": (str(DEJAVU),)}
    for name, tfrecords in (("lines", False), ("records", True)):
        config = render.RenderConfig(
            str(tmp_path / name), 10, **given, latin=1.0, degrade=degrade, tfrecords=tfrecords, workers=1
        )
        assert render.render(config)["lines"] == 10
    for path in (tmp_path / "lines").glob("*.[pj]*g"):
        assert np.ptp(np.asarray(Image.open(path)).astype(int)) > 20


def test_no_text_begins_with_a_mark(tmp_path: pathlib.Path):
    if not DEJAVU.exists():
        pytest.skip("needs DejaVu Sans")
    (tmp_path / "corpus.txt").write_text("\u0301e\u0301e\u0301e\u0301e\u0301\n", "utf-8")
    for given in ({}, {"corpus": [str(tmp_path / "corpus.txt")]}):
        source = texts.Texts(Charset("e\u0301 "), [fonts.Font(str(DEJAVU))], **given, min_chars=1, max_chars=4)
        drawn = [source.draw(np.random.default_rng(seed))[0] for seed in range(50)]
        assert all(text[0] == "e" and " \u0301" not in text for text in drawn)
        assert any("\u0301" in text for text in drawn)


@pytest.mark.parametrize(
    ("text", "name"), [(ARABIC, "Arabic"), (f"ab {HEBREW}", "Hebrew"), ("\u0915\u093f", "Devanagari"), ("e\u0301", "combining")]
)
def test_without_raqm_scripts_that_need_it_are_refused_by_name(tmp_path: pathlib.Path, text: str, name: str):
    (tmp_path / "libfribidi.so.0").write_text("this is no library")  # without FriBiDi, Pillow has no Raqm
    (tmp_path / "corpus.txt").write_text(f"{text}\n", "utf-8")
    (tmp_path / "charset.txt").write_text("".join(f"{c}\n" for c in dict.fromkeys(text)), "utf-8")
    flags = ("--output=lines", "--count=3", "--charset=charset.txt", "--corpus=corpus.txt", "--min_chars=1")
    done = subprocess.run(
        [sys.executable, "-m", "tools.render_lines", *flags],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --corpus=corpus.txt: {name}")
    assert "install FriBiDi" in done.stderr
    assert not (tmp_path / "lines").exists()
