import itertools

import numpy as np
import pytest
import tensorflow as tf

from ocr.data import sampling


def window_blocks(lines: list[int], begin: int, length: int, seed: int = 0) -> list[tuple[int, int]]:
    """Returns the lines of a window as (block, number in the block)."""
    blocks, before = sampling.window_blocks(np.array(lines, np.int64), tf.constant(begin, tf.int64), length, seed)
    rows = [(int(block), number) for block in blocks for number in range(lines[int(block)])]
    return rows[int(before) : int(before) + length]


@pytest.mark.parametrize("lines", [[3, 3, 3, 1], [5], [0, 2, 0, 7, 1]])
def test_consecutive_windows_are_epochs_of_every_line_once(lines: list[int]):
    epoch = sum(lines)
    joined = [row for begin in range(0, 3 * epoch, 4) for row in window_blocks(lines, begin, 4)]
    everything = sorted((block, number) for block, count in enumerate(lines) for number in range(count))
    for start in range(0, 3 * epoch, epoch):
        assert sorted(joined[start : start + epoch]) == everything


def test_each_epoch_and_seed_has_its_own_order():
    lines = [1] * 50
    first, second = window_blocks(lines, 0, 50), window_blocks(lines, 50, 50)
    assert first != second
    assert first != window_blocks(lines, 0, 50, seed=1)
    assert first != sorted(first)
    assert window_blocks(lines, 0, 100) == first + second


def test_a_window_may_be_longer_than_an_epoch():
    assert sorted(window_blocks([2, 1], 1, 11)) == sorted([*window_blocks([2, 1], 1, 5), *window_blocks([2, 1], 6, 6)])


def test_a_late_window_needs_no_more_blocks_than_an_early_one():
    lines = [128] * 8_000  # a million
    early, late = (
        sampling.window_blocks(np.array(lines), tf.constant(begin, tf.int64), 5_000, 0)[0] for begin in (0, 640_000_000)
    )
    assert abs(len(early) - len(late)) <= 1


def test_batches_split_a_window_by_width():
    widths = tf.constant(np.random.default_rng(0).integers(40, 900, 640), tf.int64)
    rows = sampling.batches(widths, 32, tf.constant([0, 3], tf.int64)).numpy()
    assert sorted(rows.ravel()) == list(range(640))
    spans = sorted((widths.numpy()[row].min(), widths.numpy()[row].max()) for row in rows)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    assert [span[0] for span in spans] != [widths.numpy()[row].min() for row in rows]  # not sorted by width


@pytest.mark.parametrize(
    ("weights", "length", "shares"),
    [([3, 1], 64, [48, 16]), ([1, 1, 1], 64, [22, 21, 21]), ([1e6, 1e-6], 10, [9, 1]), ([5], 7, [7])],
)
def test_a_window_is_allocated_by_weight(weights: list[float], length: int, shares: list[int]):
    assert sampling.allocate(np.array(weights, np.float64), length).tolist() == shares
