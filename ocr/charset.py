"""Alphabets: which character is which class, in Python and in the graph.

Classes count from 0 in the order of the characters; the blank of CTC is always the last class, after them.
"""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
import string
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ocr import pretrained
from tfrecords.errors import InputError, IntegrityError

if TYPE_CHECKING:  # the methods that need it import it: drawing lines must not wait for TensorFlow to start
    import tensorflow as tf

PREFIX_OF_CHINESE_OCR = "chinese_ocr:"


@dataclasses.dataclass(frozen=True)
class Charset:
    """An alphabet. A character is one Unicode code point; none is normalised, and a space counts.

    Attributes:
      characters: one string of them, in the order of their classes. Where a character is in it twice, both classes
        decode to it and it is encoded as the first.
    """

    characters: str

    def __post_init__(self) -> None:
        if not self.characters:
            raise InputError("charset: has no characters")
        if unwritable := [c for c in self.characters if c in "\r\n" or 0xD800 <= ord(c) < 0xE000]:
            raise InputError(f"charset: {describe(unwritable[0])} cannot be a character; a charset file has one a line")

    @property
    def blank(self) -> int:
        """The class of the blank."""
        return len(self.characters)

    @property
    def num_classes(self) -> int:
        """Number of classes, the blank included."""
        return len(self.characters) + 1

    @property
    def fingerprint(self) -> str:
        """sha256 over the characters in order, as 64 hexadecimal digits."""
        return hashlib.sha256(self.characters.encode("utf-8")).hexdigest()

    @functools.cached_property
    def _classes(self) -> dict[str, int]:
        return {c: i for i, c in reversed(list(enumerate(self.characters)))}

    def missing(self, text: Iterable[str]) -> str:
        """Returns the characters of `text` that the alphabet lacks, each once, in order."""
        if self._classes.keys() >= set(text):
            return ""
        return "".join(dict.fromkeys(c for c in text if c not in self._classes))

    def encode(self, text: str) -> list[int]:
        """Returns the class of each character.

        Raises:
          InputError: the alphabet lacks one of them.
        """
        if lacking := self.missing(text):
            raise InputError(f"{text!r}: the alphabet lacks {describe(lacking)}")
        return [self._classes[c] for c in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of the classes, none of which is the blank."""
        return "".join(self.characters[i] for i in ids)

    def encode_graph(self, text: "tf.Tensor") -> "tf.RaggedTensor":
        """Encodes in the graph.

        Args:
          text: string[B], UTF-8.

        Returns:
          Ragged int32[B, (N)]: the classes; -1 for a character that the alphabet lacks.
        """
        import tensorflow as tf

        codes = np.array([ord(c) for c in self._classes], np.int32)
        order = np.argsort(codes)
        keys, classes = codes[order], np.array(list(self._classes.values()), np.int32)[order]

        def look_up(points: "tf.Tensor") -> "tf.Tensor":
            places = tf.minimum(tf.searchsorted(keys, points), len(keys) - 1)
            return tf.where(tf.gather(keys, places) == points, tf.gather(classes, places), -1)

        points = tf.strings.unicode_decode(text, "UTF-8")
        return points.with_flat_values(look_up(points.flat_values))

    def decode_graph(self, ids: "tf.Tensor", lengths: "tf.Tensor") -> "tf.Tensor":
        """Decodes in the graph: their texts joined are the lines'.

        Args:
          ids: int32[B, N], padded with anything.
          lengths: int32[B].

        Returns:
          string[B, N], a character each in UTF-8, padded with empty ones.
        """
        import tensorflow as tf

        characters = tf.constant([c.encode("utf-8") for c in self.characters])
        within = tf.sequence_mask(lengths, tf.shape(ids)[1])
        return tf.where(within, tf.gather(characters, tf.where(within, ids, 0)), "")

    def file_text(self) -> str:
        """Returns the alphabet as the text of a charset file: one character a line."""
        mark = "\ufeff" if self.characters[0] == "\ufeff" else ""  # or it would be taken for one
        return mark + "".join(f"{c}\n" for c in self.characters)


def describe(characters: str, most: int = 5) -> str:
    """Names characters for a message: each with its code point, at most `most` of them."""
    named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in characters[:most])
    return named + (f" and {len(characters) - most} more" if len(characters) > most else "")


def _gb2312() -> str:
    rows = [*range(1, 10), *range(16, 88)]
    cells = (bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312", "ignore") for row in rows for cell in range(1, 95))
    # The codec maps three of these elsewhere: people write the middle dot as U+00B7, the dash as U+2014.
    return "".join(dict.fromkeys([*BUILT_IN["ascii"], *cells, *"·–—…‘’“”"]))


BUILT_IN = {
    "digits": string.digits,
    "alnum": string.digits + string.ascii_letters,
    "ascii": "".join(map(chr, range(32, 127))),
}
BUILT_IN["gb2312"] = _gb2312()


def charset_by_name(name: str) -> Charset:
    """Returns the alphabet that `--charset` names.

    Args:
      name: `digits`, `alnum`, `ascii`, `gb2312`; `pretrained` for that of the model that comes with the package;
        `chinese_ocr:FILE` for the alphabet file of chinese_ocr; or the path of a charset file.

    Raises:
      InputError: no such name or file, or the file is no alphabet.
    """
    if name in BUILT_IN:
        return Charset(BUILT_IN[name])
    if name.startswith(PREFIX_OF_CHINESE_OCR):
        # Its first line, a space, is never used; five characters are in it twice.
        return Charset("".join(_lines(pathlib.Path(name.removeprefix(PREFIX_OF_CHINESE_OCR)))[1:]))
    path = pathlib.Path(name)
    if name == "pretrained":
        (path,) = pretrained.FOLDER.glob("*/assets/charset.txt")
    if not path.is_file():
        names = ", ".join([*BUILT_IN, "pretrained", f"{PREFIX_OF_CHINESE_OCR}FILE"])
        raise InputError(f"--charset={name}: neither a file nor one of {names}")
    characters = _lines(path)
    first: dict[str, int] = {}
    for number, character in enumerate(characters, 1):
        if character in first:
            raise InputError(f"{path}: {describe(character)} is on line {first[character]} and again on line {number}")
        first[character] = number
    return Charset("".join(characters))


def load_charset(path: pathlib.Path, fingerprint: str) -> Charset:
    """Reads an alphabet that this program wrote, in which characters may repeat.

    Raises:
      InputError: no such file, or it is no alphabet.
      IntegrityError: it is not the one with this fingerprint.
    """
    charset = Charset("".join(_lines(path)))
    check_same(charset.fingerprint, str(path), fingerprint, "what was saved with it")
    return charset


def check_same(one: str, where: str, other: str, elsewhere: str) -> None:
    """Compares two fingerprints.

    Raises:
      IntegrityError: they differ; the message names both places.
    """
    if one != other:
        raise IntegrityError(f"alphabet of {where} ({one[:12]}) is not that of {elsewhere} ({other[:12]})")


def _lines(path: pathlib.Path) -> list[str]:
    """Returns a charset file's lines, each one character."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if len(line) != 1:
            raise InputError(f"{path}: line {number} is {line[:20]!r}; each line must be one character")
    return lines


def repeats(text: str) -> int:
    """Returns how many characters equal the one before: CTC needs a blank frame between such two."""
    return sum(a == b for a, b in itertools.pairwise(text))
