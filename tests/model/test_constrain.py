"""Reading with constraints against enumerations of all paths."""

import functools
import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from ocr.charset import Charset
from ocr.model import constrain, template

SOME = Charset("0123456789ABCDabcd-.,+\\年月日")


def path_probabilities(logits: np.ndarray):
    """Yields every path through float[T, C], its text as classes, and its probability."""
    frames, classes = logits.shape
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    for path in itertools.product(range(classes), repeat=frames):
        text = tuple(c for c, _ in itertools.groupby(path) if c != classes - 1)
        yield path, text, float(np.prod(p[range(frames), path]))


def regular_expression(pattern: str) -> str:
    """Returns a pattern as Python's regular expressions have it."""
    classes = {"9": "[0-9]", "A": "[A-Z]", "a": "[a-z]", "+": "+"}
    parts = re.findall(r"\\.|[^\\]", pattern)
    return "".join(re.escape(part[1]) if part[0] == "\\" else classes.get(part, re.escape(part)) for part in parts)


@functools.cache
def reader(charset: Charset):
    """Returns a graph for lines of any shape, as an export has it; a step at a time would take seconds."""

    def read(logits: tf.Tensor, frames: tf.Tensor, patterns: tf.Tensor, allowed: tf.Tensor):
        chains, refused = template.parse(patterns, charset)
        mask, also_refused = constrain.allowed_classes(allowed, charset)
        return constrain.read(logits, frames, mask, chains), refused, also_refused

    specs = [
        tf.TensorSpec(shape, kind)
        for shape, kind in (([None] * 3, tf.float32), *[([None], k) for k in (tf.int32, tf.string, tf.string)])
    ]
    return tf.function(read, input_signature=specs, autograph=False)


def read(logits: np.ndarray, frames: list[int], charset: Charset, patterns: list[str], allowed: list[str] | None = None):
    inputs = (tf.constant(logits, tf.float32), tf.constant(frames), tf.constant(patterns))
    reading, *refused = reader(charset)(*inputs, tf.constant(allowed or [""] * len(patterns)))
    assert not any(refusal for refusals in refused for refusal in refusals.numpy())
    ids, lengths, confidence = (value.numpy() for value in reading)
    return [charset.decode(row[:n]) for row, n in zip(ids, lengths, strict=True)], confidence


@pytest.mark.parametrize(
    ("characters", "pattern"),
    [
        ("01A", "9"),
        ("01A", "99"),
        ("01A", "999"),
        ("01A", "9A9"),
        ("01A", "9+"),
        ("01A", "9+A"),
        ("01A", "A9+"),
        ("01A", "9+9"),
        ("0-A", "9-9"),
        ("0-A", "--"),
        ("0-A", "-+"),
        ("09A", r"\99"),
        ("ab9", r"\a\9"),
        ("ab9", r"a\a+"),
        ("0+\\", r"9\+\\"),
        ("0Aa", "A+a"),
        ("0.a", "amount"),
        ("0,1", "digits"),
    ],
)
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_best_path_and_its_share_of_all_texts_that_fit(characters: str, pattern: str, frames: int):
    charset = Charset(characters)
    templates = [regular_expression(each) for each in template.NAMES.get(pattern, (pattern,))]
    logits = np.random.default_rng(frames * len(pattern)).normal(size=(6, 5, 4)).astype("f") * 3
    # The same as with an alphabet of these characters alone, but one graph does for all tests.
    alike = np.full((6, 5, SOME.num_classes), -np.inf, "f")
    alike[:, :, [*SOME.encode(characters), SOME.blank]] = logits
    texts, confidences = read(alike, [frames] * 6, SOME, [pattern] * 6)
    for line, text, confidence in zip(logits, texts, confidences, strict=True):
        paths = [
            (probability, charset.decode(ids))
            for _, ids, probability in path_probabilities(line[:frames])
            if sum(bool(re.fullmatch(each, charset.decode(ids))) for each in templates) == 1
        ]
        if not paths:
            assert (text, confidence) == ("", 0.0)
            continue
        assert text == max(paths)[1]
        own = sum(probability for probability, other in paths if other == text)
        assert confidence == pytest.approx(own / sum(probability for probability, _ in paths), rel=1e-5)


def test_no_two_templates_of_a_name_have_a_text_in_common():
    charset = Charset("0123456789-/.,年月日")
    for name, templates in template.NAMES.items():
        texts = [re.sub("9", "1", each.replace("+", "")) for each in templates]
        texts += [text.replace("1", "11", 1) for text in texts] + ["1" * n for n in range(9)]
        for text in texts:
            assert sum(bool(re.fullmatch(regular_expression(each), text)) for each in templates) <= 1, (name, text)
        assert not charset.missing("".join(texts))


