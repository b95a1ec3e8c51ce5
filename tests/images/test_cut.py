import io
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ocr.images import cut

Points = list[tuple[float, float]]
BOX = [(100.0, 80.0), (260.0, 80.0), (260.0, 112.0), (100.0, 112.0)]


def a_page() -> Image.Image:
    """Returns a page of 400x200 with a line in BOX and one right above it."""
    page = Image.new("L", (400, 200), 200)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(24)
    draw.text((104, 82), "Kabcdefgxyz", 30, font)
    draw.text((104, 44), "another line", 30, font)
    return page


def pixels(encoded: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(encoded))
    assert image.mode == "L"
    return np.asarray(image).astype(int)


def turned(points: Points, degrees: float, centre: tuple[float, float] = (200.0, 100.0)) -> Points:
    """Turns points counterclockwise, as Pillow's `rotate` turns images."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    moved = [(x - centre[0], y - centre[1]) for x, y in points]
    return [(centre[0] + x * c + y * s, centre[1] - x * s + y * c) for x, y in moved]


def test_a_box_is_cut_with_its_margin_and_not_a_pixel_is_changed():
    margin = 2  # a sixteenth of 32
    expected = np.asarray(a_page().crop((100 - margin, 80 - margin, 260 + margin, 112 + margin)))
    np.testing.assert_array_equal(pixels(cut.cut(a_page(), BOX, [])), expected)
    level = [(100.0, 106.0), (180.0, 106.4), (260.0, 106.0)]
    np.testing.assert_array_equal(pixels(cut.cut(a_page(), BOX, level)), expected)


def test_what_is_outside_the_polygon_is_painted_with_the_paper_around_the_line():
    page = np.asarray(a_page()).copy()
    page[70:90, 100:140] = 0  # ink of the line above, which reaches into the box but not into the polygon
    polygon = [(100.0, 94.0), (144.0, 94.0), (150.0, 80.0), (260.0, 80.0), (260.0, 112.0), (100.0, 112.0)]
    line = pixels(cut.cut(Image.fromarray(page), polygon, []))
    assert line.shape == (36, 164)
    assert (line[:10, :40] == 200).all()
    np.testing.assert_array_equal(line[4:, 60:], page[82:114, 158:262])


@pytest.mark.parametrize("degrees", [5, -12, 40, 90, -90])
def test_a_line_is_turned_so_that_its_baseline_is_level(degrees: float):
    page = a_page().rotate(degrees, Image.Resampling.BICUBIC, fillcolor=200)
    upright = pixels(cut.cut(a_page(), BOX, []))
    baseline = turned([(100.0, 106.0), (180.0, 106.0), (260.0, 106.0)], degrees)
    line = pixels(cut.cut(page, turned(BOX, degrees), baseline))
    height, width = (min(pair) for pair in zip(line.shape, upright.shape, strict=True))
    assert np.abs(np.subtract(line.shape, upright.shape)).max() <= 1
    difference = np.abs(line[2 : height - 2, 2 : width - 2] - upright[2 : height - 2, 2 : width - 2])
    assert difference.mean() < 8
    assert np.abs(line - np.roll(line, 2, 1)).mean() > 16  # what two pixels would make
    back = pixels(cut.cut(page, turned(BOX, degrees), baseline[::-1]))
    if abs(degrees) == 90:  # it may be either way up
        back = back[::-1, ::-1]
    assert np.abs(back - line).mean() < 4


def test_a_line_at_the_edge_has_paper_beyond_it():
    page = Image.new("L", (200, 60), 150)
    line = pixels(cut.cut(page, [(-20.0, -10.0), (180.0, -10.0), (180.0, 22.0), (-20.0, 22.0)], []))
    assert line.shape == (36, 204)
    assert (line == 150).all()


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([(0.0, 0.0), (50.0, 50.0), (100.0, 100.0)], "enclose nothing"),
        ([(0.0, 0.0), (100.0, 0.0), (100.0, 0.4)], "enclose nothing"),
        ([(390.0, 10.0), (600.0, 10.0), (600.0, 40.0)], "off its page"),
        ([(-1e7, -1e7), (1e7, -1e7), (0.0, 1e7)], "off its page"),
        ([(0.0, 0.0), (1.2, 0.0), (1.2, 1.0), (0.0, 1.0)], "a line of"),
    ],
)
def test_a_polygon_of_no_line_is_refused(polygon: Points, message: str):
    with pytest.raises(cut.CutError, match=message):
        cut.cut(a_page(), polygon, [])


def test_points_are_scaled_from_the_unit_of_the_page():
    assert cut.scale([(10.0, 30.0)], (2000.0, 1000.0), (400, 200)) == [(2.0, 6.0)]
    assert cut.scale([(10.0, 30.0)], (math.nan, math.nan), (400, 200)) == [(10.0, 30.0)]
    for described in ((2000.0, 1100.0), (0.0, 0.0), (math.inf, 5.0), (-400.0, -200.0)):
        with pytest.raises(cut.CutError):
            cut.scale([(10.0, 30.0)], described, (400, 200))
