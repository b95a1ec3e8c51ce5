"""Imports TensorFlow for a command: with its allocator, without its messages, and so that signals are not lost."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from absl import flags

from ocr import allocator

from . import signals


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
    with _messages_held_back() as drop_messages, signals.stop_on_signal("exiting soon") as stop:
        import tensorflow

        tensorflow.get_logger().setLevel("ERROR")
        gpus = tensorflow.config.list_physical_devices("GPU")
        for gpu in gpus if gpu_memory_growth else []:
            tensorflow.config.experimental.set_memory_growth(gpu, True)
        if gpus or not os.path.exists("/dev/nvidiactl"):
            drop_messages()
    if stop():
        raise signals.Interrupted(signals.received[-1])


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
