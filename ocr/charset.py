"""Alphabets: the mapping between characters and classes, in Python and as TensorFlow operations.

The classes of an alphabet of C - 1 characters are 0 to C - 2, in the order of the characters; the CTC blank is always the last
class, C - 1. This module does not import TensorFlow until a method needs it.
"""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
import string
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np

from ocr import pretrained
from tfrecords.errors import InputError, IntegrityError

if TYPE_CHECKING:  # imported by the methods that need it: rendering must not wait for TensorFlow to load
    import tensorflow as tf

PREFIX_OF_CHINESE_OCR = "chinese_ocr:"
CHARSET_HELP = (  # of the flags --charset
    "Alphabet: digits, alnum, ascii, gb2312, pretrained, chinese_ocr:FILE, or a file with one character on each line."
)
_HINTS: dict[Literal["NFC", "NFD", "NFKC"], str] = {
    "NFC": "the text's letters are decomposed (NFD), those of the alphabet are composed (NFC)",
    "NFD": "the text's letters are composed (NFC), those of the alphabet are decomposed (NFD)",
    "NFKC": "the alphabet has other forms of these characters, those of NFKC",
}
_MAX_CLUSTER = 8  # characters that may look like one
# White space, all of which is below U+3001, and what has no width: zero width space, word joiner, byte order mark.
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u2060\ufeff"


