"""The two formats of labels files, and how to tell them apart without guessing."""

import logging
import pathlib
import re
from collections.abc import Iterable

from ocr.charset import Charset
from tfrecords.errors import InputError

IDS, TEXT = "ids", "text"
_LOG = logging.getLogger(__name__)
_IDS = re.compile(rb"\s*\S+(\s+-?[0-9]+)+\s*")  # a name, and integers


def choose(path: pathlib.Path, lines: Iterable[tuple[int, bytes]], charset: Charset, integers_are_ids: bool) -> str:
    """Returns the format of a labels file, and logs it with the reason.

    It is `text` if the first line that is not empty has a tab. It is `ids` if no line has a tab and no label could be a text
    as well: there are integers alone, and the alphabet lacks the blanks between them.

    Args:
      path: of the file, for messages.
      lines: the number of each line, and its bytes without its end.
      charset: the alphabet of the labels.
      integers_are_ids: whether integers are never texts, as in the data of chinese_ocr.

    Raises:
      InputError: it could be either, or is neither.
    """
    count = first = ids = 0
    first_line, may_be_text = "", ""
    for number, content in lines:
        if not content:
            continue
        count += 1
        if b"\t" in content:
            if not first:
                _LOG.info("%s: its labels are texts, as line %d has a tab", path, number)
                return TEXT
            raise InputError(
                f"{path}: line {first} has no tab, but line {number} has one: write all as name<TAB>text, or give "
                f"--label_format={TEXT} or {IDS} to reject lines of the other format"
            )
        if not first:
            first, text = number, content.decode("utf-8", "replace")
            first_line = f"line {number} is {text[:40]!r}{_separator_hint(text)}"
        is_ids = bool(_IDS.fullmatch(content))
        ids += is_ids
        if not may_be_text and not (is_ids and integers_are_ids) and _is_text(content, charset):
            what = "could be a text or an id" if is_ids else "has no ids"
            may_be_text = f"line {number}, {content[:40].decode('utf-8', 'replace')!r}, {what}"
    if may_be_text:
        raise InputError(
            f"{path}: none of its {count} lines has a tab, and {may_be_text}: write name<TAB>text, or give "
            f"--label_format={IDS} if the numbers are ids"
        )
    if not ids:
        raise InputError(f"{path}: none of its {count} lines has a tab or ids: write name<TAB>text; {first_line}")
    reason = "chinese_ocr's are" if integers_are_ids else "the alphabet has no blank, so they are no texts"
    _LOG.info("%s: its labels are ids: no line has a tab, they are integers, and %s", path, reason)
    return IDS


def explain_missing_tab(content: str) -> str:
    """Says what a line without a tab looks like instead."""
    return f"no tab in {content[:40]!r}{_separator_hint(content)}"


def _separator_hint(content: str) -> str:
    """Names what stands in a tab's place."""
    if "\0" in content:
        return ", which looks like UTF-16: save the file as UTF-8"
    if content.startswith("{"):
        return ", which looks like JSON"
    if "\\t" in content:
        return ", which has a backslash and a t instead"
    if match := re.search("[,;|]", content):
        return f", which looks like CSV: replace the first {match[0]!r} by a tab"
    return ", where a blank is in its place" if len(content.split()) > 1 else ""


def _is_text(content: bytes, charset: Charset) -> bool:
    """Says whether what comes after the first blank of a line can be written with the alphabet."""
    try:
        label = content.split(None, 1)[1].decode("utf-8").strip()
    except (IndexError, UnicodeDecodeError):
        return False
    return bool(label) and not charset.missing(label)
