"""Which entries are for evaluation: a share of them, chosen by a hash of their names, or those that a file lists."""

import hashlib
import logging
import os
import pathlib

from ocr.data.entries import Entry
from tfrecords.errors import InputError

TRAIN, EVAL = "train", "eval"
_LOG = logging.getLogger(__name__)


class SplitBy:
    """Says for each entry whether it is for evaluation. The answer for a name never depends on the other names.

    Args:
      value: a share between 0 and 1, or a file with a name, or with `*` at its end the beginning of names, on each line.

    Raises:
      InputError: it is neither.
    """

    def __init__(self, value: str):
        self._share, self._names, self._beginnings = 0.0, dict[str, bool](), tuple[str, ...]()
        try:
            self._share = float(value)
        except ValueError:
            self._read(pathlib.Path(value))
            return
        if not 0 < self._share < 1:
            raise InputError(f"--split_by={value}: must be between 0 and 1, or a file of names")

    def _read(self, path: pathlib.Path) -> None:
        try:
            lines = [line for line in path.read_text("utf-8-sig").splitlines() if line]
        except OSError as error:
            raise InputError(f"--split_by={path}: {error.strerror}; give a share, such as 0.1, or a file of names") from error
        except UnicodeDecodeError as error:
            raise InputError(f"--split_by={path}: not UTF-8 at byte {error.start}") from error
        self._names = dict.fromkeys(lines, False)  # and whether it has matched
        self._beginnings = tuple(line for line in lines if line.endswith("*"))

    def is_eval(self, entry: Entry) -> bool:
        """Returns whether an entry is for evaluation; a group of them is, as a whole, unless a file lists its entries."""
        name = os.path.normpath(entry.group or entry.name)  # `./a.png` is `a.png`
        if self._share:
            number = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8])
            return number < self._share * 2**64
        listed = [each for each in (name, entry.name) if each in self._names]
        listed += [beginning for beginning in self._beginnings if name.startswith(beginning[:-1])]
        self._names.update(dict.fromkeys(listed, True))
        return bool(listed)

    def warn_of_unmatched(self, value: str) -> None:
        """Logs how many lines of the file match no name."""
        if unmatched := [line for line, has_matched in self._names.items() if not has_matched]:
            _LOG.warning("--split_by=%s: %d of its lines match no name, the first: %r", value, len(unmatched), unmatched[0])
