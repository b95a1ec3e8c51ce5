"""Flags of all command lines: one for each field of a configuration, paths and flag files as users write them, and the help."""

import codecs
import dataclasses
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from ocr import options
from tfrecords.errors import InputError

_LISTS = ("train_data", "calibrate")  # of folders, separated by commas
_ELSEWHERE = ("serving_base_path",)  # paths on another machine


class _PathsParser(flags.ListParser):
    """Splits paths at commas; names of paths that are there may have commas, quotes, blanks at an end and line ends."""

    def parse(self, argument: Any) -> list[str]:
        paths = options.join_paths(argument.split(",")) if isinstance(argument, str) else argument
        return paths if all(map(options.is_there, paths)) else super().parse(argument)


def _define_paths(name: str, default: Any, help: str, **options: Any) -> None:
    flags.DEFINE(_PathsParser(), name, default, help, serializer=flags.CsvListSerializer(","), **options)


_DEFINE: dict[Any, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    list: _define_paths,
}


def define_fields(values: flags.FlagValues, config: type) -> None:
    """Defines a flag for each field of a configuration, with the field's default and help text."""
    for field in dataclasses.fields(config):
        required = field.default is dataclasses.MISSING
        default: Any = None if required else field.default
        if isinstance(default, tuple):
            define, default = _DEFINE[list], list(default)
        else:
            define = _DEFINE[field.type]
        define(field.name, default, field.metadata["help"], flag_values=values, required=required)


def fields(values: Mapping[str, Any], config: type) -> dict[str, Any]:
    """Returns the values of a configuration's fields from the values of all flags; lists are lists of paths."""
    chosen = {field.name: values[field.name] for field in dataclasses.fields(config)}
    return {name: tuple(options.join_paths(value)) if isinstance(value, list) else value for name, value in chosen.items()}


def parse(values: flags.FlagValues, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Parses a command line.

    Args:
      values: the flags of the command.
      arguments: without the command's name.

    Returns:
      The values of the flags by name, and the positional arguments.

    Raises:
      InputError: there is no such flag, or it cannot have such a value.
    """
    try:
        positional = values(["", *_read_flag_files(arguments)])[1:]
    except flags.Error as error:
        raise InputError(_flag_message(str(error))) from error
    given = values.flag_values_dict()
    for name, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and re.search("[\ud800-\udfff]", text):  # Python's form of bytes that are not UTF-8
                raise InputError(f"--{name}: its value is not UTF-8")
        if name not in _ELSEWHERE:
            given[name] = _expand_home(value, "," if name in _LISTS else None)
    return given, positional


def _expand_home(value: Any, separator: str | None) -> Any:
    """Replaces `~` and `~user` at the start of a flag's paths, which shells leave as they are behind `--flag=`."""
    if isinstance(value, list):
        return [_expand_home(item, None) for item in value]
    if not isinstance(value, str):
        return value
    paths = value.split(separator) if separator else [value]
    return ",".join(re.sub("^((?:chinese_ocr:)?)(~[^/@:]*)", lambda match: match[1] + _home(match[2]), path) for path in paths)


def _home(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111  # pathlib raises an error for a user who does not exist


def _read_flag_files(arguments: Sequence[str], outer: tuple[str, ...] = ()) -> list[str]:
    """Puts the lines of flag files in the place of `--flagfile`, as absl does, but whatever their encoding.

    Raises:
      InputError: a file cannot be read, or names itself.
    """
    expanded: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            return [*expanded, argument, *remaining]
        if not (named := re.fullmatch("--?flagfile(?:=(.*))?", argument, re.DOTALL)):
            expanded.append(argument)
            continue
        path = _home(next(remaining, "") if named[1] is None else named[1])
        if path in outer:
            raise InputError(f"--flagfile={path}: names itself")
        try:
            with open(path, "rb") as file:
                content = file.read()
            is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
        except UnicodeError as error:
            raise InputError(f"--flagfile={path}: is not UTF-8") from error
        except OSError as error:
            raise InputError(f"--flagfile={path}: {error.strerror}") from error
        lines = [line.strip() for line in re.split("[\r\n]+", text)]
        lines = [line for line in lines if line and not line.startswith(("#", "//"))]
        expanded += _read_flag_files(lines, (*outer, path))
    return expanded


def _flag_message(message: str) -> str:
    """Rewords an error message of absl."""
    if missing := re.findall(r"Flag (--\w+) must have a value other than None", message):
        return f"{', '.join(missing)}: has to be given"
    message = re.sub("invalid literal for int.*", "must be a whole number", message)
    message = re.sub("could not convert string to float.*", "must be a number", message)
    return message.removeprefix("flag ").removeprefix("ERROR:: ")


def help_text(doc: str, values: flags.FlagValues) -> str:
    """Returns what `--help` prints: what the command is for, and its flags."""
    lines = [doc.strip(), "", "Flags:"]
    own = [name for name in values if name not in ("flagfile", "undefok")]
    for name in own:
        flag = values[name]
        default = "" if flag.default is None or flag.default == [] else f"={flag.default_as_str}".replace("'", "")
        lines.append(f"  --{name}{default}")
        lines += textwrap.wrap(flag.help or "", 100, initial_indent="      ", subsequent_indent="      ")
    lines += ["  --flagfile", "      File with one flag on each line."]
    return "\n".join(lines if "version" in values else [*lines, "  --version", "      Print the version."])
