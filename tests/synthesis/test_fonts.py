import numpy as np
import pytest
from PIL import Image

from ocr.synthesis.fonts import ColumnFont, Glyph

SIZE = 50
SQUARE = (0, round(0.88 * SIZE))  # the left end of a hanzi's square, and its top above the baseline


class Stub:
    """A font whose only glyph has no symmetry: a corner, nearer to the upper left of its square."""

    name = "stub"

    def glyph(self, _: str, size: int) -> Glyph:
        ink = np.zeros((30, 20), np.uint8)
        ink[:6] = ink[:, :3] = 255
        return Glyph(ink, 4, -40)

    def advance(self, _: str) -> float:
        return 1.0


def drawn(font: Stub | ColumnFont, character: str) -> np.ndarray:
    ink, left, top = font.glyph(character, SIZE)
    square = Image.new("L", (SIZE, SIZE))
    square.paste(Image.fromarray(ink), (left - SQUARE[0], top + SQUARE[1]))
    return np.asarray(square)


@pytest.mark.parametrize("character", "永あ５〇")
def test_hanzi_of_a_column_are_turned_counterclockwise_in_their_squares(character: str):
    upright = drawn(Stub(), character)
    np.testing.assert_array_equal(drawn(ColumnFont(Stub()), character), np.rot90(upright))
    assert upright.sum() == 255 * (6 * 20 + 24 * 3)


@pytest.mark.parametrize("character", "A7—（」。")
def test_what_lies_on_its_side_in_a_column_is_upright(character: str):
    np.testing.assert_array_equal(drawn(ColumnFont(Stub()), character), drawn(Stub(), character))
