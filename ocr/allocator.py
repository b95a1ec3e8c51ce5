"""Keeps the memory of large tensors between steps, instead of giving it back to the system and taking it anew.

glibc maps every block over 32 MB and unmaps it when it is freed, and each use then pays for page faults: a quarter of the CPU
time of a training step with some thousand classes. TensorFlow has a pool of its own that keeps such blocks, but uses it only
together with oneDNN, which it turns on by itself only on processors with AVX-512 VNNI or similar instructions.
"""

import ctypes
import os
import platform
import sys

_X86 = ("x86_64", "AMD64")
# Parameters of mallopt from glibc's malloc.h. One arena: several would each keep what was freed, and blocks over 64 MB, which
# only the first can hold, would come from it all the same.
_MALLOPT = {
    -4: 0,  # M_MMAP_MAX: map no block
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: keep what is freed
    -2: 64 * 2**20,  # M_TOP_PAD: grow in larger steps
    -8: 1,  # M_ARENA_MAX
}


def keep_memory() -> str:
    """Makes TensorFlow keep freed memory for its next tensors; the process keeps about what it needed at its peak.

    Call it before TensorFlow is imported. On x86-64 it sets TF_ENABLE_ONEDNN_OPTS=1, for this process and those that it starts:
    oneDNN's kernels are faster too, and round a little differently. Where that variable is set, or on other processors,
    glibc's malloc is told to keep freed memory, in this process only. What the user chose stands: a value of that variable,
    another malloc (as with LD_PRELOAD), and settings in MALLOC_* or GLIBC_TUNABLES.

    Returns:
      What keeps the memory: "oneDNN", "glibc", or "" if nothing was set up.

    Raises:
      RuntimeError: TensorFlow is imported already.
    """
    if "tensorflow" in sys.modules:
        raise RuntimeError("keep_memory: has to be called before TensorFlow is imported")
    if platform.machine() in _X86 and os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1").lower() not in ("0", "false"):
        return "oneDNN"
    if any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return ""
    return "glibc" if _set_up_glibc() else ""


def _set_up_glibc() -> bool:
    """Sets up glibc's malloc; returns whether it is this process's malloc, and took the settings."""
    try:
        glibc, process = ctypes.CDLL("libc.so.6"), ctypes.CDLL(None)
        theirs, used = (ctypes.cast(library.malloc, ctypes.c_void_p).value for library in (glibc, process))
        return theirs == used and all(glibc.mallopt(name, value) for name, value in _MALLOPT.items())
    except (OSError, AttributeError):  # another C library: musl, macOS
        return False
