"""The server's metrics, in the form that Prometheus reads."""

import collections
from collections.abc import Callable

import numpy as np
import prometheus_client

from ocr.serving.versions import Versions

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
# Most lines are read with a confidence near 1, where a threshold would be.
_CONFIDENCES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)
_READ = 0  # status


class Metrics:
    """Counts requests and lines.

    What is counted by version is there while the version is served: a server that gets a new one each day has as many time
    series after a year as on the first day.

    Args:
      versions: Of the model.
      waiting: Returns the number of lines that wait.
    """

    def __init__(self, versions: Versions, waiting: Callable[[], int]):
        self._versions = versions
        self._statuses: dict[int, set[int]] = {}  # those counted, by version
        self._registry = registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter("ocr_requests", "Requests.", ["code"], registry=registry)
        self._seconds = prometheus_client.Histogram(
            "ocr_request_seconds", "Time from a request to its response.", registry=registry
        )
        self._lines = prometheus_client.Counter("ocr_lines", "Lines read, by status.", ["status"], registry=registry)
        self._version_lines = prometheus_client.Counter(
            "ocr_version_lines", "Lines read, by version and status.", ["version", "status"], registry=registry
        )
        self._confidence = prometheus_client.Histogram(
            "ocr_confidence", "Confidences of lines of status 0.", ["version"], buckets=_CONFIDENCES, registry=registry
        )
        gauge = prometheus_client.Gauge("ocr_waiting_lines", "Lines that wait to be read.", registry=registry)
        gauge.set_function(waiting)
        gauge = prometheus_client.Gauge("ocr_version", "The newest version that is served.", registry=registry)
        gauge.set_function(lambda: versions.current.number)

    def count_request(self, code: str, seconds: float) -> None:
        """Counts a request.

        Args:
          code: Name of the gRPC status code that it ended with.
          seconds: Time that it took.
        """
        self._requests.labels(code).inc()
        self._seconds.observe(seconds)

    def count_lines(self, version: int, statuses: np.ndarray, confidences: np.ndarray) -> None:
        """Counts the lines of a request.

        Args:
          version: Number of the version that read them.
          statuses: int32[lines].
          confidences: float32[lines].
        """
        counts = collections.Counter(statuses.tolist())
        for status, count in counts.items():
            self._lines.labels(str(status)).inc(count)
            self._version_lines.labels(str(version), str(status)).inc(count)
        confidence = self._confidence.labels(str(version))
        for value in confidences[statuses == _READ].tolist():
            confidence.observe(value)
        self._statuses.setdefault(version, set()).update(counts)
        self._forget_unloaded()  # perhaps this version, which may have been unloaded meanwhile

    def format(self) -> bytes:
        """Returns all metrics as text."""
        self._forget_unloaded()
        return prometheus_client.generate_latest(self._registry)

    def _forget_unloaded(self) -> None:
        for version in self._statuses.keys() - self._versions.served.keys():
            for status in self._statuses.pop(version):
                self._version_lines.remove(str(version), str(status))
            self._confidence.remove(str(version))
