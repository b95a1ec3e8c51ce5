import types

import numpy as np
from prometheus_client import parser

from ocr.serving.server_metrics import Metrics


def test_lines_and_confidences_are_counted_by_version_while_it_is_served():
    versions = types.SimpleNamespace(served={1: None, 2: None}, current=types.SimpleNamespace(number=2))
    metrics = Metrics(versions, lambda: 7)

    def sample(name: str, **labels: str) -> list[float]:
        families = parser.text_string_to_metric_families(metrics.format().decode())
        samples = [each for family in families for each in family.samples if each.name == name]
        return [each.value for each in samples if labels.items() <= each.labels.items()]

    def count(version: int) -> None:
        metrics.count_lines(version, np.array([0, 0, 1, 0], np.int32), np.array([0.4, 0.95, 0.0, 0.9999], np.float32))

    count(1)
    count(1)
    count(2)
    assert (sample("ocr_waiting_lines"), sample("ocr_version")) == ([7], [2])
    assert [sample("ocr_version_lines_total", version="1", status=status) for status in ("0", "1")] == [[6], [2]]
    # The line that could not be read has no confidence.
    bounds = {bound: sample("ocr_confidence_bucket", version="1", le=bound) for bound in ("0.3", "0.5", "0.95", "0.98", "1.0")}
    assert bounds == {"0.3": [0], "0.5": [2], "0.95": [4], "0.98": [4], "1.0": [6]}
    np.testing.assert_allclose(sample("ocr_confidence_sum", version="1"), [2 * (0.4 + 0.95 + 0.9999)], atol=1e-6)

    del versions.served[1]
    assert sample("ocr_version_lines_total", version="1") == sample("ocr_confidence_bucket", version="1") == []
    count(1)  # a request that was sent to it before
    assert sample("ocr_version_lines_total", version="1") == sample("ocr_confidence_bucket", version="1") == []
    assert sample("ocr_version_lines_total", version="2", status="0") == [3]
    assert sample("ocr_lines_total", status="0") == [12]
    versions.served[1] = None
    count(1)
    assert sample("ocr_version_lines_total", version="1", status="0") == [3]


def test_a_server_whose_metrics_nobody_reads_does_not_grow_with_its_versions():
    versions = types.SimpleNamespace(served={})
    metrics = Metrics(versions, lambda: 0)
    for number in range(1, 5):
        versions.served = {number: None}
        metrics.count_lines(number, np.array([0, 1], np.int32), np.array([0.5, 0.0], np.float32))
    assert metrics._statuses == {4: {0, 1}}
    assert list(metrics._confidence._metrics) == [("4",)]
