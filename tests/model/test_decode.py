import itertools

import numpy as np
import pytest
import tensorflow as tf

from ocr.model import decode


def test_greedy_agrees_with_tensorflows_decoder():
    logits = np.random.default_rng(0).normal(size=(300, 20, 4)).astype("f")
    frames = np.random.default_rng(1).integers(1, 21, 300).astype("i")
    ids, lengths, *_ = decode.greedy(tf.constant(logits), tf.constant(frames))
    theirs, _ = tf.nn.ctc_greedy_decoder(logits.transpose(1, 0, 2), frames, blank_index=3)
    expected = tf.sparse.to_dense(theirs[0], default_value=-1).numpy()
    ours = [row[:n].tolist() for row, n in zip(ids.numpy(), lengths.numpy(), strict=True)]
    assert ours == [[c for c in row if c >= 0] for row in expected.tolist()]
    assert max(map(len, ours)) > 5


def test_confidence_is_the_probability_of_the_text_over_all_alignments():
    logits = np.random.default_rng(2).normal(size=(1, 4, 3)).astype("f") * 2
    p = np.exp(logits[0]) / np.exp(logits[0]).sum(1, keepdims=True)
    ids, lengths, confidence, *_ = decode.greedy(tf.constant(logits), tf.constant([4]))
    text = ids.numpy()[0, : lengths[0]].tolist()
    total = sum(
        np.prod([p[t, c] for t, c in enumerate(path)])
        for path in itertools.product(range(3), repeat=4)
        if [c for c, _ in itertools.groupby(path) if c != 2] == text
    )
    np.testing.assert_allclose(confidence, [total], rtol=1e-5)


def test_blank_frames_and_empty_batches_give_empty_texts():
    blanks = np.zeros((2, 5, 3), "f")
    blanks[..., 2] = 9.0
    ids, lengths, confidence, *_ = decode.greedy(tf.constant(blanks), tf.constant([5, 2]))
    assert (ids.shape, lengths.numpy().tolist()) == ((2, 0), [0, 0])
    assert (confidence.numpy() > 0.99).all()
    ids, lengths, confidence, *_ = decode.greedy(tf.zeros([0, 5, 3]), tf.zeros([0], tf.int32))
    assert (ids.shape[0], lengths.shape[0], confidence.shape[0]) == (0, 0, 0)


def probabilities_of_all_texts(logits: np.ndarray) -> dict[tuple[int, ...], float]:
    """Returns the probability of every text, summed over all paths through float32[T, C]."""
    frames, classes = logits.shape
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    totals: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(classes), repeat=frames):
        text = tuple(c for c, _ in itertools.groupby(path) if c != classes - 1)
        totals[text] = totals.get(text, 0.0) + float(np.prod([p[t, c] for t, c in enumerate(path)]))
    return totals


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_beam_wide_enough_finds_the_most_probable_of_all_texts(frames: int, classes: int):
    rng = np.random.default_rng(frames * classes)
    logits = rng.normal(size=(12, frames, classes)).astype("f") * 2
    totals = [probabilities_of_all_texts(line) for line in logits]
    width = max(map(len, totals))
    decoded = decode.beam(tf.constant(logits), tf.fill([12], frames), width=width, top=classes)
    for row, ids, length, confidence in zip(totals, decoded.ids.numpy(), decoded.lengths, decoded.confidence, strict=True):
        best = max(row, key=lambda text: row[text])
        assert tuple(ids[:length].tolist()) == best
        assert float(confidence) == pytest.approx(row[best], rel=1e-4)


def test_beam_search_finds_what_greedy_misses():
    # In both frames the blank is likelier than "a", yet the three alignments of "a" together are likelier than the empty text.
    logits = np.log(np.array([[[0.4, 0.6], [0.4, 0.6]]], "f"))
    assert decode.greedy(tf.constant(logits), tf.constant([2])).lengths.numpy().tolist() == [0]
    decoded = decode.beam(tf.constant(logits), tf.constant([2]))
    assert decoded.ids.numpy().tolist() == [[0]]
    assert float(decoded.confidence[0]) == pytest.approx(0.4 * 0.4 + 2 * 0.4 * 0.6, rel=1e-5)


def test_beam_search_agrees_with_tensorflows_on_ragged_lines():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 25, 12)).astype("f") * 3
    frames = rng.integers(1, 26, 200).astype("i")
    decoded = decode.beam(tf.constant(logits), tf.constant(frames), width=10, top=11)
    theirs, _ = tf.nn.ctc_beam_search_decoder(logits.transpose(1, 0, 2), frames, beam_width=10, top_paths=1)
    expected = [[c for c in row if c >= 0] for row in tf.sparse.to_dense(theirs[0], default_value=-1).numpy().tolist()]
    ours = [ids[:n].tolist() for ids, n in zip(decoded.ids.numpy(), decoded.lengths.numpy(), strict=True)]
    assert sum(a == b for a, b in zip(ours, expected, strict=True)) >= 199


