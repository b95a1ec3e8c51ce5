"""Benchmarks of `ocr_bench`: each times this package against alternatives, in one process."""

import ocr  # noqa: F401  # selects Keras's backend, so it must precede the import of Keras
