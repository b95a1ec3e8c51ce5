import dataclasses

import numpy as np
import pytest

from ocr.synthesis import camera, drawing, fonts, styles
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


WORLDS = [name for name, style in STYLES.items() if style.world]


def calm(name: str, **fields) -> styles.Style:
    """A style with a world in which nothing happens but what the fields say."""
    off = {field.name: 0.0 for field in dataclasses.fields(styles.World)}
    pairs = {
        "margins": (0.1, 0.1, 0.2),
        "contrast": (200, 220, 255),
        "resolution": (200, 200),
        "defocus": (0, 0),
        "noise": (0, 0),
    }
    world = styles.World(**{**off, **pairs, **fields})
    return dataclasses.replace(STYLES[name], weight=0.0, underlined=0.0, inverted=0.0, world=world)


def centre_of_ink(line: drawing.Line) -> float:
    levels = np.asarray(line.image).astype(float)
    ink = np.abs(levels - np.median(levels))
    ink = np.where(ink > ink.max() / 2, ink, 0.0).sum(0)
    return float(ink @ np.arange(ink.size) / ink.sum())


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(("depth", "most"), [(0.0, 1.5), (0.1, 4.5)])  # with perspective, an end has more ink than the other
def test_the_middle_of_a_letter_is_the_centre_of_its_ink_under_all_geometry(name: str, depth: float, most: float):
    style = dataclasses.replace(calm(name, bow=0.1, italic=1.0), depth=depth)
    drawn = [drawing.draw("H", FONT, 48, 0, style, np.random.default_rng(seed)) for seed in range(60)]
    errors = [centre_of_ink(line) - line.middles[0] for line in drawn]
    assert abs(np.median(errors)) < 0.5
    assert np.abs(errors).max() < most


@pytest.mark.parametrize("effect", ["resolution", "defocus", "shaken", "compressed", "sharpened", "dotted", "bow"])
def test_effects_change_the_picture_and_leave_letters_where_they_are(effect: str):
    given = {"resolution": (14, 15), "defocus": (0.04, 0.05)}.get(effect, 1.0 if effect != "bow" else 0.2)
    changed = 0
    for seed in range(20):
        plain, other = (
            drawing.draw("I I I", FONT, 48, 0, style, np.random.default_rng(seed))
            for style in (calm("page"), calm("page", **{effect: given}))
        )
        assert other.middles[0] == pytest.approx(plain.middles[0], abs=3)
        changed += plain.image.size != other.image.size or plain.image.tobytes() != other.image.tobytes()
        rows = np.asarray(other.image).astype(float)[16:-16]
        contrast = np.abs(rows - np.median(rows)).mean(0)
        assert contrast[other.middles[2]] > contrast[other.middles[1]]
    assert changed > 15


def test_jpeg_files_lose_more_of_colours_of_one_brightness_than_of_greys():
    line = drawing.draw("HIHI", FONT, 48, 0, calm("page"), np.random.default_rng(0)).image
    levels = np.asarray(line).astype(float)

    def lost(axis: list[float] | None, quality: int) -> float:
        array = None if axis is None else np.array(axis)
        compressed = camera._compressed(line, array, quality, np.random.default_rng(0))
        return float(np.abs(np.asarray(compressed) - levels).mean())

    grey, red_on_green = [1 / 3, 1 / 3, 1 / 3], [0.5, -0.255, 0.245]  # the latter without luma
    for quality in (90, 50):
        assert lost(grey, quality) == pytest.approx(lost(None, quality), abs=0.5)
        assert lost(red_on_green, quality) > 2 * lost(grey, quality)


def test_margins_are_independent_and_cut_the_ink_where_they_are_negative():
    def edges(low: float, high: float) -> np.ndarray:
        style = dataclasses.replace(calm("page", margins=(low, low, high)), slope=0.0, size=(1.5, 1.5))
        drawn = [drawing.draw("HHHH", FONT, 40, 0, style, np.random.default_rng(seed)) for seed in range(60)]
        inks = [np.asarray(line.image) < 100 for line in drawn]
        rows = [np.flatnonzero(ink.any(1)) for ink in inks]
        return np.array([[found[0], ink.shape[0] - 1 - found[-1]] for found, ink in zip(rows, inks, strict=True)]) / 40

    wide = edges(0.0, 0.4)
    assert wide.min() < 0.05
    assert wide.max() > 0.3
    assert abs(np.corrcoef(wide.T)[0, 1]) < 0.4
    assert edges(-0.2, -0.1).max() == 0.0


@pytest.mark.parametrize("kernel", [camera._disc(1.7), camera._disc(0.5), camera._streak(3.0, 0.4), camera._streak(9.0, 2.0)])
def test_kernels_are_symmetric(kernel: np.ndarray):
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-9)
    assert kernel.sum() > 0


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("height", [8, 16, 64])
def test_margins_leave_room_for_letters_at_any_height(name: str, height: int):
    for line in lines(name, "(Hg)", 200, height=height):
        assert line.image.height == height
