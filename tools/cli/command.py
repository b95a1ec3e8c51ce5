"""How all command lines run: log records, exit status, signals, and the JSON object on the last line."""

import contextlib
import errno
import io
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

import ocr
from tfrecords.errors import InputError, IntegrityError

from . import command_flags, signals

BUG = 70  # exit status
_OUTPUT_FLAGS = ("output", "workdir", "export_dir", "picture")
_DISK_FULL = {  # messages of TensorFlow and of the system
    "No space left on device": "no space left on the disk",
    "Disk quota exceeded": "the disk quota is used up",
    "File too large": "a file would be larger than the system allows",
}
_HELP = {"--help", "-h", "-help", "--helpfull", "--helpshort"}
_VERSION = {"--version", "-version"}
_LOGGERS = ("ocr", "tfrecords", str(__package__).partition(".")[0])


class _StderrHandler(logging.Handler):
    """Writes bare messages to `sys.stderr`, whatever it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


class _Stderr(io.FileIO):
    """Standard error, whose terminal or reader may go away: no reason to end a command that has yet to save its work."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
            return len(data)


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
    signals.received.clear()  # by an earlier command in this process
    if sys.stderr is sys.__stderr__:
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(_Stderr(2, "w", closefd=False)), line_buffering=True)
    # Texts are UTF-8 whatever the locale. File names may have any bytes: unchanged in results, escaped in messages.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)
    for number in signals.handled():
        signal.signal(number, signals.raise_interrupted)
    message = ""
    printed: dict | str | None = None
    try:
        with _logs_on_stderr():
            if _HELP & set(sys.argv[1:]):
                printed = command_flags.help_text(doc, values)
            elif "version" not in values and _VERSION & set(sys.argv[1:]):
                printed = f"line-ocr {ocr.__version__}"
            else:
                given, arguments = command_flags.parse(values, sys.argv[1:])
                if arguments and not takes_arguments:
                    raise InputError(f"{arguments[0]}: not a flag, and there are no other arguments")
                printed = main(given, arguments)
        status = 0
        if isinstance(printed, dict):
            if printed.get("interrupted"):
                status = 128 + (signals.received or [signal.SIGTERM])[-1]  # without one here, another process received it
            printed = json.dumps(printed, ensure_ascii=False, allow_nan=False)
    except signals.Interrupted as interruption:
        status, printed = 128 + interruption.args[0], json.dumps({"interrupted": True})
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    except Exception as error:  # noqa: BLE001  # every error has an exit status
        status, message = _explain(error, values)
    for number in signals.handled():  # a signal may now end the process anywhere
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
        return 1, f"error: {_describe(error)}\n"
    return BUG, "".join(traceback.format_exception(error))


def _describe(error: OSError) -> str:
    if "No usable temporary directory" in str(error):  # Python's words
        return "no folder for temporary files can be written; name one in the environment variable TMPDIR"
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason
