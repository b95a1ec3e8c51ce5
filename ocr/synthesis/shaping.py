"""Scripts whose letters join, change places or run from right to left: Raqm draws them, or nobody does.

Pillow has Raqm where the system has FriBiDi. It is given whole texts, in the order in which they are read.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable

from PIL import features

from tfrecords.errors import InputError

# From left to right; of other scripts of this kind the marks tell. Scripts from right to left are told by their direction.
_SCRIPTS = re.compile(
    "DEVANAGARI|BENGALI|GURMUKHI|GUJARATI|ORIYA|TAMIL|TELUGU|KANNADA|MALAYALAM|SINHALA|THAI|LAO|TIBETAN|MYANMAR|KHMER|"
    "MONGOLIAN|BALINESE|JAVANESE"
)


@functools.cache
def script(character: str) -> str:
    """Returns the name of the script of a character if it cannot be drawn by itself, else an empty text."""
    name = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if _SCRIPTS.fullmatch(name) or unicodedata.bidirectional(character) in ("R", "AL", "AN"):
        return name.title()
    if "\u1100" <= character <= "\u11ff":
        return "Hangul in single jamo"
    return "combining marks" if category.startswith("M") else ""


def is_needed(text: str) -> bool:
    """Says whether a text has characters that cannot be drawn one by one."""
    return not text.isascii() and any(map(script, text))


def may_follow(character: str, text: str) -> bool:
    """Says whether a character may come after a text: a mark needs a letter of its script before it."""
    if not unicodedata.category(character).startswith("M"):
        return True
    return bool(text) and text[-1].isalpha() and script(character) in (script(text[-1]), "combining marks")


def check_drawable(source: str, texts: Iterable[str]) -> None:
    """Checks that texts can be drawn.

    Args:
      source: of the texts, for the message.
      texts: the texts.

    Raises:
      InputError: they have a script that Pillow cannot draw here.
    """
    if features.check("raqm"):
        return
    for character in dict.fromkeys(c for text in texts if not text.isascii() for c in text):
        if name := script(character):
            raise InputError(
                f"{source}: {name}, such as {character!r} (U+{ord(character):04X}), can only be drawn if Pillow has Raqm: "
                "install FriBiDi (on Debian and Ubuntu libfribidi0), or leave these characters out"
            )
