"""What every command line has in common: flags, exit status, signals, and the JSON object on the last line."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import signal
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import flags

from tfrecords.errors import InputError, IntegrityError

BUG = 70  # exit status
_WRITTEN = ("output", "workdir", "export_dir", "picture")  # flags that name what is written
_FULL = {  # in the words of TensorFlow and of the system
    "No space left on device": "no space left on the disk",
    "Disk quota exceeded": "the disk quota is used up",
    "File too large": "a file would be larger than the system allows",
}
_HELP = {"--help", "-h", "-help", "--helpfull", "--helpshort"}
_DEFINE: dict[Any, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    list: flags.DEFINE_list,
}


_LOGGERS = ("ocr", "tfrecords", "tools")


class _StderrHandler(logging.Handler):
    """Writes records, one a line, to what is `sys.stderr` at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


class Interrupted(BaseException):
    """SIGINT or SIGTERM came; the argument is its number."""


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
    """Returns the configuration's fields as the flags have them."""
    given = {field.name: values[field.name] for field in dataclasses.fields(config)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def run(
    main: Callable[[dict[str, Any], list[str]], dict | None],
    values: flags.FlagValues,
    doc: str,
    takes_arguments: bool = False,
) -> None:
    """Runs a command line and exits.

    Args:
      main: takes the parsed flags and the other arguments; what it returns is printed as JSON.
      values: the command's flags.
      doc: its help, with an example.
      takes_arguments: whether there may be arguments that are no flags.
    """
    _open_closed_streams()
    # Texts are UTF-8 whatever the locale; file names are whatever they are, in a message escaped.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)
    printed, message = None, ""
    try:
        with _logs_on_stderr():
            printed = _help(doc, values) if _HELP & set(sys.argv[1:]) else _main(main, values, takes_arguments)
        status = 0
        if isinstance(printed, dict):
            if printed.get("interrupted"):
                status = 128 + (_signalled or [signal.SIGTERM])[-1]  # another process may have got the signal
            printed = json.dumps(printed, ensure_ascii=False, allow_nan=False)
    except Interrupted as interruption:
        status, printed = 128 + interruption.args[0], json.dumps({"interrupted": True})
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    except Exception as error:  # noqa: BLE001  # the outermost place there is
        status, message = _explained(error, values)
    for number in (signal.SIGINT, signal.SIGTERM):  # all is done: what comes now may end us where we are
        signal.signal(number, signal.SIG_DFL)
    sys.stderr.write(message)
    try:
        if printed is not None:
            print(printed)
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read us has left
            sys.stderr.write(f"error: standard output: {error.strerror}\n")
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        status = status or 1
    sys.exit(status)


@contextlib.contextmanager
def _logs_on_stderr() -> Iterator[None]:
    """Sends the library's log records, INFO and above, to stderr as bare messages; other libraries' stay as they are."""
    handler = _StderrHandler()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # or whatever handles the root logger would repeat them
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def _open_closed_streams() -> None:
    """Gives a program that was started without some of its three streams one that leads nowhere, so that no other file comes
    to stand in its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # for as long as the program runs
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _main(
    main: Callable[[dict[str, Any], list[str]], dict | None], values: flags.FlagValues, takes_arguments: bool
) -> dict | None:
    try:
        arguments = values(sys.argv)[1:]
    except flags.Error as error:
        raise InputError(_about_flags(str(error))) from error
    if arguments and not takes_arguments:
        raise InputError(f"{arguments[0]}: no flag, and nothing else is taken")
    given = values.flag_values_dict()
    for name, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and re.search("[\ud800-\udfff]", text):  # how Python keeps bytes that are not UTF-8
                raise InputError(f"--{name}: its value is not UTF-8")
    return main(given, arguments)


def _about_flags(message: str) -> str:
    """Says in our words what absl says of flags."""
    if lacking := re.findall(r"Flag (--\w+) must have a value other than None", message):
        return f"{', '.join(lacking)}: has to be given"
    message = re.sub("invalid literal for int.*", "must be a whole number", message)
    message = re.sub("could not convert string to float.*", "must be a number", message)
    return message.removeprefix("flag ").removeprefix("ERROR:: ")


def _explained(error: Exception, values: flags.FlagValues) -> tuple[int, str]:
    """Returns the exit status and the message of an error, lines with their ends."""
    if isinstance(error, BrokenPipeError):
        return 1, ""
    if isinstance(error, InputError | IntegrityError):
        return 1 if isinstance(error, InputError) else 2, f"error: {' '.join(str(error).split(chr(10)))}\n"
    if full := [told for words, told in _FULL.items() if words in str(error)]:
        written = [f"--{name}={values[name].value}" for name in _WRITTEN if name in values and values[name].value]
        return 1, f"error: {', '.join(written) or 'standard output'}: {full[0]}\n"
    if isinstance(error, OSError):
        return 1, f"error: {error.filename or error}: {error.strerror or type(error).__name__}\n"
    return BUG, "".join(traceback.format_exception(error))


_signalled: list[int] = []  # what came while somebody wanted to know


def _raise(number: int, _: object) -> None:
    raise Interrupted(number)


@contextlib.contextmanager
def stop_on_signal(promise: str = "saving, then leaving") -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM came. A second one leaves at once.

    A thread listens, for Python's own handlers wait until a call into TensorFlow is over.
    """
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)

    def listen() -> None:
        for number in iter(lambda: os.read(ours, 1), b""):
            if _signalled:
                os.write(2, b"leaving at once: what was not saved is lost\n")
                os._exit(128 + number[0])
            _signalled.append(number[0])
            print(f"\n{signal.Signals(number[0]).name}: {promise}; once more to leave at once", file=sys.stderr, flush=True)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        yield lambda: bool(_signalled)
    finally:
        signal.set_wakeup_fd(before)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _raise)
        os.close(theirs)
        listener.join()
        os.close(ours)


def import_tensorflow() -> None:
    """Imports TensorFlow without what it says of processors and drivers, unless there is a GPU that it cannot use."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what goes wrong comes as an exception too
    sys.stderr.flush()
    stderr = os.dup(2)
    silent = False
    # An exception out of a signal's handler would be lost in the import.
    with tempfile.TemporaryFile() as said, stop_on_signal("leaving soon") as stop:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow

            tensorflow.get_logger().setLevel("ERROR")
            silent = bool(tensorflow.config.list_physical_devices("GPU")) or not os.path.exists("/dev/nvidiactl")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            if not silent:
                said.seek(0)
                os.write(2, said.read())
    if stop():
        raise Interrupted(_signalled[-1])


def _help(doc: str, values: flags.FlagValues) -> str:
    lines = [doc.strip(), "", "Flags:"]
    own = [name for name in values if name not in ("flagfile", "undefok")]
    for name in own:
        flag = values[name]
        default = "" if flag.default is None or flag.default == [] else f"={flag.default_as_str}".replace("'", "")
        lines.append(f"  --{name}{default}")
        lines += textwrap.wrap(flag.help or "", 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join([*lines, "  --flagfile", "      File of flags, one a line."])
