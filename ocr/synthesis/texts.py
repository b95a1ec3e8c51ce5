"""Samples texts to draw, each with a font that has all of its characters."""

import re
from collections.abc import Sequence

import numpy as np

from ocr.charset import Charset
from ocr.options import parse_weighted
from ocr.synthesis import shaping
from ocr.synthesis.fonts import Font, MixedFont
from tfrecords import files
from tfrecords.errors import InputError

_MAX_BYTES = 2**40  # bytes of a corpus file
_TRIES = 200  # texts sampled until some font has all of their characters
# Patterns of numbers, dates and codes: # stands for a digit, A and a for a letter, anything else for itself.
_PATTERNS = (
    "# ## ### #### ##### ########### #.# ##.## 0.### -#.# #,### ##,###.## ##% #.#% +## ±#.# ##℃ ×# #/# "
    "#:## ##:##:## 2###-##-## 20##/#/## 20##.##.## 2###年#月##日 ##月##日 ##时##分 第#章 第##条 #、 (#) （#） 【##】 《##》 "
    "No.### ￥#,###.## ￥##.## $##.# ###元 ##万 #.#亿 ##kg #.#cm ##mm ###km ###GB ##MHz #层 ##室 ##号 "
    "###-######## 1########## 400-###-#### A#### A-### AA######## aaaa aaaaaa Aaaaa Aaaaaaa AAA AAAA Aaaa "
    "aaaaaaaa www.aaaaa.com aaaa@aaa.cn a=# a+a=## x²+#x [##] {a} v#.#.# #.##.#.# ##x## #×#=## #># #<# "
    "“##” ‘a’ #~# #—# ##… a_a #*# a/a/aaa.a C:\\aa\\a.aaa &aaaa; #aa !aa ?a "
)


def corpus_runs(path: str, charset: Charset, min_chars: int) -> list[str]:
    """Returns the runs of text in a file that consist of characters of the alphabet only.

    White space is collapsed, and stripped at both ends of a run.

    Args:
      path: path of a UTF-8 text file.
      charset: the alphabet.
      min_chars: the minimum length of a run.

    Raises:
      InputError: the file cannot be read, or has no such run.
    """
    known = set(charset.characters)
    try:
        text = files.read_at_most(path, _MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"--corpus={path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--corpus={path}: not UTF-8 at byte {error.start}") from error
    runs = []
    for line in text.splitlines():
        separated = "".join(c if c in known else "\n" for c in line)
        runs += [run for run in map(_collapse, separated.split("\n")) if len(run) >= min_chars]
    if not runs:
        raise InputError(f"--corpus={path}: has no run of {min_chars} characters of the charset")
    shaping.check_drawable(f"--corpus={path}", runs)
    return runs


def _collapse(text: str) -> str:
    """Strips white space at both ends and marks before the first letter; reduces other white space to its first character."""
    text = re.sub(r"(\s)\s+", r"\1", text).strip()
    while text and not shaping.may_follow(text[0], ""):
        text = text[1:].lstrip()
    return text


class _Corpus:
    """Samples parts of running text; every position is equally likely."""

    def __init__(self, path: str, charset: Charset, min_chars: int):
        self.runs = corpus_runs(path, charset, min_chars)
        self._ends = np.cumsum([len(run) - min_chars + 1 for run in self.runs])

    def draw(self, rng: np.random.Generator, length: int, _: Font) -> str:
        """Samples a text of about `length` characters."""
        position = int(rng.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, position, side="right"))
        run = self.runs[number]
        start = min(position - int(self._ends[number - 1] if number else 0), max(len(run) - length, 0))
        return run[start : start + length].strip()


class _Words:
    """Samples words and concatenates them."""

    def __init__(self, path: str, charset: Charset):
        self._words = corpus_runs(path, charset, 1)

    def draw(self, rng: np.random.Generator, length: int, _: Font) -> str:
        """Samples a text of about `length` characters."""
        text = ""
        while len(text) < length:
            text += self._words[rng.integers(len(self._words))]
        return text[:length].strip()


class _Numbers:
    """Samples numbers, dates, amounts and codes, and concatenates them."""

    def __init__(self, charset: Charset):
        known = set(charset.characters)
        self._digits, self._lower, self._upper = (
            [c for c in alphabet if c in known]
            for alphabet in ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        )
        places = {"#": self._digits, "a": self._lower, "A": self._upper}
        self._patterns = [p for p in _PATTERNS.split() if all(places.get(c, c in known) for c in p)]
        self._between = ["", *(c for c in " ，," if c in known)]
        if not self._patterns:
            raise InputError("--numbers: none of them can be written with the charset")

    def draw(self, rng: np.random.Generator, length: int, _: Font) -> str:
        """Samples a text of about `length` characters."""
        text = ""
        while len(text) < length:
            if text:
                text += self._between[rng.integers(len(self._between))]
            pattern = self._patterns[rng.integers(len(self._patterns))]
            text += "".join(self._fill(rng, c) for c in pattern)
        return text[:length].strip()

    def _fill(self, rng: np.random.Generator, place: str) -> str:
        letters = {"#": self._digits, "a": self._lower, "A": self._upper}.get(place)
        return letters[rng.integers(len(letters))] if letters else place


