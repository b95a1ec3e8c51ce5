import collections
import dataclasses
import itertools
import math
import pathlib

import numpy as np
import pytest

from ocr.model import ngram, ngram_estimate
from tfrecords.errors import InputError, IntegrityError

ALPHABET = "abcdef"


def lines(count: int = 60) -> list[str]:
    """Returns texts in which some characters follow others more often than by chance."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(len(ALPHABET), 0.4), len(ALPHABET))
    texts = []
    for _ in range(count):
        text = [int(rng.integers(len(ALPHABET)))]
        while len(text) < 12:
            text.append(int(rng.choice(len(ALPHABET), p=table[text[-1]])))
        texts.append("".join(ALPHABET[i] for i in text))
    return texts


def key(model: ngram.NGram, text: str) -> int:
    return int(sum(int(number) * model.base**place for place, number in enumerate(reversed(model.encode(text)))))


def probability(model: ngram.NGram, context: str, character: str) -> float:
    return math.exp(model.log_probability(np.array([key(model, context)]), model.encode(character))[0])


def slow_probability(texts: list[str], context: str, character: str) -> float:
    """Computes an interpolated probability from its definition, with nothing left out."""
    windows = [text[i : i + len(context) + 1] for text in texts for i in range(len(text) - len(context))]
    counts = collections.Counter(windows)
    times = collections.Counter(counts.values())
    discount = min(max(times[1] / max(times[1] + 2 * times[2], 1), 0.1), 0.9)
    following = {window: count for window, count in counts.items() if window[:-1] == context}
    total = sum(following.values())
    if not context:
        return (following[character] - discount) / total
    shorter = slow_probability(texts, context[1:], character)
    if not total:
        return shorter
    seen = following.get(context + character, 0)
    return max(seen - discount, 0) / total + discount * len(following) / total * shorter


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("max_bytes", [4_000_000, 900])
def test_probabilities_after_any_context_sum_to_one(order: int, max_bytes: int):
    model = ngram_estimate.estimate(lines(), order, max_bytes)
    assert (len(model.keys) == 31) == (max_bytes == 900)
    for length in range(order):
        for context in itertools.islice(itertools.product(ALPHABET + "?", repeat=length), 400):
            total = sum(probability(model, "".join(context), character) for character in ALPHABET + "?")
            assert total == pytest.approx(1.0, abs=1e-9), context


@pytest.mark.parametrize("max_bytes", range(1_000, 4_500, 500))
def test_a_listed_ngram_has_its_context_listed_too_for_the_backoff_weight(max_bytes: int):
    model = ngram_estimate.estimate(lines(), 5, max_bytes)
    assert set(model.keys // model.base) <= set(model.keys)


def test_probabilities_are_those_of_the_definition_with_pairs_and_all_their_shorter_contexts():
    texts = lines()
    model = ngram_estimate.estimate(texts, 2)
    for context, character in itertools.product(["", *ALPHABET], ALPHABET):
        assert probability(model, context, character) == pytest.approx(slow_probability(texts, context, character), rel=1e-9)


def test_longer_ngrams_that_are_listed_have_the_probabilities_of_the_definition():
    texts = lines()
    model = ngram_estimate.estimate(texts, 4)
    counts = collections.Counter(text[i : i + 4] for text in texts for i in range(len(text) - 3))
    often = [window for window, count in counts.items() if count >= 3]
    assert len(often) > 20
    for window in often:
        assert probability(model, window[:3], window[3]) == pytest.approx(slow_probability(texts, window[:3], window[3]))


def test_a_small_example_worked_out_by_hand():
    # "aab" twice: no n-gram is seen once, so a tenth of an occurrence is discounted.
    model = ngram_estimate.estimate(["aab", "aab"], 2)
    assert probability(model, "", "a") == pytest.approx(3.9 / 6)
    assert probability(model, "", "?") == pytest.approx(2 * 0.1 / 6)
    assert probability(model, "a", "b") == pytest.approx(1.9 / 4 + 2 * 0.1 / 4 * 1.9 / 6)
    # Nothing follows "b", and no n-gram reaches into the next line.
    assert probability(model, "b", "a") == pytest.approx(3.9 / 6)


def test_a_file_gives_the_model_in_half_precision_and_is_no_larger_than_allowed(tmp_path: pathlib.Path):
    for max_bytes in (4_000_000, 1_500):
        model = ngram_estimate.estimate(lines(), 3, max_bytes)
        model.save(tmp_path / "lm")
        assert (tmp_path / "lm").stat().st_size <= max_bytes
        loaded = ngram.load(tmp_path / "lm")
        assert (loaded.characters, loaded.order) == (ALPHABET, 3)
        np.testing.assert_array_equal(loaded.keys, model.keys)
        np.testing.assert_allclose(loaded.log_probabilities, model.log_probabilities, rtol=1e-3)
        for context in ("", "a", "ab", "?c"):
            assert sum(probability(loaded, context, c) for c in ALPHABET + "?") == pytest.approx(1.0, abs=5e-3)


def test_every_damage_of_a_file_is_noticed(tmp_path: pathlib.Path):
    path = tmp_path / "lm"
    ngram_estimate.estimate(lines(), 3).save(path)
    content = path.read_bytes()
    header = content.index(b"\n")
    for place in (*range(header // 2, header + 40, 7), len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises((InputError, IntegrityError), match=r"^--lm=.*lm: (damaged; write|not a file that ocr_lm)"):
            ngram.load(path)
    for other in (content[:-1], content[:-12], content + b"\0", content[: header + 1]):
        path.write_bytes(other)
        with pytest.raises(IntegrityError, match=r"^--lm=.*: damaged"):
            ngram.load(path)
    for other in (b"", b"\x89PNG\r\n", b"{}\n", b"[1]\n", b"[" * 100_000):
        path.write_bytes(other)
        with pytest.raises(InputError, match=r"^--lm=.*: not a file that ocr_lm has written"):
            ngram.load(path)
    for missing in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=f"^--lm={missing}: "):
            ngram.load(missing)


@pytest.mark.parametrize(
    "fields",
    [
        {"order": 0},
        {"order": 6},
        {"order": 2.0},
        {"characters": "abcdee"},
        {"characters": [*ALPHABET]},
        {"keys": np.zeros(0, "i8"), "log_probabilities": np.zeros(0), "backoffs": np.zeros(0)},
        {"keys": np.array([0, 1, 2, 3, 4, 6, 5]), "log_probabilities": np.zeros(7), "backoffs": np.zeros(7)},
        {"keys": np.array([*range(7), 9, 9]), "log_probabilities": np.zeros(9), "backoffs": np.zeros(9)},
        {"keys": np.arange(7), "log_probabilities": np.full(7, np.nan), "backoffs": np.zeros(7)},
        {"keys": np.arange(7), "log_probabilities": np.zeros(8), "backoffs": np.zeros(7)},
    ],
    ids=str,
)
def test_a_file_whose_hash_is_right_and_whose_content_is_not_is_refused(tmp_path: pathlib.Path, fields: dict):
    dataclasses.replace(ngram_estimate.estimate(lines(), 3), **fields).save(tmp_path / "lm")
    with pytest.raises(IntegrityError, match=r"^--lm=.*: damaged; write it again with ocr_lm"):
        ngram.load(tmp_path / "lm")


def test_an_order_too_large_for_the_alphabet_is_refused():
    with pytest.raises(InputError, match=r"^--order=5: must be at most 4 for the corpus, which has 7000 characters"):
        ngram_estimate.estimate(["".join(map(chr, range(0x4E00, 0x4E00 + 7000)))], 5)


def test_the_command_builds_a_file_and_refuses_what_is_no_text(invoke, last_json, tmp_path: pathlib.Path):
    (tmp_path / "one.txt").write_text("abcabc\nabd\n")
    (tmp_path / "two.txt").write_bytes("\ufeffcab\r\n".encode())
    done = invoke("ocr_lm", "--corpus=one.txt,two.txt", "--output=made/lm", "--order=3")
    assert done.returncode == 0, done.stderr
    result = last_json(done)
    assert (result["lines"], result["characters"], result["order"]) == (3, 4, 3)
    assert result["bytes"] == (tmp_path / "made" / "lm").stat().st_size
    assert ngram.load(tmp_path / "made" / "lm").characters == "abcd"
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty.txt").write_text("\n\n")
    for arguments, message in (
        (("--corpus=latin1.txt", "--output=lm"), "--corpus=latin1.txt: not UTF-8 at byte 3"),
        (("--corpus=empty.txt", "--output=lm"), "--corpus: has no text"),
        (("--corpus=none.txt", "--output=lm"), "--corpus=none.txt: No such file or directory"),
        (("--corpus=one.txt", "--output=made"), "--output=made: a folder, must be a file"),
        (("--corpus=one.txt", "--output=lm", "--order=6"), "--order=6: must be 2 to 5"),
        (("--corpus=one.txt",), "--output: has to be given"),
    ):
        done = invoke("ocr_lm", *arguments)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"error: {message}")
    assert not (tmp_path / "lm").exists()
