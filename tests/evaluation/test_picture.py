import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from ocr.evaluation import picture
from tfrecords.errors import InputError


def test_a_row_for_each_line_with_or_without_an_image():
    drawn = [Image.open(io.BytesIO(picture.draw([(image, "12", "90%")] * 2))) for image in (None, Image.new("RGB", (99, 32)))]
    assert drawn[0].size == drawn[1].size == (840, 2 * 48 + 16)
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_glyphs_that_a_font_lacks_are_listed_once():
    assert picture.missing_glyphs(["a中", "中b"]) == "中"


def test_a_file_that_is_not_a_font_is_refused(tmp_path: pathlib.Path):
    (tmp_path / "font.ttf").write_text("no font")
    with pytest.raises(InputError, match="cannot be read as a font"):
        picture.open_font(str(tmp_path / "font.ttf"))


def test_a_picture_has_a_limited_height():
    rows = [(None, str(number), "") for number in range(3 * picture.MAX_ROWS)]
    drawn = picture.draw(rows)
    assert Image.open(io.BytesIO(drawn)).height == 48 * picture.MAX_ROWS + 16 < 16_384
    assert drawn == picture.draw(rows[: picture.MAX_ROWS])


def test_lines_are_drawn_as_the_network_gets_them(tmp_path: pathlib.Path):
    grey = np.full((32, 80), 255, np.uint8)
    grey[8:24, 10:40:4] = 0
    line = Image.fromarray(grey)
    turned = Image.Exif()
    turned[0x112] = 6
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16 bits.png")
    Image.merge("LA", [Image.new("L", line.size, 0), Image.fromarray(255 - grey)]).save(tmp_path / "dark on clear.png")
    Image.merge("LA", [Image.new("L", line.size, 255), line]).save(tmp_path / "light on clear.png")
    line.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG")
    names = ("16 bits", "dark on clear", "light on clear", "turned", "damaged", "missing")
    *lines, damaged, missing = picture.open_lines([str(tmp_path / f"{name}.png") for name in names])
    for name, drawn in zip(names, lines, strict=False):
        np.testing.assert_array_equal(np.asarray(drawn), grey, name)
    assert (damaged, missing) == (None, None)