def test_lines_with_their_own_patterns_frames_and_characters_are_read_as_alone():
    charset = SOME
    patterns = ["9999-99-99", "date", "A9", "c+", "-9+-", "digits", "amount", "AA-cc"]
    allowed = ["", "0123456789-年月日", "A23", "", "-12", "345", "1", ""]
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 24, charset.num_classes)) * 3
    frames = [24, 23, 3, 9, 20, 12, 24, 17]
    texts, confidences = read(logits, frames, charset, patterns, allowed)
    for i, pattern in enumerate(patterns):
        text, confidence = read(logits[i : i + 1, : frames[i]], [frames[i]], charset, [pattern], [allowed[i]])
        assert texts[i] == text[0]
        assert confidences[i] == pytest.approx(confidence[0], rel=1e-4)
        expressions = template.NAMES.get(pattern, (pattern.replace("c", r"\c"),))
        assert any(re.fullmatch(regular_expression(each), texts[i]) for each in expressions)
        assert set(texts[i]) <= set(allowed[i] or charset.characters)


def test_neighbours_that_must_be_equal_need_their_blank_however_improbable():
    # The image shows one long 1 without a gap, so 11 is nearly impossible.
    logits = np.zeros((1, 4, 3), "f")  # of 1, 2 and the blank
    logits[0, :, 0], logits[0, :, 2] = 30.0, -30.0
    charset = Charset("12")
    alike = np.full((1, 4, SOME.num_classes), -np.inf, "f")
    alike[:, :, [*SOME.encode("12"), SOME.blank]] = logits
    (text,), (confidence,) = read(alike, [4], SOME, ["99"])
    paths = [(p, ids) for _, ids, p in path_probabilities(logits[0]) if len(ids) == 2]
    assert (text, len(text)) == (charset.decode(max(paths)[1]), 2)
    own = sum(p for p, ids in paths if charset.decode(ids) == text)
    assert confidence == pytest.approx(own / sum(p for p, _ in paths), rel=1e-4)


def test_allowed_characters_leave_the_probabilities_of_paths_given_that_all_are_allowed():
    charset = Charset("abc")
    logits = np.random.default_rng(1).normal(size=(5, 4)).astype("f") * 2
    mask, refused = constrain.allowed_classes(tf.constant(["ca", "", "abcabc"]), charset)
    assert not any(refused.numpy())
    assert mask.numpy().tolist() == [[True, False, True], [True] * 3, [True] * 3]
    masked = np.where([True, False, True, True], logits, -np.inf)
    allowed = [(text, p) for path, text, p in path_probabilities(logits) if 1 not in path]
    renormalised = dict.fromkeys({text for text, _ in allowed}, 0.0)
    for _, text, p in path_probabilities(masked):
        if text in renormalised:
            renormalised[text] += p
    total = sum(p for _, p in allowed)
    for text, share in renormalised.items():
        assert share == pytest.approx(sum(p for other, p in allowed if other == text) / total, rel=1e-6)


def test_both_classes_of_a_character_that_is_in_the_alphabet_twice_are_allowed():
    mask, _ = constrain.allowed_classes(tf.constant(["1"]), Charset("0121"))
    assert mask.numpy().tolist() == [[False, True, False, True]]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("99\\", "a backslash at its end escapes nothing"),
        ("\\\\\\", "a backslash at its end escapes nothing"),
        ("+9", "+ must follow a character, and only once"),
        ("9++", "+ must follow a character, and only once"),
        ("9+A+", "+ must follow a character, and only once"),
        ("9" * 65, "it must have 1 to 64 characters, none of them a control character"),
        ("9" * 10_000, "it must have 1 to 64 characters, none of them a control character"),
        ("9\n9", "it must have 1 to 64 characters, none of them a control character"),
        ("9\x019", "it must have 1 to 64 characters, none of them a control character"),
        ("9\x00", "it must have 1 to 64 characters, none of them a control character"),
        ("99€", "the model's alphabet lacks a character of it"),
        (b"9\xff", "the model's alphabet lacks a character of it"),
        ("日付", "the model's alphabet lacks a character of it"),
    ],
)
def test_what_is_no_pattern_is_refused_beside_others(pattern, message: str):
    chains, refused = template.parse(tf.constant(["99", pattern, "", "date"]), Charset("0123456789-Aa+\\"))
    assert [bool(each) for each in refused.numpy()] == [False, True, False, False]
    assert refused.numpy()[1].decode().endswith(f": {message}")
    assert len(refused.numpy()[1]) < 400
    assert chains.row.numpy().tolist() == [0] + [3] * len(template.NAMES["date"])


def test_the_longest_pattern_is_taken():
    chains, refused = template.parse(tf.constant(["\\年" * 63 + "\\年+"]), Charset("年"))
    assert (refused.numpy()[0], chains.lengths.numpy().tolist()) == (b"", [64])
    assert chains.repeat.numpy()[0].tolist() == [False] * 63 + [True]


def test_characters_that_the_alphabet_lacks_or_too_many_are_refused_beside_others():
    mask, refused = constrain.allowed_classes(tf.constant(["12", "1é€", "1" * 20_001, ""]), Charset("12"))
    assert [each.decode() for each in refused.numpy()] == [
        "",
        "allowed: the model's alphabet lacks é",
        "allowed: 20001 characters; at most 20000 may be listed",
        "",
    ]
    assert mask.numpy()[0].tolist() == mask.numpy()[3].tolist() == [True, True]
