import dataclasses

import numpy as np
import pytest

from ocr.synthesis import drawing, fonts
from ocr.synthesis.styles import STYLES

FONT = fonts.open_fonts(())[0]


def lines(style: str, text: str, count: int = 40, width: int = 0, height: int = 32) -> list[drawing.Line]:
    return [drawing.draw(text, FONT, height, width, STYLES[style], np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("width", [0, 280])
def test_there_is_ink_at_the_centre_of_every_character_and_paper_between(style: str, width: int):
    # The text alternates bars and spaces. Ink may be darker or lighter than the paper, as the style has it.
    distinct = []
    for line in lines(style, "I I I I", width=width):
        pixels = np.asarray(line.image).astype(float)
        assert len(line.middles) == 7
        assert line.middles == sorted(line.middles)
        assert min(line.middles) >= 0
        assert max(line.middles) < pixels.shape[1]
        rows = pixels[pixels.shape[0] // 3 : -pixels.shape[0] // 3]
        contrast = np.abs(rows - np.median(rows)).mean(0)
        bars = [contrast[max(x - 1, 0) : x + 2].max() for x in line.middles[::2]]
        gaps = [contrast[x] for x in line.middles[1::2]]
        distinct.append(np.mean(bars) > np.mean(gaps))
    assert np.mean(distinct) > 0.9


def test_clean_lines_are_exactly_as_the_font_renders_them():
    for line in lines("clean", "H"):
        levels = np.asarray(line.image)
        assert (line.kind, line.quality) == ("png", None)
        assert np.median(levels) == levels.max() >= 215  # paper
        assert levels.min() <= 80


def test_an_underline_runs_below_all_letters():
    underlined = dataclasses.replace(STYLES["clean"], underlined=1.0)
    for seed in range(20):
        line = drawing.draw("H H", FONT, 40, 0, underlined, np.random.default_rng(seed))
        ink = np.asarray(line.image) < 128
        assert ink.sum(1).argmax() > np.flatnonzero(ink.any(1)).mean()
        assert ink.sum(1).max() == ink.any(0).sum(), "the underline has a gap between the letters"


def test_hard_lines_are_light_on_dark_as_often_as_their_style_says():
    share = np.mean(
        [np.median(np.asarray(line.image)) < np.asarray(line.image).mean() for line in lines("hard", "Hamburg", 300)]
    )
    assert share == pytest.approx(STYLES["hard"].inverted, abs=0.1)


@pytest.mark.parametrize("style", STYLES)
def test_the_image_file_has_the_height_and_format_of_the_line(style: str):
    for line in lines(style, "Hamburg", 5, height=48):
        assert line.image.height == 48
        assert line.encoded()[:2] == {"png": b"\x89P", "jpeg": b"\xff\xd8"}[line.kind]


def test_glyphs_are_bounding_boxes_of_ink_relative_to_the_pen():
    ink, left, top = FONT.glyph("H", 40)
    assert ink.max() > 200
    assert all(edge.max() > 0 for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
    assert top == -ink.shape[0]  # it stands on the baseline
    assert 0 <= left < left + ink.shape[1] <= 40 * FONT.advance("H") + 1
    assert FONT.glyph(" ", 40).ink.size == 0