@dataclasses.dataclass(frozen=True)
class Charset:
    """An alphabet.

    A character is one Unicode code point. Nothing is normalised, and a space is a character.

    Attributes:
      characters: the characters in the order of their classes. If a character occurs twice, both classes decode to it and it
        is encoded as the first.

    Raises:
      InputError: there are no characters, or one cannot be written to a charset file: a line end or a surrogate.
    """

    characters: str

    def __post_init__(self) -> None:
        if not self.characters:
            raise InputError("charset: has no characters")
        if unwritable := [c for c in self.characters if c in "\r\n" or 0xD800 <= ord(c) < 0xE000]:
            raise InputError(f"charset: {describe(unwritable[0])} cannot be a character; a charset file has one on each line")

    @property
    def blank(self) -> int:
        """The class of the CTC blank, C - 1, which equals the number of characters."""
        return len(self.characters)

    @property
    def num_classes(self) -> int:
        """The number of classes C, the blank included."""
        return len(self.characters) + 1

    @property
    def fingerprint(self) -> str:
        """The SHA-256 hash of the characters in order, encoded in UTF-8, as 64 hexadecimal digits."""
        return hashlib.sha256(self.characters.encode("utf-8")).hexdigest()

    @functools.cached_property
    def _classes(self) -> dict[str, int]:
        return {c: i for i, c in reversed(list(enumerate(self.characters)))}

    def missing(self, text: Iterable[str]) -> str:
        """Returns the characters of `text` that are not in the alphabet, each once, in order of appearance."""
        if self._classes.keys() >= set(text):
            return ""
        return "".join(dict.fromkeys(c for c in text if c not in self._classes))

    def describe_missing(self, text: str) -> str:
        """Describes the characters of `text` that are not in the alphabet, and says what may be wrong with the text."""
        described = describe(self.missing(text))
        for form, hint in _HINTS.items():
            if not self.missing(unicodedata.normalize(form, text)):
                return f"{described}: {hint}"
        if not self.missing(strip_blanks(text)):
            return f"{described}: a blank at an end of the text"
        if (composed := self.missing(unicodedata.normalize("NFC", text))) != self.missing(text):
            return (
                f"{described}: the text's letters are decomposed (NFD); composed (NFC), the alphabet lacks {describe(composed)}"
            )
        return described

    def encode(self, text: str) -> list[int]:
        """Returns the class of each character of `text`.

        Raises:
          InputError: a character is not in the alphabet.
        """
        if self.missing(text):
            raise InputError(f"{text!r}: the alphabet lacks {self.describe_missing(text)}")
        return [self._classes[c] for c in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of a sequence of classes from 0 to C - 2, that is without blanks."""
        return "".join(self.characters[i] for i in ids)

    def encode_graph(self, text: "tf.Tensor") -> "tf.RaggedTensor":
        """Encodes a batch of texts with TensorFlow operations.

        Args:
          text: string[B], UTF-8.

        Returns:
          Ragged int32[B, (N)], the class of each character; -1 for a character that is not in the alphabet.
        """
        import tensorflow as tf

        points = tf.strings.unicode_decode(text, "UTF-8")
        return points.with_flat_values(self.classes_graph(points.flat_values))

    def classes_graph(self, points: "tf.Tensor") -> "tf.Tensor":
        """Returns the classes of characters given as code points, int32 of any shape; -1 for one not in the alphabet."""
        import tensorflow as tf

        codes = np.array([ord(c) for c in self._classes], np.int32)
        order = np.argsort(codes)
        keys, classes = codes[order], np.array(list(self._classes.values()), np.int32)[order]
        indices = tf.minimum(tf.searchsorted(keys, tf.reshape(points, [-1])), len(keys) - 1)
        found = tf.where(tf.gather(keys, indices) == tf.reshape(points, [-1]), tf.gather(classes, indices), -1)
        return tf.reshape(found, tf.shape(points))

    def decode_graph(self, ids: "tf.Tensor", lengths: "tf.Tensor") -> "tf.Tensor":
        """Decodes a batch of class sequences with TensorFlow operations.

        Args:
          ids: int32[B, N], classes from 0 to C - 2; entries beyond a line's length are ignored.
          lengths: int32[B], the number of characters of each line.

        Returns:
          string[B, N], one character each, in UTF-8; empty beyond a line's length. Joined along the last axis they give the
          texts.
        """
        import tensorflow as tf

        characters = tf.constant([c.encode("utf-8") for c in self.characters])
        within = tf.sequence_mask(lengths, tf.shape(ids)[1])
        return tf.where(within, tf.gather(characters, tf.where(within, ids, 0)), "")

    def file_text(self) -> str:
        """Returns the content of a charset file: one character on each line."""
        mark = "\ufeff" if self.characters[0] == "\ufeff" else ""  # else the character would be read as a byte order mark
        return mark + "".join(f"{c}\n" for c in self.characters)


def strip_blanks(text: str) -> str:
    """Returns a text without white space and characters of no width at its ends."""
    return text.strip(_BLANKS)


def describe(characters: str, limit: int = 5) -> str:
    """Returns characters with their code points for a message, at most `limit` of them."""
    listed = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in characters[:limit])
    return listed + (f" and {len(characters) - limit} more" if len(characters) > limit else "")


def _gb2312() -> str:
    rows = [*range(1, 10), *range(16, 88)]
    cells = (bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312", "ignore") for row in rows for cell in range(1, 95))
    # The codec maps the middle dot and the dash to other code points than the usual U+00B7 and U+2014.
    return "".join(dict.fromkeys([*BUILT_IN["ascii"], *cells, *"·–—…‘’“”"]))


BUILT_IN = {
    "digits": string.digits,
    "alnum": string.digits + string.ascii_letters,
    "ascii": "".join(map(chr, range(32, 127))),
}
BUILT_IN["gb2312"] = _gb2312()


def charset_by_name(name: str) -> Charset:
    """Returns the alphabet that a value of `--charset` names.

    Args:
      name: `digits`, `alnum`, `ascii` or `gb2312`; `pretrained` for the alphabet of the model shipped with the package;
        `chinese_ocr:FILE` for an alphabet file of chinese_ocr; or the path of a charset file, which has one character on each
        line, in UTF-8.

    Raises:
      InputError: the name is unknown and is not a file, or the file is not a valid alphabet.
    """
    if name in BUILT_IN:
        return Charset(BUILT_IN[name])
    if name.startswith(PREFIX_OF_CHINESE_OCR):
        # The original skips the first line, a space. Five characters occur twice.
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
    """Reads an alphabet that was saved beside a model or records. Unlike in a user's file, characters may repeat.

    Args:
      path: of the charset file.
      fingerprint: the expected `Charset.fingerprint`.

    Raises:
      InputError: there is no such file, or it is not a valid alphabet.
      IntegrityError: its fingerprint is a different one.
    """
    charset = Charset("".join(_lines(path)))
    check_same(charset.fingerprint, str(path), fingerprint, "what was saved with it")
    return charset


def check_same(one: str, where: str, other: str, elsewhere: str) -> None:
    """Checks that two fingerprints are the same.

    Args:
      one: a fingerprint.
      where: what has it, for the message.
      other: another fingerprint.
      elsewhere: what has that.

    Raises:
      IntegrityError: they differ.
    """
    if one != other:
        raise IntegrityError(f"alphabet of {where} ({one[:12]}) is not that of {elsewhere} ({other[:12]})")


def _lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of a charset file, one character each."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if len(line) != 1:
            raise InputError(f"{path}: line {number} {_explain(line)}")
    return lines


def _explain(line: str) -> str:
    """Says why a line of a charset file is not one character, and what to do."""
    rule = "each line must be one character"
    shown = f"is {line[:20]!r}"
    if len(composed := unicodedata.normalize("NFC", line)) == 1:
        return f"{shown}, decomposed into {describe(line)}; {rule}: write {describe(composed)}, the composed form (NFC)"
    if len(strip_blanks(line)) == 1:
        return f"{shown}, a character with a blank beside it; {rule}"
    if not line.isascii() and len(line) <= _MAX_CLUSTER:
        return f"{shown}, which is {len(line)} characters: {describe(line, len(line))}; {rule}"
    return f"{shown}; {rule}"


def repeats(text: str) -> int:
    """Returns how many characters equal their predecessor; CTC needs a blank frame between such two."""
    return sum(a == b for a, b in itertools.pairwise(text))


def frames_needed(text: str) -> int:
    """Returns how many frames CTC needs for a text: one a character, and one for a blank between equal neighbours."""
    return len(text) + repeats(text)
