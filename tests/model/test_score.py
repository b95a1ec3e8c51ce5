"""Scores of given texts against sums over all paths, one by one."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from ocr import ctc
from ocr.model import score


def probabilities(logits: np.ndarray) -> dict[tuple[int, ...], float]:
    """Returns the probability of every text, by the definition of CTC."""
    frames, classes = logits.shape
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    totals: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(classes), repeat=frames):
        text = tuple(c for c, _ in itertools.groupby(path) if c != classes - 1)
        totals[text] = totals.get(text, 0.0) + float(np.prod(p[range(frames), path]))
    return totals


def scored(logits: np.ndarray, texts: list[tuple[int, ...]], **options) -> score.Scores:
    longest = max(map(len, texts), default=0)
    labels = np.full((len(texts), longest), -7, np.int32)  # beyond a text anything
    for row, text in zip(labels, texts, strict=True):
        row[: len(text)] = text
    line = tf.constant(logits[np.newaxis], tf.float32), tf.constant([len(logits)]), tf.zeros([len(texts)], tf.int32)
    scores = score.score(*line, tf.constant(labels), tf.constant([*map(len, texts)], tf.int32), **options)
    return score.Scores(*(value.numpy() for value in scores))


@pytest.mark.parametrize("frames", range(1, 6))
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_probability_and_agreement_are_those_of_all_paths_one_by_one(frames: int, classes: int):
    logits = np.random.default_rng(frames * classes).normal(size=(frames, classes)) * 2
    totals = probabilities(logits.astype("f"))
    # All texts that fit, equal neighbours and the empty text among them, and those with a character too many.
    texts = [text for n in range(frames + 2) for text in itertools.product(range(classes - 1), repeat=n)]
    scores = scored(logits, texts)
    for text, log_probability, agreement in zip(texts, *scores, strict=True):
        if (expected := totals.get(text, 0.0)) == 0.0:
            assert log_probability == -np.inf
            assert not agreement.any()
            continue
        assert log_probability == pytest.approx(np.log(expected), rel=1e-5, abs=1e-5)
        for n in range(len(text)):
            others = sum(totals.get((*text[:n], c, *text[n + 1 :]), 0.0) for c in range(classes - 1))
            assert agreement[n] == pytest.approx(expected / others, rel=1e-5)
        assert not agreement[len(text) :].any()


def test_log_probability_is_minus_the_ctc_loss_for_texts_of_any_probability():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(40, 60)) * 4
    texts = [tuple(rng.integers(0, 59, rng.integers(0, 25))) for _ in range(50)]
    texts += [(5,) * 20, (5,) * 21, tuple(range(40)), tuple(range(41))]
    labels = np.array([[*text, *[0] * (41 - len(text))] for text in texts], np.int32)
    lengths = np.array([*map(len, texts)], np.int32)
    repeated = np.repeat(logits[None].astype("f"), len(texts), 0)
    arguments = [tf.constant(value) for value in (repeated, [40] * len(texts), labels, lengths)]
    expected = -ctc.loss(*arguments).numpy()
    assert np.isneginf(expected).sum() == 2
    assert expected.min(where=np.isfinite(expected), initial=0) < -200
    np.testing.assert_allclose(scored(logits, texts).log_probability, expected, rtol=1e-5)
    np.testing.assert_allclose(ctc.log_probability(*arguments), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 5.0, 40.0])
def test_agreement_is_the_share_among_all_texts_with_another_character_however_improbable(scale: float):
    rng = np.random.default_rng(6)
    logits = (rng.normal(size=(45, 8)) * scale).astype("f")
    texts = [tuple(rng.integers(0, 7, length)) for length in (1, 10, 30)] + [(3,) * 12]
    agreement = scored(logits, texts).agreement
    changed = [(*text[:n], c, *text[n + 1 :]) for text in texts for n in range(len(text)) for c in range(7)]
    labels = np.array([[*text, *[0] * (30 - len(text))] for text in changed], np.int32)
    lines = tf.constant(np.repeat(logits[None], len(changed), 0)), tf.fill([len(changed)], 45)
    losses = ctc.loss(*lines, tf.constant(labels), tf.constant([*map(len, changed)])).numpy().astype(np.float64).reshape(-1, 7)
    own = losses[range(len(losses)), np.concatenate(texts)]
    shares = np.exp(losses.min(1) - own) / np.exp(losses.min(1, keepdims=True) - losses).sum(1)
    actual = np.concatenate([row[: len(text)] for row, text in zip(agreement, texts, strict=True)])
    # The losses themselves are float32: of improbable texts, their differences are not precise.
    np.testing.assert_allclose(actual, shares, rtol=1e-6 * (10 + own.max()), atol=1e-12)
    assert actual.min() < 0.01


def test_only_the_most_probable_characters_of_a_frame_are_alternatives():
    logits = np.random.default_rng(2).normal(size=(5, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    best = np.argsort(-logits[:, :-1], axis=1)[:, :2]
    text = (0, 1, 1)
    scores = scored(logits, [text], alternatives=2)
    for n in range(3):
        own = others = 0.0
        for path in itertools.product(range(4), repeat=5):
            runs = [(c, len(list(run))) for c, run in itertools.groupby(path)]
            starts = np.cumsum([0, *(length for _, length in runs)])
            characters = [(c, range(start, start + length)) for (c, length), start in zip(runs, starts, strict=False) if c != 3]
            if [c for k, (c, _) in enumerate(characters) if k != n] != [c for k, c in enumerate(text) if k != n]:
                continue
            if len(characters) != 3:
                continue
            probability = np.prod(p[range(5), path])
            if characters[n][0] == text[n]:
                own += probability
            elif all(characters[n][0] in best[t] for t in characters[n][1]):
                others += probability
        assert scores.agreement[0, n] == pytest.approx(own / (own + others), rel=1e-5)


def test_texts_are_scored_alike_alone_and_in_parts(monkeypatch):
    rng = np.random.default_rng(3)
    logits, texts = rng.normal(size=(30, 12)) * 3, [tuple(rng.integers(0, 11, n % 9)) for n in range(23)]
    together = scored(logits, texts)
    monkeypatch.setattr(score, "_AT_ONCE", 30 * 9 * 8 * 4)
    np.testing.assert_allclose(scored(logits, texts).log_probability, together.log_probability, rtol=1e-6)
    np.testing.assert_allclose(scored(logits, texts).agreement, together.agreement, rtol=1e-5)


def test_a_character_outside_the_alphabet_has_no_probability_and_does_not_change_the_others():
    logits = np.random.default_rng(4).normal(size=(6, 4))
    scores, alone = scored(logits, [(0, -1), (2, 1)]), scored(logits, [(2, 1)])
    assert scores.log_probability[0] == -np.inf
    assert not scores.agreement[0].any()
    np.testing.assert_array_equal(scores.log_probability[1], alone.log_probability[0])
    np.testing.assert_array_equal(scores.agreement[1], alone.agreement[0])


@pytest.mark.parametrize("frames", [1, 6, 40])
@pytest.mark.parametrize("texts", [[], [()], [(), ()]])
def test_no_text_and_empty_texts_are_legal(texts: list, frames: int):
    logits = np.random.default_rng(5).normal(size=(frames, 4))
    scores = scored(logits, texts)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(scores.log_probability, [np.log(p[:, 3]).sum()] * len(texts), rtol=1e-5)
    assert scores.agreement.shape == (len(texts), 0)


@pytest.mark.parametrize(
    ("text", "count", "message"),
    [
        (["a", "b"], 2, ""),
        (["a", "b"], 0, ""),
        (["a", "b"], -1, "count: -1 must be 0 to 2, the number of texts"),
        (["a", "b"], 3, "count: 3 must be 0 to 2, the number of texts"),
        (["é" * 1000], 1, ""),
        (["é" * 1001], 1, "text: one has 1001 characters; at most 1000 are allowed"),
        (["é" * 1001], 0, ""),
        (["a"] * 1000, 1000, ""),
        (["a"] * 1001, 1, "text: 1001 texts for an image; at most 1000 are allowed"),
        (["a" * 20] * 1000, 1, ""),
        (["a" * 21] * 1000, 1, "text: 1000 texts of up to 21 characters each: the product must be at most 20000"),
    ],
)
def test_sizes_beyond_the_limits_are_refused_by_row(text: list[str], count: int, message: str):
    refused = score.refusals(tf.constant([text, ["b"] * len(text)]), tf.constant([count, 1])).numpy()
    assert refused[0].decode() == message
    assert bool(refused[1]) == (len(text) > 1000)


def test_texts_of_several_lines_are_scored_as_those_of_each_alone():
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(3, 20, 12)) * 3
    frames = [11, 20, 4]
    asked = [(2, (1, 2)), (0, (3, 3, 4, 5)), (0, ()), (2, (1, 2, 3, 4, 5)), (1, (7, 8, 7))]
    for line, own in enumerate(frames):
        logits[line, own:] = 50 * rng.normal(size=(20 - own, 12))
    labels = np.array([[*text, *[0] * (5 - len(text))] for _, text in asked], np.int32)
    lines, lengths = (tf.constant(values) for values in ([line for line, _ in asked], [len(text) for _, text in asked]))
    together = score.score(tf.constant(logits, tf.float32), tf.constant(frames), lines, tf.constant(labels), lengths)
    for number, (line, text) in enumerate(asked):
        alone = scored(logits[line, : frames[line]], [text])
        assert together.log_probability[number].numpy() == pytest.approx(alone.log_probability[0], rel=1e-5)
        np.testing.assert_allclose(together.agreement[number, : len(text)], alone.agreement[0], rtol=1e-5)
        assert not together.agreement[number, len(text) :].numpy().any()
