import itertools

import numpy as np
import pytest
import tensorflow as tf

from ocr.charset import Charset
from ocr.model import decode, fusion, ngram, ngram_estimate, prefix_beam

TEXTS = ["abc", "abca", "bcab", "cabc", "aabb", "abcb", "ccab"] * 3
CHARSET = Charset("abc")


def model(texts: list[str] = TEXTS, order: int = 3) -> ngram.NGram:
    return ngram_estimate.estimate(texts, order)


def language_score(lm: ngram.NGram, text: str, weight: float, bonus: float) -> float:
    """Adds up what an n-gram model says of each character after all that is before it."""
    total = 0.0
    for place, number in enumerate(lm.encode(text)):
        before = lm.encode(text[max(place - lm.order + 1, 0) : place])
        context = sum(int(n) * lm.base**i for i, n in enumerate(reversed(before)))
        total += weight * lm.log_probability(np.array([context]), np.array([number]))[0] + bonus
    return float(total)


def probabilities_of_all_texts(logits: np.ndarray) -> dict[str, float]:
    """Returns the probability of every text, summed over all paths through float32[T, C]."""
    frames, classes = logits.shape
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    totals: dict[str, float] = {}
    for path in itertools.product(range(classes), repeat=frames):
        text = "".join(CHARSET.characters[c] for c, _ in itertools.groupby(path) if c != classes - 1)
        totals[text] = totals.get(text, 0.0) + float(np.prod([p[t, c] for t, c in enumerate(path)]))
    return totals


def compiled(weights: fusion.Weights, lm: ngram.NGram | None = None):
    """Returns a decoder as one graph."""
    fused = fusion.Fusion(lm or model(), CHARSET, weights)
    return tf.function(fused.decode, [tf.TensorSpec([None, None, 4]), tf.TensorSpec([None], tf.int32)], autograph=False)


def read(decoded: decode.Decoded) -> list[str]:
    return [CHARSET.decode(ids[:n]) for ids, n in zip(decoded.ids.numpy(), decoded.lengths.numpy(), strict=True)]


@pytest.mark.parametrize(("weight", "bonus"), [(0.5, 0.0), (1.0, 1.5), (2.0, -0.5)])
def test_a_beam_wide_enough_finds_the_text_with_the_highest_score_of_all(weight: float, bonus: float):
    lm = model()
    logits = np.random.default_rng(1).normal(size=(25, 4, 4)).astype("f") * 2
    language = fusion.Language(lm, CHARSET, weight, bonus)
    symbols = np.tile(np.arange(3, dtype="i"), (25, 4, 1))
    frames = [tf.constant(value) for value in (logits[..., :3], symbols, logits[..., 3:], np.full(25, 4, "i"))]
    added = prefix_beam.search(*frames, width=64, language=language)
    differs = 0
    for line, symbols in zip(logits, added.numpy(), strict=True):
        totals = probabilities_of_all_texts(line)
        score = {text: np.log(p) + language_score(lm, text, weight, bonus) for text, p in totals.items()}
        best = max(score, key=score.__getitem__)
        assert CHARSET.decode(symbols[symbols >= 0]) == best
        differs += best != max(totals, key=totals.__getitem__)
    assert differs >= 3, "in some lines the language model has to decide"


def test_unsure_lines_are_decoded_again_and_sure_ones_are_as_greedy_reads_them():
    lm, weights = model(), fusion.Weights(1.0, 1.5, 0.6)
    logits = tf.constant(np.random.default_rng(2).normal(size=(200, 3, 4)) * 2, tf.float32)
    frames = tf.constant(np.random.default_rng(3).integers(1, 4, 200), tf.int32)
    greedy = decode.greedy(logits, frames)
    fused = compiled(weights)(logits, frames)
    sure = greedy.confidence.numpy() >= 0.6
    assert 50 < sure.sum() < 150
    longest = greedy.ids.shape[1]
    for one, other in zip(greedy, fused, strict=True):
        own = other[:, :longest] if other.shape.rank == 2 else other
        np.testing.assert_array_equal(one.numpy()[sure], own.numpy()[sure])
    assert not fused.ids[:, longest:].numpy()[sure].any()
    changed = 0
    for row in np.flatnonzero(~sure)[:40]:
        totals = probabilities_of_all_texts(logits[row, : frames[row]].numpy())
        text = read(fused)[row]
        score = {t: np.log(p) + language_score(lm, t, 1.0, 1.5) for t, p in totals.items()}
        assert text == max(score, key=score.__getitem__)
        # The confidence stays the probability that the image gives the text.
        assert float(fused.confidence[row]) == pytest.approx(totals[text], rel=1e-4)
        changed += text != read(greedy)[row]
    assert changed >= 5


