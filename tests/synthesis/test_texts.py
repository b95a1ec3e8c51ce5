import pathlib
from collections import Counter

import numpy as np
import pytest

from ocr.charset import BUILT_IN, Charset
from ocr.synthesis import fonts, texts
from tfrecords.errors import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def drawn(rng: np.random.Generator, count: int = 400, charset: str = "ascii", **given) -> list[str]:
    source = texts.Texts(Charset(BUILT_IN[charset]), fonts.open_fonts(()), **given)
    return [source.draw(rng)[0] for _ in range(count)]


def written(path: pathlib.Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


def test_sources_are_sampled_by_their_weights(tmp_path: pathlib.Path, rng):
    corpus = written(tmp_path / "corpus.txt", "a" * 100)
    words = written(tmp_path / "words.txt", "b\nbb\nbbb\n")
    first = Counter(text[0] for text in drawn(rng, 2000, corpus=[f"{corpus}:6"], words=[f"{words}:3"], random=1, min_chars=3))
    assert first["a"] / 2000 == pytest.approx(0.6, abs=0.05)
    assert first["b"] / 2000 == pytest.approx(0.3, abs=0.05)
    assert len(first) > 50  # of random characters


def test_every_position_of_a_corpus_is_equally_likely(tmp_path: pathlib.Path, rng):
    corpus = written(tmp_path / "corpus.txt", "xy\n" + "ab" * 200 + "\n")
    assert sum("x" in text for text in drawn(rng, 1000, corpus=[corpus], min_chars=2, max_chars=2)) < 15


def test_all_words_but_the_last_are_complete(tmp_path: pathlib.Path, rng):
    words = written(tmp_path / "words.txt", "cat\ndog\n")
    for text in drawn(rng, words=[words], min_chars=4, max_chars=9):
        assert 4 <= len(text) <= 9
        assert all("cat".startswith(w) or "dog".startswith(w) for w in (text[i : i + 3] for i in range(0, len(text), 3)))


def test_numbers_are_of_many_kinds_and_use_the_charset_only(rng):
    numbers = drawn(rng, numbers=1, min_chars=3, max_chars=8)
    assert any("%" in text for text in numbers)
    assert any(text.isdigit() for text in numbers)
    assert all(3 <= len(text) <= 8 and set(text) <= set(BUILT_IN["ascii"]) for text in numbers)
    assert set("".join(drawn(rng, charset="digits", numbers=1))) == set("0123456789")


def test_random_texts_cover_the_whole_charset(rng):
    assert set("".join(drawn(rng, charset="alnum"))) == set(BUILT_IN["alnum"])


def test_fonts_are_chosen_by_their_weights(rng):
    both = [fonts.Font("", weight=3.0), fonts.Font("")]
    source = texts.Texts(Charset(BUILT_IN["digits"]), both)
    share = np.mean([source.draw(rng)[1] is both[0] for _ in range(1000)])
    assert share == pytest.approx(0.75, abs=0.05)


def test_ascii_characters_have_another_font_with_the_given_probability(rng):
    both = [fonts.Font(""), fonts.Font("")]
    source = texts.Texts(Charset("ab\u00e9"), both, latin=0.5, min_chars=4)
    drawn = [source.draw(rng)[1] for _ in range(400)]
    assert np.mean([isinstance(font, fonts.MixedFont) for font in drawn]) == pytest.approx(0.5, abs=0.08)
    mixed = fonts.MixedFont(*both)
    assert mixed.glyph("a", 20) is both[1].glyph("a", 20)
    assert mixed.glyph("\u00e9", 20) is both[0].glyph("\u00e9", 20)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"corpus": ["{here}/corpus.txt:zero"]}, "the weight 'zero' must be a number"),
        ({"words": ["{here}/none.txt"]}, "none.txt: No such file"),
        ({"charset": "greek", "numbers": 1.0}, "--numbers: none of them can be written with the charset"),
    ],
)
def test_an_invalid_source_is_named(tmp_path: pathlib.Path, given: dict, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(BUILT_IN, "greek", "αβγ")
    given = {
        key: [item.replace("{here}", str(tmp_path)) for item in value] if isinstance(value, list) else value
        for key, value in given.items()
    }
    with pytest.raises(InputError, match=message):
        drawn(np.random.default_rng(0), **given)
