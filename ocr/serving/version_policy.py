"""Which versions of a model a server keeps, and their labels, as in TensorFlow Serving's `model_version_policy`."""

import dataclasses
import re
from collections.abc import Iterable

from tfrecords.errors import InputError

LARGEST = 2**63 - 1  # TensorFlow Serving keeps version numbers in an int64
_FORMS = "must be latest, latest:COUNT, all, or specific:VERSION,VERSION,…"


@dataclasses.dataclass(frozen=True)
class VersionPolicy:
    """Chooses the versions to serve.

    Attributes:
      limit: how many are served, the newest; None for all.
      numbers: the only ones that may be served; empty for any.
    """

    limit: int | None = 1
    numbers: frozenset[int] = frozenset()

    def allowed(self, numbers: Iterable[int]) -> list[int]:
        """Returns those version numbers that may be served, the newest first, whatever the limit."""
        return sorted((number for number in numbers if not self.numbers or number in self.numbers), reverse=True)


NEWEST = VersionPolicy()


def parse_policy(text: str) -> VersionPolicy:
    """Parses `latest`, `latest:COUNT`, `all` or `specific:VERSION,VERSION,…`.

    Raises:
      InputError: it is none of these.
    """
    kind, colon, rest = text.partition(":")
    if kind == "latest":
        count = _number(rest) if colon else 1
        if count:
            return VersionPolicy(count)
    elif text == "all":
        return VersionPolicy(None)
    elif kind == "specific":
        numbers = [_number(part) for part in rest.split(",")]
        if all(numbers):
            return VersionPolicy(None, frozenset(numbers))
    raise InputError(f"--model_version_policy={text}: {_FORMS}")


def parse_labels(text: str) -> dict[str, int]:
    """Parses `LABEL:VERSION,LABEL:VERSION,…` into versions by label.

    Raises:
      InputError: it is something else, or a label is repeated.
    """
    labels: dict[str, int] = {}
    for item in text.split(",") if text else ():
        label, _, number = item.rpartition(":")
        if not re.fullmatch(r"[\w.-]+", label) or not _number(number):
            raise InputError(
                f"--version_labels={text}: {item!r} must be LABEL:VERSION, the label of letters, digits, '.', '-' and '_'"
            )
        if label in labels:
            raise InputError(f"--version_labels={text}: {label} is given twice")
        labels[label] = _number(number)
    return labels


def _number(text: str) -> int:
    """Returns a version number or a count; 0 for what is not one."""
    number = int(text) if re.fullmatch("[0-9]{1,19}", text) else 0
    return number if number <= LARGEST else 0
