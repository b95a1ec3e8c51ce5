"""Common parts of all command lines: flags, help, log records, exit status, signals, and the JSON object on the last line."""

import codecs
import contextlib
import ctypes
import dataclasses
import errno
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

import ocr
from ocr import allocator, options
from tfrecords.errors import InputError, IntegrityError

BUG = 70  # exit status
_OUTPUT_FLAGS = ("output", "workdir", "export_dir", "picture")
_DISK_FULL = {  # messages of TensorFlow and of the system
    "No space left on device": "no space left on the disk",
    "Disk quota exceeded": "the disk quota is used up",
    "File too large": "a file would be larger than the system allows",
}
_HELP = {"--help", "-h", "-help", "--helpfull", "--helpshort"}
_VERSION = {"--version", "-version"}
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

_LOGGERS = ("ocr", "tfrecords", str(__package__))


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


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP was received; the argument is its number."""


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
    if sys.stderr is sys.__stderr__:
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(_Stderr(2, "w", closefd=False)), line_buffering=True)
    # Texts are UTF-8 whatever the locale. File names may have any bytes: unchanged in results, escaped in messages.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)
    for number in _handled_signals():
        signal.signal(number, _raise)
    message = ""
    printed: dict | str | None = None
    try:
        with _logs_on_stderr():
            if _HELP & set(sys.argv[1:]):
                printed = _help(doc, values)
            elif "version" not in values and _VERSION & set(sys.argv[1:]):
                printed = f"line-ocr {ocr.__version__}"
            else:
                printed = _main(main, values, takes_arguments)
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
    for number in _handled_signals():  # a signal may now end the process anywhere
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
        arguments = values([sys.argv[0], *_read_flag_files(sys.argv[1:])])[1:]
    except flags.Error as error:
        raise InputError(_flag_message(str(error))) from error
    if arguments and not takes_arguments:
        raise InputError(f"{arguments[0]}: not a flag, and there are no other arguments")
    given = values.flag_values_dict()
    for name, value in given.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and re.search("[\ud800-\udfff]", text):  # Python's form of bytes that are not UTF-8
                raise InputError(f"--{name}: its value is not UTF-8")
        if name not in _ELSEWHERE:
            given[name] = _expand_home(value, "," if name in _LISTS else None)
    return main(given, arguments)


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


_signalled: list[int] = []  # signals received within stop_on_signal


def _handled_signals() -> list[signal.Signals]:
    """Returns the signals after which a command stops: without SIGHUP if nohup has it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [signal.SIGHUP])]


def _raise(number: int, _: object) -> None:
    raise Interrupted(number)


@contextlib.contextmanager
def stop_on_signal(promise: str = "saving, then exiting") -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGINT, SIGTERM or SIGHUP was received. A second signal ends the process at once.

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
    for number in _handled_signals():
        signal.signal(number, lambda *_: None)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield lambda: bool(_signalled)
    finally:
        signal.set_wakeup_fd(before)
        for number in _handled_signals():
            signal.signal(number, _raise)
        os.close(writing)
        listener.join()
        os.close(reading)


def define_memory_growth(values: flags.FlagValues, default: bool) -> None:
    """Defines the flag whose value `import_tensorflow` takes."""
    text = "On GPUs take memory as it is needed, and leave the rest to other processes; otherwise take all of it at once."
    flags.DEFINE_bool("gpu_memory_growth", default, text, flag_values=values)


def import_tensorflow(gpu_memory_growth: bool = False, keeps_memory: bool = True) -> None:
    """Imports TensorFlow without its messages on processors and drivers, unless there is a GPU that it cannot use.

    Args:
      gpu_memory_growth: whether to take the memory of GPUs only as it is needed; later, once TensorFlow has used a GPU, this
        can no longer be chosen.
      keeps_memory: whether to call `allocator.keep_memory` before.
    """
    if keeps_memory and "tensorflow" not in sys.modules:
        allocator.keep_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors are raised as exceptions too
    os.environ["KERAS_HOME"] = os.devnull  # no keras.json is read, nor written
    tempfile.gettempdir()  # if there is none, TensorFlow fails with many words
    # An exception from a signal handler could be lost during the import.
    with _messages_held_back() as drop_messages, stop_on_signal("exiting soon") as stop:
        import tensorflow

        tensorflow.get_logger().setLevel("ERROR")
        gpus = tensorflow.config.list_physical_devices("GPU")
        for gpu in gpus if gpu_memory_growth else []:
            tensorflow.config.experimental.set_memory_growth(gpu, True)
        if gpus or not os.path.exists("/dev/nvidiactl"):
            drop_messages()
    if stop():
        raise Interrupted(_signalled[-1])


@contextlib.contextmanager
def _messages_held_back() -> Iterator[Callable[[], None]]:
    """Holds back what is written to stderr, by libraries too, and shows it after the block; yields a function that drops it.

    A process of its own holds the messages, so that they are shown even if this one aborts.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with subprocess.Popen(
        [sys.executable, "-ISc", "import sys; sys.stderr.buffer.write(sys.stdin.buffer.read())"],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C does not reach it
    ) as holder:
        assert holder.stdin is not None
        os.dup2(holder.stdin.fileno(), 2)
        holder.stdin.close()

        @ctypes.CFUNCTYPE(None, ctypes.c_int)  # a handler of Python's would not run before the process ends
        def show_first(_: int) -> None:
            os.dup2(stderr, 2)
            holder.wait()

        # The first process of a container takes the holder with it when it ends.
        libc = ctypes.CDLL(None)
        libc.signal.restype = ctypes.c_void_p
        before = libc.signal(signal.SIGABRT, show_first)
        try:
            yield holder.kill
        finally:
            libc.signal(signal.SIGABRT, ctypes.c_void_p(before))
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def _help(doc: str, values: flags.FlagValues) -> str:
    lines = [doc.strip(), "", "Flags:"]
    own = [name for name in values if name not in ("flagfile", "undefok")]
    for name in own:
        flag = values[name]
        default = "" if flag.default is None or flag.default == [] else f"={flag.default_as_str}".replace("'", "")
        lines.append(f"  --{name}{default}")
        lines += textwrap.wrap(flag.help or "", 100, initial_indent="      ", subsequent_indent="      ")
    lines += ["  --flagfile", "      File with one flag on each line."]
    return "\n".join(lines if "version" in values else [*lines, "  --version", "      Print the version."])
