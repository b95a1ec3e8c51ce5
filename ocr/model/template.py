r"""Patterns of texts, such as `9999-99-99`, parsed in the graph.

A pattern is a name of `NAMES`, or a template, whose characters stand for themselves except:

  9   any of the digits 0 to 9
  A   any of the letters A to Z
  a   any of the letters a to z
  +   after a character: one or more of these; once in a template
  \   before a character: that character itself

So each text fits a template in one way at most, and sums over texts are sums over the paths through a template.
"""

import string
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ocr.charset import Charset

CLASSES = {"9": string.digits, "A": string.ascii_uppercase, "a": string.ascii_lowercase}
_GROUPED = ("9,999", "99,999", "999,999", "9,999,999", "99,999,999", "999,999,999")
NAMES = {  # no text fits two templates of a name
    "digits": ("9+",),
    "date": (
        *("9999-99-99", "9999/99/99", "9999.99.99", "99-99-9999", "99/99/9999", "99.99.9999"),
        *("9999年99月99日", "9999年99月9日", "9999年9月99日", "9999年9月9日"),
    ),
    "amount": tuple(whole + cents for whole in ("9+", *_GROUPED) for cents in ("", ".99")),
}
MAX_LENGTH = 64  # characters of a text that fits, each + counted as one
_MARK = "\x01"  # stands before a character that was escaped
_MAX_BYTES = 5 * MAX_LENGTH + 1  # a backslash and up to 4 bytes a character, and a +
_RULES = (  # by number; the last that is broken is reported
    "",
    "the model's alphabet lacks a character of it",
    "+ must follow a character, and only once",
    "a backslash at its end escapes nothing",
    f"it must have 1 to {MAX_LENGTH} characters, none of them a control character",
)


class Chains(NamedTuple):
    """R templates of P places, each filled with one of U symbols.

    Attributes:
      row: int32[R], the pattern that a template is of, ascending.
      symbols: int32[R, U], classes; no two of a template are the same, -1 is none.
      member: bool[R, P, U], which symbols fit in a place.
      repeat: bool[R, P], whether one or more characters fill a place.
      lengths: int32[R], the places of each template.
    """

    row: tf.Tensor
    symbols: tf.Tensor
    member: tf.Tensor
    repeat: tf.Tensor
    lengths: tf.Tensor


def parse(pattern: tf.Tensor, charset: Charset) -> tuple[Chains, tf.Tensor]:
    """Parses patterns.

    Args:
      pattern: string[B], UTF-8; empty for none.
      charset: the alphabet of the classes.

    Returns:
      The templates, none for a row without a pattern or with one that is refused; and string[B], which rule a pattern breaks,
      empty if none.
    """
    count = tf.size(pattern)
    too_long = tf.strings.length(pattern) > _MAX_BYTES
    is_name = pattern[:, tf.newaxis] == tf.constant([*NAMES])
    named = tf.reduce_any(is_name, axis=1)
    name = tf.argmax(is_name, axis=1, output_type=tf.int32)
    of_names = np.array([len(templates) for templates in NAMES.values()], np.int32)
    # Each name is replaced by its templates.
    numbers = tf.where(named, tf.gather(of_names, name), tf.cast(pattern != "", tf.int32))
    row = tf.repeat(tf.range(count), numbers)
    place = tf.gather(
        tf.gather(np.cumsum(of_names, dtype=np.int32) - of_names, name) - tf.cumsum(numbers, exclusive=True), row
    ) + tf.range(tf.size(row))
    known = [template for templates in NAMES.values() for template in templates]
    own = tf.gather(tf.where(too_long, _MARK, pattern), row)
    from_name = tf.gather(named, row)
    templates = tf.where(from_name, tf.gather(known, tf.where(from_name, place, 0)), own)
    codes, repeat, lengths, broken = _elements(templates)
    # The alphabet may lack what only some templates of a name need.
    unknown = tf.reduce_any((codes > 0) & (charset.classes_graph(codes) < 0), axis=1)
    unknown &= ~from_name
    broken = tf.maximum(broken, tf.cast(unknown, tf.int32))
    rule = tf.math.unsorted_segment_max(broken, row, count)
    shown = tf.strings.substr(tf.strings.unicode_transcode(pattern, "UTF-8", "UTF-8"), 0, MAX_LENGTH, "UTF8_CHAR")
    reason = tf.strings.join(["pattern ", shown, ": ", tf.gather(_RULES, tf.maximum(rule, 0))])
    fine = tf.gather(rule, row) == 0
    row, codes, repeat, lengths = (tf.boolean_mask(value, fine) for value in (row, codes, repeat, lengths))
    return _chains(row, codes, repeat, lengths, charset), tf.where(rule > 0, reason, "")


def _elements(templates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Splits templates into their places.

    Args:
      templates: string[R].

    Returns:
      int32[R, P], the code point in each place, or -1, -2, -3 for `CLASSES`, padded with 0; bool[R, P], whether it repeats;
      int32[R], the number of places; and int32[R], the number of the rule that is broken, or 0.
    """
    templates = tf.strings.unicode_transcode(templates, "UTF-8", "UTF-8")
    controls = tf.strings.regex_full_match(templates, r"(?s).*[\x00-\x1f\x7f].*")
    marked = tf.strings.regex_replace(templates, r"\\(.)", _MARK + r"\1")
    points = tf.strings.unicode_decode(marked, "UTF-8").to_tensor(0)
    literal = tf.pad(points[:, :-1] == ord(_MARK), [[0, 0], [1, 0]])[:, : tf.shape(points)[1]]
    plus = (points == ord("+")) & ~literal
    element = (points != 0) & (points != ord(_MARK)) & ~plus
    codes = points
    for number, name in enumerate(CLASSES, 1):
        codes = tf.where((points == ord(name)) & ~literal, -number, codes)
    follows = tf.pad(plus[:, 1:], [[0, 0], [0, 1]])[:, : tf.shape(points)[1]]
    lengths = tf.reduce_sum(tf.cast(element, tf.int32), axis=1)
    number_of_plus = tf.reduce_sum(tf.cast(plus, tf.int32), axis=1)
    misplaced = tf.reduce_sum(tf.cast(follows & element, tf.int32), axis=1) != number_of_plus
    broken = tf.where(misplaced | (number_of_plus > 1), 2, 0)
    broken = tf.where(tf.reduce_any((points == ord("\\")) & ~literal, axis=1), 3, broken)
    broken = tf.where(controls | (lengths < 1) | (lengths > MAX_LENGTH), 4, broken)

    def compacted(values: tf.Tensor) -> tf.Tensor:
        rows = tf.RaggedTensor.from_row_lengths(tf.boolean_mask(values, element), lengths, validate=False)
        return rows.to_tensor()

    return compacted(codes), compacted(follows), lengths, broken


def _chains(row: tf.Tensor, codes: tf.Tensor, repeat: tf.Tensor, lengths: tf.Tensor, charset: Charset) -> Chains:
    """Finds the symbols of templates: the members of the classes that any uses, and a template's own characters."""
    members = [(ord(character), -number) for number, name in enumerate(CLASSES, 1) for character in CLASSES[name]]
    points, classes = (tf.constant(values) for values in zip(*members, strict=True))
    used = tf.reduce_any(tf.reshape(codes, [-1, 1]) == classes, axis=0)
    points, classes = tf.boolean_mask(points, used), tf.boolean_mask(classes, used)
    count, places = tf.unstack(tf.shape(codes))
    shared = tf.broadcast_to(points, [count, tf.size(points)])
    symbols = tf.concat([shared, tf.maximum(codes, 0)], axis=1)  # [R, U]
    # A character is the first of the symbols that are the same, so that equal neighbours are recognised.
    same = tf.pad(symbols[:, tf.newaxis] == codes[:, :, tf.newaxis], [[0, 0], [0, 0], [0, 1]])  # there may be no symbol
    place = tf.argmax(same, axis=2, output_type=tf.int32)
    member = tf.one_hot(place, tf.shape(symbols)[1], True, False) & (codes > 0)[:, :, tf.newaxis]
    own = tf.zeros([count, places, places], tf.bool)
    member |= tf.concat([codes[:, :, tf.newaxis] == classes, own], axis=2)
    taken = tf.reduce_any(member, axis=1)
    return Chains(row, tf.where(taken, charset.classes_graph(symbols), -1), member, repeat, lengths)
