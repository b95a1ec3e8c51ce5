import numpy as np
import pytest
import tensorflow as tf

from ocr.doctor import association

DIGITS = np.random.default_rng(7).integers(0, 256, (10, 32, 8), np.uint8)  # a glyph each


def batches(count: int, own: bool, seed: int) -> list[dict[str, tf.Tensor]]:
    """Makes lines of four glyphs, with their own texts or with those of other lines."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 10, (count, 4))
    pixels = np.concatenate([DIGITS[digits[:, place]] for place in range(4)], axis=2)
    texts = ["".join(map(str, row)) for row in (digits if own else rng.permutation(digits))]
    return [{"pixels": tf.constant(pixels), "width": tf.fill([count], 32), "text": tf.constant(texts)}]


@pytest.mark.parametrize("seed", range(3))
def test_texts_of_their_own_images_are_far_from_chance_and_others_are_not(seed: int):
    assert association.z_score(batches(600, own=True, seed=seed)) > 10
    assert abs(association.z_score(batches(600, own=False, seed=seed))) < 4


def test_too_few_lines_give_no_score():
    assert association.z_score(batches(100, own=False, seed=0)) is None


def test_lines_with_equal_texts_give_no_score():
    batch = batches(600, own=True, seed=0)[0]
    assert association.z_score([{**batch, "text": tf.fill([600], "0123")}]) is None
