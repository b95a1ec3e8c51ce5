"""Each benchmark of `ocr_bench` exists, and those of CTC run; their figures are for whoever runs them."""

import importlib

import pytest

from tools import ocr_bench
from tools.benchmarks import ctc, decode


@pytest.mark.parametrize("name", ocr_bench.BENCHES)
def test_every_benchmark_is_a_function(name: str):
    module, function = ocr_bench.BENCHES[name].split(".")
    assert callable(getattr(importlib.import_module(f"tools.benchmarks.{module}"), function))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bench", "alternative"),
    [(ctc.bench_ctc, "tf.nn.ctc_loss, dense"), (decode.bench_decode, "tf.nn.ctc_greedy_decoder")],
    ids=["ctc", "decode"],
)
def test_a_benchmark_gives_the_ratio_to_each_alternative(bench, alternative: str):
    rows = bench(batch=2, frames=9, classes=20, length=3)
    assert alternative in rows
    for row in rows.values():
        assert 0 < row["lowest"] <= row["ratio"] <= row["highest"]
        assert min(row["ours_ms"], row["theirs_ms"]) >= 0