def test_the_fused_score_adds_the_language_model_to_the_logarithm_of_the_confidence():
    lm = model()
    fused = fusion.Fusion(lm, CHARSET, fusion.Weights(0.7, 2.0, 0.5))
    texts = ["", "a", "abc", "cccab", "bb"]
    ids = tf.ragged.constant([CHARSET.encode(text) for text in texts], tf.int32).to_tensor()
    empty = decode.greedy(tf.zeros([5, 1, 4]), tf.zeros([5], tf.int32))
    confidence = tf.constant([1.0, 0.5, 0.25, 1e-3, 0.0])
    decoded = empty._replace(ids=ids, lengths=tf.constant([*map(len, texts)]), confidence=confidence)
    visual = np.log(np.maximum(confidence.numpy(), np.finfo(np.float32).tiny))
    expected = [v + language_score(lm, text, 0.7, 2.0) for v, text in zip(visual, texts, strict=True)]
    np.testing.assert_allclose(fused.score(decoded), expected, atol=1e-2)  # the graph has half precision


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("known", ["abc", "ab", "abcxyz", "中文字"])
def test_an_alphabet_other_than_that_of_the_corpus_shares_what_is_left(known: str, order: int):
    rng = np.random.default_rng(5)
    lm = model(["".join(rng.choice([*known], 8)) for _ in range(40)], order)
    language = fusion.Language(lm, CHARSET, 1.0, 0.0)
    contexts = tf.constant([[0, 1, 2, 3, lm.base, lm.base + 1]], tf.int64)
    total = np.exp(language.scores(contexts, tf.constant([[0, 1, 2]]))).sum(axis=2)
    # What is left in the corpus to characters that the alphabet lacks, and to unknown ones if it lacks none of them.
    lacking = 1.0 - total
    if known == "ab":
        np.testing.assert_allclose(lacking, 0.0, atol=5e-3)
    elif known == "abc":
        assert (lacking > -5e-3).all()
        assert (lacking < 0.02).all()
    elif known == "abcxyz":
        assert (lacking[0, 0] > 0.3).all()
    else:  # a third of the probability of all that is not in the corpus for each of them
        np.testing.assert_allclose(total[0, 0], np.exp(language_score(lm, "a", 1.0, 0.0)), rtol=5e-3)
        logits = tf.constant(rng.normal(size=(8, 6, 4)) * 2, tf.float32)
        decoded = compiled(fusion.Weights(0.5, 1.0, 2.0), lm)(logits, tf.fill([8], 6))
        # Nothing is known of any character, so the length alone decides.
        bonus = 1.0 + 0.5 * (language_score(lm, "a", 1.0, 0.0) - np.log(3))
        plain = fusion.Language(lm, CHARSET, 0.0, float(bonus))
        added = fusion.search(*fusion.frames_with_text(logits, tf.fill([8], 6)), plain)
        assert read(decoded) == [CHARSET.decode(row[row >= 0]) for row in added.numpy()]


def test_blank_frames_are_left_out_but_for_one_between_equal_characters():
    blank, a, b = [0.0, 0.0, 0.0, 9.0], [9.0, 0.0, 0.0, 0.0], [0.0, 9.0, 0.0, 0.0]
    logits = tf.constant([[blank, blank, a, blank, blank, blank, a, a, b, blank, blank], [b, *[blank] * 10]])
    values, symbols, blanks, frames = fusion.frames_with_text(logits, tf.constant([11, 2]))
    assert frames.numpy().tolist() == [7, 2]
    assert values.shape == (2, 7, 3)
    language = fusion.Language(model(), CHARSET, 0.0, 0.0)
    added = fusion.search(values, symbols, blanks, frames, language).numpy()
    assert [CHARSET.decode(row[row >= 0]) for row in added] == ["aab", "b"]


def test_lines_that_are_not_numbers_do_not_change_the_others_and_a_batch_may_be_empty():
    decode_lines = compiled(fusion.Weights(0.5, 1.0, 2.0))
    whole = np.random.default_rng(3).normal(size=(5, 20, 4)).astype("f") * 3
    frames = np.array([20, 9, 20, 20, 1], "i")
    expected = decode_lines(whole, frames)
    for broken in (np.nan, np.inf, -np.inf):
        logits = whole.copy()
        logits[0] = logits[2, 7] = logits[3, 4:, 1] = broken
        decoded = decode_lines(logits, frames)
        assert ((decoded.ids.numpy() >= 0) & (decoded.ids.numpy() < 3)).all()
        for line in (1, 4):
            length = expected.lengths[line]
            assert decoded.lengths[line] == length
            np.testing.assert_array_equal(decoded.ids[line, :length], expected.ids[line, :length])
            np.testing.assert_allclose(decoded.confidence[line], expected.confidence[line], rtol=1e-6)
    assert decode_lines(np.zeros([0, 5, 4], "f"), np.zeros(0, "i")).lengths.shape == [0]


def test_an_unsure_line_without_text_is_read_as_that_alone():
    logits = tf.constant([[[0.0, 0.0, 0.0, 1.0]]])  # one frame, blank with a probability of 0.48
    fused = compiled(fusion.Weights(1.0, -9.0, 0.6))(logits, tf.constant([1]))
    assert (read(fused), fused.ids.shape) == ([""], (1, 0))
    np.testing.assert_allclose(fused.confidence, np.e / (3 + np.e), rtol=1e-6)
