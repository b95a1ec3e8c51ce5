import functools
import itertools

import numpy as np
import tensorflow as tf

from ocr.model import edits


@functools.cache
def fewest(read: str, given: str) -> tuple[int, frozenset[tuple[int, ...]]]:
    """Returns the edit distance, and all sets of places of insertions with which it is reached, by its definition."""
    if not read and not given:
        return 0, frozenset([()])
    options = []
    if read and given:
        options.append((fewest(read[:-1], given[:-1]), int(read[-1] != given[-1]), ()))
    if read:
        options.append((fewest(read[:-1], given), 1, (len(read) - 1,)))
    if given:
        options.append((fewest(read, given[:-1]), 1, ()))
    best = min(before[0] + cost for before, cost, _ in options)
    ways = (way + added for before, cost, added in options if before[0] + cost == best for way in before[1])
    return best, frozenset(ways)


def inserted(pairs: list[tuple[str, str]]) -> list[tuple[int, ...]]:
    width = [max([len(pair[side]) for pair in pairs]) for side in (0, 1)]
    texts = [[[*pair[side], *["#"] * (width[side] - len(pair[side]))] for pair in pairs] for side in (0, 1)]
    lengths = [[len(pair[side]) for pair in pairs] for side in (0, 1)]
    read, given = (tf.reshape(tf.constant(text, tf.string), [len(pairs), n]) for text, n in zip(texts, width, strict=True))
    found = edits.inserted(read, tf.constant(lengths[0]), given, tf.constant(lengths[1])).numpy()
    assert found.shape == (len(pairs), width[0])
    return [tuple(np.flatnonzero(row).tolist()) for row in found]


def test_insertions_are_those_of_an_alignment_with_the_fewest_edits():
    texts = ["".join(text) for n in range(5) for text in itertools.product("ab", repeat=n)]
    pairs = [*itertools.product(texts, texts), ("kitten", "sitting"), ("12345", "1245"), ("中文字", "文")]
    for (read, given), places in zip(pairs, inserted(pairs), strict=True):
        assert places in fewest(read, given)[1], (read, given)


def test_alone_and_without_anything():
    assert inserted([("12345", "1245")]) == [(2,)]
    assert inserted([("12345", "")]) == [(0, 1, 2, 3, 4)]
    assert inserted([("", "123")]) == [()]
    assert inserted([("", "")]) == [()]
    assert edits.inserted(
        tf.zeros([0, 3], tf.string), tf.zeros([0], tf.int32), tf.zeros([0, 2], tf.string), tf.zeros([0], tf.int32)
    ).shape == (0, 3)
