"""Corrections of labels: a file that gives images other texts, or drops them."""

import logging
import pathlib

from ocr.data.entries import Entry
from tfrecords import files
from tfrecords.errors import InputError

_OF_TEXTS = ("empty_label", "id_out_of_range", "not_in_charset")  # reasons of rejects that another text may remove
_LOG = logging.getLogger(__name__)


class Corrections:
    """Changes or drops the entries whose names a file lists, as `ocr_audit` writes it and people edit it.

    Each of its lines is `name<TAB>text`, or `name<TAB>` for an image that is dropped. Names are those of the source, or as
    tables show them: see `files.escape_cell`.

    Args:
      path: of the file.

    Raises:
      InputError: it cannot be read, or a line is not of this form or names an image that an earlier line names.
    """

    def __init__(self, path: str):
        self._path = path
        self._texts: dict[str, str] = {}
        self._unmatched: dict[str, None] = {}
        self._corrected = self._dropped = 0
        try:
            rows = pathlib.Path(path).read_bytes().decode("utf-8-sig").split("\n")
        except OSError as error:
            raise InputError(f"--corrections={path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"--corrections={path}: not UTF-8 at byte {error.start}") from error
        for number, row in enumerate(rows, 1):
            if not row.strip("\r"):
                continue
            name, tab, text = row.removesuffix("\r").partition("\t")
            if not name or not tab:
                raise InputError(f"--corrections={path}: line {number} is {row[:40]!r}; it must be a name, a tab and a text")
            if (name := files.escape_cell(name)) in self._texts:
                raise InputError(f"--corrections={path}: line {number} names {name} again")
            self._texts[name] = text
        self._unmatched = dict.fromkeys(self._texts)

    def apply(self, entry: Entry) -> Entry:
        """Returns an entry as it is to be packed."""
        name = files.escape_cell(entry.name)
        text = self._texts.get(name)
        if text is None:
            return entry
        self._unmatched.pop(name, None)
        if not text:
            self._dropped += 1
            return entry._replace(reason="dropped", detail="--corrections has no text for it")
        if entry.reason and entry.reason not in _OF_TEXTS:
            return entry
        self._corrected += 1
        return entry._replace(text=text, reason="", detail="")

    def report(self) -> None:
        """Logs what was done, and how many lines of the file match no name."""
        _LOG.info("--corrections=%s: %d lines corrected, %d dropped", self._path, self._corrected, self._dropped)
        if self._unmatched:
            count, first = len(self._unmatched), next(iter(self._unmatched))
            _LOG.warning("--corrections=%s: %d of its lines match no name, the first: %r", self._path, count, first)
