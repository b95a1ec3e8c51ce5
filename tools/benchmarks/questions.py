"""Measures what it is worth to ask a model more than for the text: lines read with and without what is known about them."""

import functools
import math
import pathlib
import string
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.evaluation import audit
from ocr.evaluation.metrics import LineResult
from ocr.serving import saved_model
from ocr.serving.questions import Score
from ocr.serving.saved_model import Export
from ocr.synthesis import drawing, styles
from ocr.synthesis.fonts import Font, open_fonts
from ocr.synthesis.texts import Texts
from tfrecords import files as tfrecords_files

from .timing import Comparison

_BATCH = 32
_LENGTH = 10  # characters of a line
_NAMES, _ALIKE, _NAME_LENGTH = 100, 4, 3  # names of the list, of which so many differ in one character, and their length
_CELL, _GRID = 64, 16  # pixels of an em in which glyphs are compared, and of the picture that is left of it
_SAME = 0.98  # correlation from which glyphs are the same to the eye
_SHARE, _PRECISION, _DRAWS = 0.03, 0.8, 20  # of wrong labels; down to which a ranking is followed; choices of wrong labels
_DATES = (
    "{y}-{m:02}-{d:02}",
    "{y}/{m:02}/{d:02}",
    "{y}.{m:02}.{d:02}",
    "{d:02}-{m:02}-{y}",
    "{d:02}/{m:02}/{y}",
    "{y}年{m}月{d}日",
)

_Result = TypeVar("_Result")


