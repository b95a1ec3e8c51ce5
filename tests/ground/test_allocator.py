"""Each case runs in a process of its own: what is set up lasts as long as the process."""

import os
import platform
import subprocess
import sys

import pytest

# Prints what keeps the memory, and how much of 60 MiB stays when the block is freed.
CODE = """
import ctypes, platform, resource, sys
{before}
from ocr import allocator
print(allocator.keep_memory() or "nothing")
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
block, before = bytearray(b"x") * (60 * 2**20), resident()
del block
print(before - resident() > 50 * 2**20 and "freed" or "kept")
"""
VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", "LD_PRELOAD", "GLIBC_TUNABLES")
ON_GLIBC_ONLY = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
ON_X86_ONLY = pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86-64")


def results(before: str = "", **environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES and not name.startswith("MALLOC_")}
    line = [sys.executable, "-c", CODE.format(before=before)]
    done = subprocess.run(line, env=clean | environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@ON_X86_ONLY
def test_tensorflow_keeps_memory_in_the_pool_of_onednn():
    assert results() == ["oneDNN", "freed"]


@ON_GLIBC_ONLY
@pytest.mark.parametrize(
    ("before", "environment"),
    [
        pytest.param("", {"TF_ENABLE_ONEDNN_OPTS": "0"}, id="without oneDNN"),
        pytest.param("platform.machine = lambda: 'aarch64'", {}, id="on other processors"),
    ],
)
def test_glibc_keeps_memory_where_the_pool_is_not_used(before: str, environment: dict[str, str]):
    assert results(before, **environment) == ["glibc", "kept"]


@pytest.mark.parametrize(
    ("before", "environment"),
    [
        ("", {"MALLOC_TRIM_THRESHOLD_": "100000"}),
        ("", {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}),
        # As a preloaded library does, the process offers another malloc than libc.so.6.
        ("loaded = ctypes.CDLL; ctypes.CDLL = lambda name: type('', (), {'malloc': loaded('libm.so.6').sin})"
         " if name is None else loaded(name)", {}),
        ("loaded = ctypes.CDLL; ctypes.CDLL = lambda name: loaded(name and 'libc.musl.so.1')", {}),
    ],
    ids=["MALLOC_", "GLIBC_TUNABLES", "another malloc", "another C library"],
)  # fmt: skip
def test_what_the_user_chose_stands(before: str, environment: dict[str, str]):
    assert results(before, TF_ENABLE_ONEDNN_OPTS="0", **environment) == ["nothing", "freed"]


def test_it_is_refused_once_tensorflow_is_there():
    code = "import sys; sys.modules['tensorflow'] = 1; from ocr import allocator; allocator.keep_memory()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "RuntimeError: keep_memory: has to be called before TensorFlow is imported"


@ON_X86_ONLY
@pytest.mark.parametrize(("keeps", "value"), [(True, "1"), (False, "None")])
def test_commands_set_it_up_before_they_load_tensorflow(keeps: bool, value: str):
    # A stand-in, which notes the variable when it is imported.
    code = f"""
import importlib.abc, os, sys
class Stop(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "tensorflow":
            print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Stop())
from tools.cli import tensorflow_import
tensorflow_import.import_tensorflow(keeps_memory={keeps})
"""
    clean = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [value]
