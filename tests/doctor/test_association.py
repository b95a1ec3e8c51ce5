import numpy as np
import pytest
import tensorflow as tf

from ocr.doctor import association

DIGITS = np.random.default_rng(7).integers(0, 256, (10, 32, 8), np.uint8)  # a glyph each


def lines(count: int, own: bool, seed: int) -> list[dict[str, tf.Tensor]]:
    """Makes lines of four glyphs with their own texts, or with another line's."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 10, (count, 4))
    pixels = np.concatenate([DIGITS[digits[:, place]] for place in range(4)], axis=2)
    texts = ["".join(map(str, row)) for row in (digits if own else rng.permutation(digits))]
    return [{"pixels": tf.constant(pixels), "width": tf.fill([count], 32), "text": tf.constant(texts)}]


@pytest.mark.parametrize("seed", range(3))
def test_texts_that_belong_to_their_images_stand_far_from_chance(seed: int):
    assert association.association(lines(600, own=True, seed=seed)) > 10
    assert abs(association.association(lines(600, own=False, seed=seed))) < 4


def test_of_too_little_nothing_is_told():
    assert association.association(lines(100, own=False, seed=0)) is None


def test_where_no_line_has_more_of_anything_nothing_is_told():
    batch = lines(600, own=True, seed=0)[0]
    assert association.association([{**batch, "text": tf.fill([600], "0123")}]) is None
