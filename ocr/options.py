"""Fields of configurations, which carry the help texts of their flags, and checks of their values.

A flag has the name of its field, so a check that fails names the flag.
"""

import dataclasses
import os
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from tfrecords.errors import InputError

_MAX_PIECES = 32  # of one path that has commas


def option(default: Any, help: str, *, may_change: bool = False, path: bool = False) -> Any:
    """Returns a field of a configuration.

    Args:
      default: its value where none is given; `dataclasses.MISSING` for a field that must be given.
      help: the help text of its flag.
      may_change: whether a training may resume with another value.
      path: whether the value is a path, which means nothing on another machine.
    """
    return dataclasses.field(default=default, metadata={"help": help, "may_change": may_change, "path": path})


def required(help: str, *, may_change: bool = False, path: bool = False) -> Any:
    """Returns a field that must be given; see `option`."""
    return option(dataclasses.MISSING, help, may_change=may_change, path=path)


def check_given(**values: str | int) -> None:
    """Checks that no value is empty or 0.

    Raises:
      InputError: one is.
    """
    if empty := [name for name, value in values.items() if not value]:
        raise InputError(f"--{empty[0]}: has to be given")


def check_choice(values: Mapping[str, Any], **choices: Sequence[str]) -> None:
    """Checks that each value is one of its choices.

    Raises:
      InputError: one is not.
    """
    for name, allowed in choices.items():
        if values[name] not in allowed:
            raise InputError(f"--{name}={values[name]}: must be one of {', '.join(allowed)}")


def check_range(values: Mapping[str, Any], **ranges: tuple[float, float]) -> None:
    """Checks that each value is between its bounds, both included.

    Raises:
      InputError: one is not.
    """
    for name, (low, high) in ranges.items():
        if not low <= values[name] <= high:  # NaN is refused too
            raise InputError(f"--{name}={values[name]}: must be {low} to {high}")


def check_names(name: str, split: str) -> None:
    """Checks that a data set and its split can be told apart in a file name such as `NAME-SPLIT.manifest.json`.

    Raises:
      InputError: one has a character other than ASCII letters, digits and underscores.
    """
    for flag, value in (("name", name), ("split", split)):
        if not value or set(value) - set(string.ascii_letters + string.digits + "_"):
            raise InputError(f"--{flag}={value}: must be of letters, digits and underscores")


def join_paths(pieces: Sequence[str]) -> list[str]:
    """Returns the paths of a list that was split at each comma, although commas may be in names.

    Adjacent pieces are one path, as many as possible, if with the commas between them they name something that exists; a path
    may be followed by `@SPLIT` or `#INDEX`, and `:WEIGHT`.
    """
    paths: list[str] = []
    start = 0
    while start < len(pieces):
        ends = range(min(start + _MAX_PIECES, len(pieces)), start + 1, -1)
        end = next((end for end in ends if is_there(",".join(pieces[start:end]))), start + 1)
        paths.append(",".join(pieces[start:end]))
        start = end
    return paths


def is_there(item: str) -> bool:
    """Returns whether an item of a list names an existing path, with or without what may follow it."""
    return _names_path(item) or _names_path(re.sub(":[^:/,]*$", "", item))


def _names_path(item: str) -> bool:
    """Returns whether an item names an existing path, with `@SPLIT` or `#INDEX` or without."""
    return os.path.exists(item) or os.path.exists(re.sub(r"(@\w+|#[0-9]+)$", "", item))


def parse_weighted(item: str) -> tuple[str, float | None]:
    """Splits `NAME:WEIGHT`, or `NAME` alone, whose weight is None.

    Raises:
      InputError: the weight is not a number from 1e-6 to 1e6.
    """
    name, colon, weight = item.rpartition(":")
    if not colon or "/" in weight or _names_path(item):  # a name with a colon
        return item, None
    try:
        if 1e-6 <= (number := float(weight)) <= 1e6:
            return name, number
    except ValueError:
        pass
    raise InputError(f"{item}: the weight {weight!r} must be a number from 1e-6 to 1e6")
