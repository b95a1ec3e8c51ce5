import types

import numpy as np
import pytest

from tools.benchmarks import edge

for package in ("ai_edge_litert", "onnx", "onnxruntime", "tf2onnx"):
    pytest.importorskip(package)


def test_lines_to_read_are_from_everywhere_in_all_records(monkeypatch: pytest.MonkeyPatch):
    def batches(split: str) -> list[dict]:
        files = [f"{split}{number}".encode() for number in range(10)]
        return [{name: types.SimpleNamespace(numpy=lambda: np.array(files, object)) for name in ("encoded", "text")}]

    monkeypatch.setattr(edge.dataset, "find", lambda name, split: name)
    monkeypatch.setattr(edge.pipeline, "image_files", lambda split, _: batches(split))
    assert edge._spread("a,b", 11)[::5] == [(b"a0", "a0"), (b"a9", "a9"), (b"b8", "b8")]
    assert len(edge._spread("a,b", 11)) == 11
    assert len(edge._spread("a,b", 30)) == 20


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
