"""Common parts of all command lines: flags, help, log records, exit status, signals, and the JSON object on the last line."""

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
_OUTPUT_FLAGS = ("output", "workdir", "export_dir", "picture")
_DISK_FULL = {  # messages of TensorFlow and of the system
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
    """Writes bare messages to `sys.stderr`, whatever it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


class Interrupted(BaseException):
    """SIGINT or SIGTERM was received; the argument is its number."""


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
    """Returns the values of a configuration's fields from the values of all flags."""
    chosen = {field.name: values[field.name] for field in dataclasses.fields(config)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}


def run(
    main: Callable[[dict[str, Any], list[str]], dict | None],
    values: flags.FlagValues,
    doc: str,
    takes_arguments: bool = False,
) -> None:
    """Runs a command line and exits.

    Args:
      main: takes the values of the flags and the positional arguments; its result is printed as JSON, unless it is None.
      values: the flags of the command.
      doc: its help text, with an example.
      takes_arguments: whether it has positional arguments.
    """
    _open_closed_streams()
    _signalled.clear()  # by an earlier command in this process
    # Texts are UTF-8 whatever the locale. File names may have any bytes: unchanged in results, escaped in messages.
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
                status = 128 + (_signalled or [signal.SIGTERM])[-1]  # without one here, another process received it
            printed = json.dumps(printed, ensure_ascii=False, allow_nan=False)
    except Interrupted as interruption:
        status, printed = 128 + interruption.args[0], json.dumps({"interrupted": True})
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    except Exception as error:  # noqa: BLE001  # every error has an exit status
        status, message = _explain(error, values)
    for number in (signal.SIGINT, signal.SIGTERM):  # a signal may now end the process anywhere
        signal.signal(number, signal.SIG_DFL)
    sys.stderr.write(message)
    try:
        if printed is not None:
            print(printed)
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # the reader of a pipe may close it
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
    """Opens the null device in place of standard streams that are closed.

    Otherwise the next file to be opened would get the number of the stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # stays open
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _main(
    main: Callable[[dict[str, Any], list[str]], dict | None], values: flags.FlagValues, takes_arguments: bool
) -> dict | None:
    try:
        arguments = values(sys.argv)[1:]
    except flags.Error as error:
        raise InputError(_flag_message(str(error))) from error
    if arguments and not takes_arguments:
        raise InputError(f"{arguments[0]}: not a flag, and there are no other arguments")
    given = values.flag_values_dict()
    for name, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and re.search("[\ud800-\udfff]", text):  # Python's form of bytes that are not UTF-8
                raise InputError(f"--{name}: its value is not UTF-8")
    return main(given, arguments)


def _flag_message(message: str) -> str:
    """Rewords an error message of absl."""
    if missing := re.findall(r"Flag (--\w+) must have a value other than None", message):
        return f"{', '.join(missing)}: has to be given"
    message = re.sub("invalid literal for int.*", "must be a whole number", message)
    message = re.sub("could not convert string to float.*", "must be a number", message)
    return message.removeprefix("flag ").removeprefix("ERROR:: ")


def _explain(error: Exception, values: flags.FlagValues) -> tuple[int, str]:
    """Returns the exit status and the message for an error, with a line end."""
    if isinstance(error, BrokenPipeError):
        return 1, ""
    if isinstance(error, InputError | IntegrityError):
        return 1 if isinstance(error, InputError) else 2, f"error: {' '.join(str(error).split(chr(10)))}\n"
    if full := [message for words, message in _DISK_FULL.items() if words in str(error)]:
        outputs = [f"--{name}={values[name].value}" for name in _OUTPUT_FLAGS if name in values and values[name].value]
        return 1, f"error: {', '.join(outputs) or 'standard output'}: {full[0]}\n"
    if isinstance(error, OSError):
        return 1, f"error: {error.filename or error}: {error.strerror or type(error).__name__}\n"
    return BUG, "".join(traceback.format_exception(error))


_signalled: list[int] = []  # signals received within stop_on_signal


def _raise(number: int, _: object) -> None:
    raise Interrupted(number)


@contextlib.contextmanager
def stop_on_signal(promise: str = "saving, then exiting") -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGINT or SIGTERM was received. A second signal ends the process at once.

    Signals are received in a thread, since Python's own handlers do not run during a call into TensorFlow.

    Args:
      promise: what happens after the first signal, for the message.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        for number in iter(lambda: os.read(reading, 1), b""):
            if _signalled:
                os.write(2, b"exiting at once: what was not saved is lost\n")
                os._exit(128 + number[0])
            _signalled.append(number[0])
            print(f"\n{signal.Signals(number[0]).name}: {promise}; send it again to exit at once", file=sys.stderr, flush=True)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield lambda: bool(_signalled)
    finally:
        signal.set_wakeup_fd(before)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _raise)
        os.close(writing)
        listener.join()
        os.close(reading)


def import_tensorflow() -> None:
    """Imports TensorFlow without its messages on processors and drivers, unless there is a GPU that it cannot use."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors are raised as exceptions too
    sys.stderr.flush()
    stderr = os.dup(2)
    silent = False
    # An exception from a signal handler could be lost during the import.
    with tempfile.TemporaryFile() as messages, stop_on_signal("exiting soon") as stop:
        os.dup2(messages.fileno(), 2)
        try:
            import tensorflow

            tensorflow.get_logger().setLevel("ERROR")
            silent = bool(tensorflow.config.list_physical_devices("GPU")) or not os.path.exists("/dev/nvidiactl")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            if not silent:
                messages.seek(0)
                os.write(2, messages.read())
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
    return "\n".join([*lines, "  --flagfile", "      File with one flag on each line."])
