"""Estimates an n-gram model from text: counts, absolute discounting, pruning to the size that a file may have."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ocr.model import ngram
from ocr.model.ngram import NGram
from tfrecords.errors import InputError

_MIN_COUNT = 2  # occurrences of an n-gram of more than two characters
_DISCOUNTS = (0.1, 0.9)  # in a small text the numbers of n-grams say little
_TINY = 1e-12  # probability
_HEADER_BYTES = 500  # of a file, beside the characters


class _Level(NamedTuple):
    """The n-grams of one length, in the order of their keys.

    Attributes:
      keys: int64[M].
      counts: int64[M].
      probabilities: float64[M], of the last character after the others.
      weights: float64[M], how much each changes the log-likelihood of its occurrences, compared with the n-gram without its
        first character.
    """

    keys: np.ndarray
    counts: np.ndarray
    probabilities: np.ndarray
    weights: np.ndarray


def estimate(lines: Iterable[str], order: int, max_bytes: int = ngram.MAX_BYTES) -> NGram:
    """Estimates a model.

    Probabilities are interpolated with absolute discounting (Ney, Essen and Kneser, 1994, "On Structuring Probabilistic
    Dependences in Stochastic Language Modelling"); the discount of each length is n1 / (n1 + 2 n2), but 0.1 to 0.9, with the
    numbers of n-grams seen once and twice. What is discounted from single characters is the probability of all others together.

    Of the n-grams those stay that change most: count times log-likelihood ratio to the shorter context (Seymore and Rosenfeld,
    1996, "Scalable Backoff Language Models"). So do their contexts; three and more characters that are seen once do not.
    Backoff weights make the probabilities after each context sum to 1 again.

    Args:
      lines: texts without line ends. No n-gram reaches from one to the next.
      order: length of the longest n-grams.
      max_bytes: size of the file.

    Raises:
      InputError: there is no text, or there are too many different characters for this order.
    """
    codes = np.frombuffer("\n".join(lines).encode("utf-32-le"), "<u4")
    distinct = np.unique(codes[codes != ord("\n")])
    if not distinct.size:
        raise InputError("--corpus: has no text")
    base = len(distinct) + 1
    if base**order >= 2**63:
        most = int(63 / math.log2(base))
        raise InputError(f"--order={order}: must be at most {most} for the corpus, which has {len(distinct)} characters")
    numbers = np.where(codes == ord("\n"), 0, np.searchsorted(distinct, codes) + 1).astype(np.int64)
    levels, unknown = _levels(numbers, base, order)
    characters = "".join(map(chr, distinct))
    most = (max_bytes - _HEADER_BYTES - len(characters.encode())) // ngram.NGRAM_BYTES
    return _with_backoffs(characters, _pruned(levels, most - 1), unknown)


def _levels(numbers: np.ndarray, base: int, order: int) -> tuple[list[_Level], float]:
    """Returns the n-grams of each length, and the probability of a character that is not in the corpus."""
    levels: list[_Level] = []
    unknown, windows, within = 1.0, np.zeros(len(numbers) + 1, np.int64), np.ones(len(numbers) + 1, bool)
    for length in range(1, order + 1):
        windows, within = windows[:-1] * base + numbers[length - 1 :], within[:-1] & (numbers[length - 1 :] > 0)
        keys, counts = np.unique(windows[within], return_counts=True)
        once, twice = ((counts == times).sum() for times in (1, 2))
        discount = np.clip(once / max(once + 2 * twice, 1), *_DISCOUNTS)
        _, context = np.unique(keys // base, return_inverse=True)
        total, kinds = np.bincount(context, counts), np.bincount(context)
        discounted = (counts - discount) / total[context]
        if length == 1:
            unknown = float(discount * len(keys) / total[0])
            levels.append(_Level(keys, counts, discounted, np.full(len(keys), np.inf)))
            continue
        # All that an n-gram ends with has occurred as well.
        shorter = levels[-1].probabilities[np.searchsorted(levels[-1].keys, keys % base ** (length - 1))]
        probabilities = discounted + (discount * kinds / total)[context] * shorter
        weights = (counts - discount) * np.abs(np.log(probabilities / shorter))
        weights[counts < _MIN_COUNT if length > 2 else np.zeros(len(keys), bool)] = -np.inf
        levels.append(_Level(keys, counts, probabilities, weights))
    return levels, unknown


def _pruned(levels: Sequence[_Level], most: int) -> list[_Level]:
    """Returns the n-grams of the highest weights, at most so many; all single characters are among them."""
    base = len(levels[0].keys) + 1
    for context, level in reversed(list(itertools.pairwise(levels))):
        # A context stays with any n-gram that needs its backoff weight.
        np.maximum.at(context.weights, np.searchsorted(context.keys, level.keys // base), level.weights)
    weights = np.concatenate([level.weights for level in levels])
    least = np.partition(weights, -most)[-most] if len(weights) > most else 0.0
    kept = [level.weights > max(least, 0.0) for level in levels]
    return [_Level(*(column[keep] for column in level)) for level, keep in zip(levels, kept, strict=True)]


def _with_backoffs(characters: str, levels: Sequence[_Level], unknown: float) -> NGram:
    keys = np.concatenate([[0], *(level.keys for level in levels)])
    order = np.argsort(keys)
    probabilities = np.concatenate([[unknown], *(level.probabilities for level in levels)])[order]
    model = NGram(characters, len(levels), keys[order], np.log(probabilities), np.zeros(len(keys)))
    for length, level in enumerate(levels[1:], 2):
        contexts, context = np.unique(level.keys // model.base, return_inverse=True)
        tails, last = level.keys // model.base % model.base ** (length - 2), level.keys % model.base
        shorter = np.exp(model.log_probability(tails, last, length - 1))
        left, needed = (1.0 - np.bincount(context, value) for value in (level.probabilities, shorter))
        # What is left may be rounding alone.
        backoffs = np.log(np.maximum(left, _TINY) / np.maximum(needed, _TINY))
        model.backoffs[np.searchsorted(model.keys, contexts)] = backoffs
    return model