class _Lines:
    """Draws lines, the same ones for the same seed.

    Args:
      charset: the model's alphabet.
      fonts: to draw with.
      corpus: of the texts; without, they are random letters.

    Attributes:
      letters: hanzi if the fonts have any in the alphabet, those of GB 2312 if there are any; else letters: what can be told
        apart by eye, unlike the dash and 一.
    """

    def __init__(self, charset: Charset, fonts: Sequence[Font], corpus: Sequence[str]):
        drawn = [c for c in dict.fromkeys(charset.characters) if not c.isspace() and any(font.has(c) for font in fonts)]
        hanzi = [c for c in drawn if "一" <= c <= "鿿"]
        common = {*charsets.charset_by_name("gb2312").characters}
        self.letters = [c for c in hanzi if c in common] or hanzi or [c for c in drawn if c.isalpha()] or drawn
        self._drawn, self._fonts = {*drawn}, fonts
        charset = Charset("".join(drawn if corpus else self.letters))
        self._texts = Texts(charset, fonts, corpus, min_chars=_LENGTH, max_chars=_LENGTH)
        self._glyphs = np.stack([self._picture(c) for c in self.letters])

    def can_draw(self, text: str) -> bool:
        return {*text} <= self._drawn and any(all(map(font.has, text)) for font in self._fonts)

    def text(self, rng: np.random.Generator) -> str:
        return self._texts.draw(rng)[0]

    def draw(self, text: str, style: str, rng: np.random.Generator) -> bytes:
        """Returns an image file of a text in its natural width."""
        text, font = self._texts.with_font(text, rng)
        return drawing.draw(text, font, 32, 0, styles.STYLES[style], rng).encoded()

    @functools.cache  # noqa: B019  # an alphabet's glyphs are compared anew for each
    def similar(self, character: str) -> str:
        """Returns the letter whose glyph is most like that of a character, but not the same."""
        likeness = self._glyphs @ self._picture(character)
        likeness[likeness > _SAME] = -1.0
        return self.letters[int(likeness.argmax())]

    def _picture(self, character: str) -> np.ndarray:
        """Returns what is left of a glyph from afar, as a vector of length 1: their product is the correlation of two."""
        glyph = next(font for font in self._fonts if font.has(character)).glyph(character, _CELL)
        canvas = np.zeros((2 * _CELL, 2 * _CELL), np.float32)
        top, left = max(glyph.top + round(1.4 * _CELL), 0), max(glyph.left + _CELL // 2, 0)
        ink = glyph.ink[: 2 * _CELL - top, : 2 * _CELL - left]
        canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
        small = canvas.reshape(2 * _GRID, _CELL // _GRID, 2 * _GRID, _CELL // _GRID).mean((1, 3)).ravel()
        small -= small.mean()
        return small / max(float(np.linalg.norm(small)), 1e-6)


def measure(
    count: int, fonts: Sequence[str] = (), corpus: Sequence[str] = (), model: str = "pretrained", labels: int = 0
) -> Comparison:
    """Asks a model about lines that are drawn for it.

    Args:
      count: the number of lines of each kind.
      fonts: to draw with, as in `render_lines`.
      corpus: files of running text, likewise; without, texts are random letters, hanzi of GB 2312 if the fonts have any.
      model: an export.
      labels: the number of lines with wrong labels among them; 0 for `count`.

    Returns:
      By kind of lines, their number `lines` and these figures. Of texts with one wrong character: the area under the ROC curve
      of log-probability less that of the text read, `auc`, where the character is a `random` one, and a `similar` one. Of
      labels of which 3% have one or two such characters: the `recall` of `ocr_audit` at a precision of 80%, the mean over
      several choices of these labels; and `wrong`, how many lines are read wrongly. Of lines about which something is known:
      how many are `wrong` read freely, and how many with that knowledge.

    Raises:
      InputError: there is no such model, font or file.
    """
    folder = saved_model.newest_version(pathlib.Path(model))
    export = saved_model.load(folder)
    alphabet = tfrecords_files.read_json(folder / "assets.extra" / "model.json", "alphabet")["alphabet"]
    charset = charsets.load_charset(folder / "assets" / "charset.txt", alphabet)
    lines = _Lines(charset, open_fonts(tuple(fonts)), corpus)
    results: Comparison = {}
    for style in ("clean", "hard"):
        results |= _with_wrong_characters(export, lines, count, labels or count, style)
    results |= _of_a_list(export, lines, count)
    dates = [form for form in _DATES if lines.can_draw(form.format(y=1990, m=1, d=1))]
    separators = "".join(sorted({c for form in dates for c in form.format(y=1, m=1, d=1) if not c.isdigit()}))

    def date(rng: np.random.Generator) -> str:
        form = dates[rng.integers(len(dates))]
        return form.format(y=rng.integers(1900, 2100), m=rng.integers(1, 13), d=rng.integers(1, 29))

    def number(rng: np.random.Generator) -> str:
        return "".join(map(str, rng.integers(0, 10, rng.integers(5, 13))))

    if dates:
        results |= _constrained(export, lines, count, "dates", date, string.digits + separators, "date")
    if lines.can_draw(string.digits):
        results |= _constrained(export, lines, count, "numbers", number, string.digits, "digits")
    return results


def _with_wrong_characters(export: Export, lines: _Lines, count: int, labels: int, style: str) -> Comparison:
    rng = np.random.default_rng(1)
    texts = [lines.text(rng) for _ in range(max(count, labels))]
    files = [lines.draw(text, style, rng) for text in texts]
    changed = [_changed(lines, text, rng) for text in texts]
    read = _read(export, files)
    # Of the right text, of two with one wrong character, of the wrong label, and of the text that is read.
    scores = _scores(export, files, [[text, *others, own] for text, others, own in zip(texts, changed, read, strict=True)])
    log_p = np.stack([score.log_probability for score in scores])
    log_read = np.maximum(log_p[:, 4], math.log(1e-300))
    ratio = np.maximum(log_p - log_read[:, np.newaxis], -1e9)[:count]
    aucs = {name: auc(ratio[:, 0], ratio[:, column]) for name, column in (("random", 1), ("similar", 2))}
    recalls = []
    for _ in range(_DRAWS):
        is_wrong = np.zeros(labels, bool)
        is_wrong[rng.choice(labels, max(round(_SHARE * labels), 1), replace=False)] = True
        rows = [
            LineResult("", others[2] if wrong else truth, text, math.exp(log), log_probability=float(p[3 if wrong else 0]))
            for truth, others, text, log, p, wrong in zip(texts, changed, read, log_read, log_p, is_wrong, strict=False)
        ]
        recalls.append(recall(np.nan_to_num(audit.wrong_probabilities(rows)), is_wrong))
    both = {"lines": count, "auc": round((aucs["random"] + aucs["similar"]) / 2, 4)}
    return {
        f"one wrong character, {style}": both | {name: round(value, 4) for name, value in aucs.items()},
        f"wrong labels, {style}": {
            "lines": labels,
            "wrong": _wrong(read[:labels], texts[:labels]),
            "recall": round(float(np.mean(recalls)), 4),
        },
    }


def _changed(lines: _Lines, text: str, rng: np.random.Generator) -> tuple[str, str, str]:
    """Returns a text with a random character in one place, with a similar one there, and with one or two of either kind."""

    def other(character: str) -> str:
        return next(c for c in (lines.letters[rng.integers(len(lines.letters))] for _ in range(99)) if c != character)

    places = rng.permutation(len(text))[: 1 + rng.integers(2)]
    place = int(places[0])
    one = [text[:place] + c + text[place + 1 :] for c in (other(text[place]), lines.similar(text[place]))]
    label = [*text]
    for place in places:
        label[place] = other(text[place]) if rng.random() < 0.5 else lines.similar(text[place])
    return one[0], one[1], "".join(label)


def _of_a_list(export: Export, lines: _Lines, count: int) -> Comparison:
    rng = np.random.default_rng(2)
    letters = lines.letters
    names: dict[str, None] = {}  # in order
    while len(names) < min(_NAMES, len(letters) ** _NAME_LENGTH):
        name = "".join(letters[rng.integers(len(letters))] for _ in range(_NAME_LENGTH))
        alike = (name[:place] + lines.similar(name[place]) + name[place + 1 :] for place in range(_ALIKE - 1))
        names |= dict.fromkeys((name, *alike))
    known = [name for name in names if lines.can_draw(name)][:_NAMES]
    texts = [known[rng.integers(len(known))] for _ in range(count)]
    files = [lines.draw(text, "hard", rng) for text in texts]
    best = [known[score.best] for score in _scores(export, files, [known] * count)]
    wrong = {"wrong": _wrong(_read(export, files), texts), "texts": _wrong(best, texts)}
    return {f"list of {len(known)} names, hard": {"lines": count, **wrong}}


def _constrained(
    export: Export,
    lines: _Lines,
    count: int,
    name: str,
    text: Callable[[np.random.Generator], str],
    allowed: str,
    pattern: str,
) -> Comparison:
    rng = np.random.default_rng(3)
    texts = [text(rng) for _ in range(count)]
    files = [lines.draw(each, "hard", rng) for each in texts]
    wrong = {"wrong": _wrong(_read(export, files), texts)}
    for key, known in (("allowed", {"allowed": allowed}), ("pattern", {"pattern": pattern})):
        read = [t for part in _batches(files) for t in export.constrained([files[n] for n in part], **known)[0]]
        wrong[key] = _wrong(_in_order(read, files), texts)
    return {f"{name}, hard": {"lines": count, **wrong}}


def _batches(files: Sequence[bytes]) -> list[list[int]]:
    """Returns the numbers of files in batches of similar size, which is near to similar width."""
    order = sorted(range(len(files)), key=lambda number: len(files[number]))
    return [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]


def _in_order(results: Sequence[_Result], files: Sequence[bytes]) -> list[_Result]:
    """Returns the results of `_batches` in the order of the files."""
    by_number = dict(zip((number for part in _batches(files) for number in part), results, strict=True))
    return [by_number[number] for number in range(len(files))]


def _read(export: Export, files: Sequence[bytes]) -> list[str]:
    """Returns the texts."""
    return _in_order([text for part in _batches(files) for text in export([files[number] for number in part])[0]], files)


def _scores(export: Export, files: Sequence[bytes], asked: Sequence[Sequence[str]]) -> list[Score]:
    parts = _batches(files)
    return _in_order([s for part in parts for s in export.score([files[n] for n in part], [asked[n] for n in part])], files)


def _wrong(texts: Sequence[str], truths: Sequence[str]) -> int:
    return sum(text != truth for text, truth in zip(texts, truths, strict=True))


def auc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Returns the area under the ROC curve: how often one of `right` is above one of `wrong`; equal ones count half."""
    ordered = np.sort(wrong)
    below, upto = (np.searchsorted(ordered, right, side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(wrong)))


def recall(score: np.ndarray, wrong: np.ndarray) -> float:
    """Returns the share of what is wrong in the longest first part of the ranking that is wrong to `_PRECISION`."""
    hits = np.cumsum(wrong[np.argsort(-score, kind="stable")])
    precise = hits >= _PRECISION * np.arange(1, len(hits) + 1)
    return float(hits[precise].max(initial=0) / wrong.sum())
