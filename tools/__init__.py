"""Command lines: flags, and one call into the library each."""

import sys

if sys.platform != "linux":
    sys.exit("error: line-ocr runs on Linux only: on Windows in WSL 2, on macOS in a Linux container")
