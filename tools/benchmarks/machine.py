"""Describes the machine that a benchmark runs on."""

import os
import platform
import re
from typing import Any

# What TensorFlow's, oneDNN's and PyTorch's kernels are chosen by.
_FLAGS = "avx2|avx_vnni|avx512f|avx512_vnni|avx512_bf16|avx512_fp16|amx_[a-z0-9]+|asimddp|bf16|i8mm|sve2?"


def describe() -> dict[str, Any]:
    """Returns the `processor`, its number of `cores` for this process, and those of its `flags` that matter for speed."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            cpuinfo = file.read()
    except OSError:
        cpuinfo = ""
    name = re.search(r"^model name\s*: (.*)$", cpuinfo, re.M)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", cpuinfo, re.M)
    return {
        "processor": name[1] if name else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in (flags[1].split() if flags else []) if re.fullmatch(_FLAGS, flag)],
    }


def load() -> float:
    """Returns how many processes ran or waited for a core, on average over the last minute."""
    return round(os.getloadavg()[0], 2)