def test_beam_search_takes_an_empty_batch():
    decoded = decode.beam(tf.zeros([0, 5, 3]), tf.zeros([0], tf.int32))
    assert (decoded.ids.shape[0], decoded.lengths.shape[0], decoded.confidence.shape[0]) == (0, 0, 0)


@pytest.mark.parametrize("name", decode.DECODERS)
def test_each_character_has_its_frames_and_its_highest_probability(name: str):
    # Frames of: blank, a, a, blank, a, b, b, b, and two beyond the line's own.
    p = np.full((10, 3), 0.05, "f")
    for frame, (symbol, likely) in enumerate(zip("-aa-abbbab", (9, 7, 8, 9, 6, 5, 9, 8, 9, 9), strict=True)):
        p[frame, "ab-".index(symbol)] = likely
    p /= p.sum(1, keepdims=True)
    decoded = decode.DECODERS[name](tf.constant(np.log(p)[None]), tf.constant([8]))
    assert decoded.ids.numpy().tolist() == [[0, 0, 1]]
    assert decoded.first.numpy().tolist() == [[1, 4, 5]]
    assert decoded.last.numpy().tolist() == [[2, 4, 7]]
    np.testing.assert_allclose(decoded.char_confidence.numpy(), [[p[2, 0], p[4, 0], p[6, 1]]], rtol=1e-5)


@pytest.mark.parametrize("name", decode.DECODERS)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_line_that_is_not_a_number_does_not_change_the_others(name: str, broken: float):
    logits = np.random.default_rng(3).normal(size=(6, 20, 5)).astype("f") * 3
    frames = np.array([20, 9, 20, 20, 1, 20], "i")
    expected = decode.DECODERS[name](tf.constant(logits), tf.constant(frames))
    logits[0] = logits[2, 7] = logits[3, 4:, 1] = logits[5, :, -1] = broken
    decoded = decode.DECODERS[name](tf.constant(logits), tf.constant(frames))
    # No text has a probability if all logits are minus infinity.
    np.testing.assert_equal(decoded.confidence[0].numpy(), np.float32(0.0 if broken == -np.inf else np.nan))
    assert (decoded.ids.numpy() >= 0).all()
    assert (decoded.ids.numpy() < 4).all()
    assert (decoded.first.numpy() >= 0).all()
    assert (decoded.last.numpy() < 20).all()
    for line in (1, 4):
        length = expected.lengths[line]
        assert decoded.lengths[line] == length
        np.testing.assert_allclose(decoded.confidence[line], expected.confidence[line], rtol=1e-6)
        for field in ("ids", "char_confidence", "first", "last"):
            np.testing.assert_array_equal(getattr(decoded, field)[line, :length], getattr(expected, field)[line, :length])


@pytest.mark.parametrize("name", decode.DECODERS)
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_logits_of_any_precision_are_decoded_in_float32(name: str, dtype: tf.DType):
    logits = tf.cast(np.random.default_rng(4).normal(size=(6, 20, 5)) * 3, dtype)
    decoded = decode.DECODERS[name](logits, tf.fill([6], tf.constant(20, tf.int64)))
    expected = decode.DECODERS[name](tf.cast(logits, tf.float32), tf.fill([6], 20))
    for one, other in zip(decoded, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("classes", [1, 9, 16, 17, 1000])
def test_the_highest_are_those_of_top_k_also_where_many_are_equal(classes: int):
    rng = np.random.default_rng(classes)
    size = (2, 3, classes)
    for values in (rng.normal(size=size), rng.integers(0, classes // 4 + 1, size), np.zeros(size)):
        logits = tf.constant(values, tf.float32)
        for own, expected in zip(
            decode.highest_logits(logits, min(9, classes)), tf.math.top_k(logits, min(9, classes)), strict=True
        ):
            np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize("classes", [2, 5, 200])
def test_a_search_is_given_the_best_symbols_of_each_frame_and_the_blank(classes: int):
    logits = np.random.default_rng(classes).normal(size=(4, 30, classes)).astype("f")
    logits[2, :, -1] = 9
    values, symbols, blanks = (value.numpy() for value in decode.candidates(tf.constant(logits), 3))
    expected = np.argsort(-logits[:, :, :-1], axis=2)[:, :, :3]
    np.testing.assert_array_equal(symbols, expected)
    highest = logits.max(axis=2, keepdims=True)
    np.testing.assert_array_equal(values, np.take_along_axis(logits, expected, axis=2) - highest)
    np.testing.assert_array_equal(blanks, logits[:, :, -1:] - highest)
