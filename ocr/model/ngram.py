"""A language model: the probability of a character after the few before it, as a table of n-grams with backoff.

A line of an image may begin and end anywhere in a text. So the first character follows nothing, as if nothing were known of
what is before it, and the end has no probability.
"""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np

from tfrecords import files
from tfrecords.errors import InputError, IntegrityError

ORDERS = (2, 5)  # smallest and largest
MAX_BYTES = 4_000_000  # of a file
NGRAM_BYTES = 12  # of an n-gram in it
_FORMAT = "line-ocr n-gram 1"


@dataclasses.dataclass(frozen=True)
class NGram:
    """An n-gram model in the form that ARPA files have.

    The probability of an n-gram that is not listed is that of the n-gram without its first character, times the backoff
    weight of its context, which is the n-gram without its last.

    Characters are numbered from 1; 0 stands for all that are not in the corpus. An n-gram's key has its characters' numbers
    as digits in base V + 1, so keys of different lengths differ. A context that begins with a 0 is a shorter one.

    Attributes:
      characters: the V characters of the corpus.
      order: length of the longest n-grams.
      keys: int64[M], ascending. The first is 0, the n-gram of a character that is not in the corpus.
      log_probabilities: float[M], natural logarithms of the probability of each n-gram's last character after the others.
      backoffs: float[M], natural logarithms of the backoff weights of the n-grams as contexts.
    """

    characters: str
    order: int
    keys: np.ndarray
    log_probabilities: np.ndarray
    backoffs: np.ndarray

    @property
    def base(self) -> int:
        """V + 1."""
        return len(self.characters) + 1

    def encode(self, text: str) -> np.ndarray:
        """Returns the number of each character, int64[N]."""
        numbers = {character: number for number, character in enumerate(self.characters, 1)}
        return np.array([numbers.get(character, 0) for character in text], np.int64)

    def log_probability(self, contexts: np.ndarray, characters: np.ndarray, order: int = 0) -> np.ndarray:
        """Returns the natural logarithm of the probability of characters after their contexts.

        Those that are not in the corpus share one probability; here each has all of it.

        Args:
          contexts: int64, keys of the order - 1 characters in front.
          characters: int64 of the same shape, their numbers.
          order: of the model to use, this one's or a lower one; 0 for this one's.
        """
        place, _ = self._find(characters)
        log_probability = self.log_probabilities[place]
        for length in range(1, order or self.order):
            context = contexts % self.base**length
            place, listed = self._find(context * self.base + characters)
            context_place, has_backoff = self._find(context)
            has_backoff &= context >= self.base ** (length - 1)
            backed_off = log_probability + np.where(has_backoff, self.backoffs[context_place], 0.0)
            log_probability = np.where(listed, self.log_probabilities[place], backed_off)
        return log_probability

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the places of keys in the table, and whether they are there."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return places, self.keys[places] == keys

    def save(self, path: pathlib.Path) -> None:
        """Writes a file: a line of JSON, then the three columns, with logarithms in half precision."""
        columns = [self.keys.astype("<i8"), self.log_probabilities.astype("<f2"), self.backoffs.astype("<f2")]
        table = b"".join(column.tobytes() for column in columns)
        header = {"format": _FORMAT, "order": self.order, "characters": self.characters, "ngrams": len(self.keys)}
        header["sha256"] = _digest(header, table)
        files.write_bytes(path, json.dumps(header, ensure_ascii=False).encode() + b"\n" + table)


def load(path: pathlib.Path) -> NGram:
    """Reads a file that `NGram.save` wrote.

    Raises:
      InputError: it cannot be read, or is not such a file.
      IntegrityError: it is damaged.
    """
    try:
        content = files.read_at_most(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"--lm={path}: {error.strerror}") from error
    line, _, table = content.partition(b"\n")
    try:
        header = json.loads(line)
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise ValueError
    except (ValueError, RecursionError):
        raise InputError(f"--lm={path}: not a file that ocr_lm has written") from None
    try:
        order, characters, count = header["order"], header["characters"], header["ngrams"]
        if header["sha256"] != _digest(header, table) or len(table) != NGRAM_BYTES * count:
            raise ValueError
        keys = np.frombuffer(table, "<i8", count)
        values = np.frombuffer(table, "<f2", 2 * count, offset=8 * count).astype(np.float32).reshape(2, count)
        model = NGram(characters, order, keys, *values)
        if not _is_sound(model):
            raise ValueError
    except (ValueError, LookupError, TypeError):
        raise IntegrityError(f"--lm={path}: damaged; write it again with ocr_lm") from None
    return model


def _is_sound(model: NGram) -> bool:
    """Returns whether a model has what looking up in it relies on, wherever its file is from."""
    if not (isinstance(model.order, int) and ORDERS[0] <= model.order <= ORDERS[1] and isinstance(model.characters, str)):
        return False
    if len(set(model.characters)) != len(model.characters) or model.base**model.order >= 2**63:
        return False
    singles, values = model.keys[: model.base], (model.log_probabilities, model.backoffs)
    is_listed = np.array_equal(singles, np.arange(model.base)) and bool((np.diff(model.keys) > 0).all())
    return is_listed and all(bool(np.isfinite(value).all()) for value in values)


def _digest(header: dict, table: bytes) -> str:
    """Returns the hash of all that a file has beside the hash itself."""
    described = json.dumps([header[name] for name in ("order", "characters", "ngrams")])
    return hashlib.sha256(described.encode() + table).hexdigest()
