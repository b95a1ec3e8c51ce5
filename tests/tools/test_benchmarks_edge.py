import pytest

from tools.benchmarks import edge

for package in ("ai_edge_litert", "onnx", "onnxruntime", "tf2onnx"):
    pytest.importorskip(package)


@pytest.mark.slow
def test_a_conversion_is_smaller_starts_faster_and_reads_the_same(trained):
    rows = edge.measure(
        20, str(trained.export), str(trained.records), kinds=[("litert", "float32"), ("litert", "int8")], starts=1
    )
    kinds = ["SavedModel", "litert, float32", "litert, int8"]
    assert list(rows) == [*kinds, "ocr_predict, SavedModel", "ocr_predict, litert, float32"]
    assert {rows[kind]["lines"] for kind in kinds} == {20}
    assert min(rows[kind]["ms"] for kind in kinds) > 0
    assert rows["litert, float32"]["same_text"] == rows["litert, float32"]["same_text_files"] == 20
    assert rows["litert, float32"]["cer"] == rows["SavedModel"]["cer"] < 0.1
    assert rows["litert, int8"]["bytes"] < 0.4 * rows["litert, float32"]["bytes"]
    assert rows["ocr_predict, litert, float32"]["cpu_s"] < rows["ocr_predict, SavedModel"]["cpu_s"]
