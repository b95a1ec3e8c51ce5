"""What `ocr_bench` times: our way against the stock way, both in one process."""

import ocr  # noqa: F401  # it chooses Keras's backend, which must come before Keras is imported
