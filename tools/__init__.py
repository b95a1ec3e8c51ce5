"""Command lines: flags, and one call into the library each.

A wheel installs this package as `ocr_tools`, since `tools` is too common a name to claim in site-packages. So its modules
import each other relatively, and none of them names it.
"""

import sys

if sys.platform != "linux":
    sys.exit("error: line-ocr runs on Linux only: on Windows in WSL 2, on macOS in a Linux container")