class _Random:
    """Samples characters uniformly from those that the font has, without spaces at an end or next to each other."""

    def __init__(self, charset: Charset):
        self._letters = list(dict.fromkeys(charset.characters))

    def draw(self, rng: np.random.Generator, length: int, font: Font) -> str:
        """Samples a text of about `length` characters."""
        text = ""
        for _ in range(_TRIES * length):
            letter = self._letters[rng.integers(len(self._letters))]
            at_an_end = len(text) in (0, length - 1)
            if not font.has(letter) or (letter.isspace() and (at_an_end or text[-1].isspace())):
                continue
            if shaping.may_follow(letter, text):
                text += letter
                if len(text) == length:
                    break
        return text


class Texts:
    """Samples texts, each with a font that has all of its characters.

    Args:
      charset: the alphabet.
      fonts: the fonts to choose from, by their weights.
      corpus: files of running text, `FILE` or `FILE:WEIGHT`; a weight is 1 by default.
      words: files with one word on each line, likewise.
      numbers: weight of numbers, dates, amounts and codes.
      random: weight of random characters; without any other source, all texts are random.
      latin: probability that ASCII characters have a different font.
      min_chars: minimum length of a text.
      max_chars: maximum length of a text.

    Attributes:
      undrawable: the number of characters of the alphabet that no font has, if random characters are sampled.

    Raises:
      InputError: a file cannot be used, no font has a character of the alphabet, or Pillow cannot draw its script.
    """

    def __init__(
        self,
        charset: Charset,
        fonts: Sequence[Font],
        corpus: Sequence[str] = (),
        words: Sequence[str] = (),
        numbers: float = 0.0,
        random: float = 0.0,
        latin: float = 0.0,
        min_chars: int = 1,
        max_chars: int = 10,
    ):
        self._fonts, self._latin, self._min_chars, self._max_chars = fonts, latin, min_chars, max_chars
        self.undrawable = 0
        self._font_bounds = _cumulative([font.weight for font in fonts])
        sources: list[tuple[_Corpus | _Words | _Numbers | _Random, float]] = []
        for item in corpus:
            path, weight = parse_weighted(item)
            sources.append((_Corpus(path, charset, min_chars), 1.0 if weight is None else weight))
        for item in words:
            path, weight = parse_weighted(item)
            sources.append((_Words(path, charset), 1.0 if weight is None else weight))
        if numbers:
            sources.append((_Numbers(charset), numbers))
        if random or not sources:
            sources.append((_Random(charset), random or 1.0))
            drawable = [c for c in dict.fromkeys(charset.characters) if any(font.has(c) for font in fonts)]
            if not any(not c.isspace() for c in drawable):
                raise InputError("--fonts: none of the fonts has a character of the charset")
            shaping.check_drawable("--charset", drawable)
            self.undrawable = len(set(charset.characters)) - len(drawable)
        self._sources = [source for source, _ in sources]
        self._source_bounds = _cumulative([weight for _, weight in sources])

    def draw(self, rng: np.random.Generator) -> tuple[str, Font | MixedFont]:
        """Samples a text and its font.

        Raises:
          InputError: no font had all characters of any of the texts that were tried.
        """
        text = ""
        for _ in range(_TRIES):
            length = int(rng.integers(self._min_chars, self._max_chars, endpoint=True))
            source = self._sources[int(np.searchsorted(self._source_bounds, rng.random(), side="right"))]
            font = self._any_font(rng)
            text = source.draw(rng, length, font)
            if len(text) < self._min_chars or not shaping.may_follow(text[0], ""):
                continue
            if fitting := self._font_for(text, font, rng):
                return text, self._maybe_mixed(text, fitting, rng)
        raise InputError(f"--fonts: no font has every character of {text!r}, nor of {_TRIES - 1} other texts")

    @property
    def lines(self) -> list[str]:
        """The runs of all corpora, in order."""
        return [run for source in self._sources if isinstance(source, _Corpus) for run in source.runs]

    def with_font(self, text: str, rng: np.random.Generator) -> tuple[str, Font | MixedFont]:
        """Returns a given text with a font that has all of its characters.

        Raises:
          InputError: there is no such font.
        """
        if not (font := self._font_for(text, self._any_font(rng), rng)):
            raise InputError(f"--fonts: no font has every character of {text!r}")
        return text, self._maybe_mixed(text, font, rng)

    def _maybe_mixed(self, text: str, font: Font, rng: np.random.Generator) -> Font | MixedFont:
        """Returns the font, or with probability `latin` a mix of it with another one for ASCII characters."""
        ascii_only = [character for character in text if character.isascii()]
        if shaping.is_needed(text):
            return font
        if ascii_only and rng.random() < self._latin and all(map((other := self._any_font(rng)).has, ascii_only)):
            return MixedFont(font, other)
        return font

    def _any_font(self, rng: np.random.Generator) -> Font:
        return self._fonts[int(np.searchsorted(self._font_bounds, rng.random(), side="right"))]

    def _font_for(self, text: str, font: Font, rng: np.random.Generator) -> Font | None:
        """Returns the font if it has all characters of the text, else a random one that does, else None."""
        if all(map(font.has, text)):
            return font
        probabilities = np.diff(self._font_bounds, prepend=0.0)
        for number in rng.choice(len(self._fonts), len(self._fonts), replace=False, p=probabilities):
            if all(map(self._fonts[number].has, text)):
                return self._fonts[number]
        return None


def _cumulative(weights: Sequence[float]) -> np.ndarray:
    """Returns the cumulative distribution of weights, float64[len(weights)], ending at exactly 1."""
    ends = np.cumsum(np.asarray(weights, np.float64))
    ends /= ends[-1]
    ends[-1] = 1.0
    return ends
