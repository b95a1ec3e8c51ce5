import io
import pathlib

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


def test_a_file_that_is_not_an_image_gives_none(tmp_path: pathlib.Path):
    (tmp_path / "line.png").write_bytes(b"\x89PNG")
    assert picture.open_image(str(tmp_path / "line.png")) is None
