import json
import pathlib

import pytest

from ocr.training import puzzle
from tfrecords.errors import InputError


@pytest.mark.slow
@pytest.mark.proof("doctor-proof")
def test_softmax_gets_stuck_and_logits_do_not_within_a_few_steps(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(puzzle, "_LAST", 10)
    ends = ("softmax, batch norm training", "logits, batch norm training")
    monkeypatch.setattr(puzzle, "WAYS", {name: puzzle.WAYS[name] for name in ends})
    result = puzzle.reproduce(str(tmp_path / "puzzle"), steps=40)
    stuck, free = (result["ways"][name] for name in ends)
    assert stuck["findings"] == ["probabilities_as_logits"]
    assert free["findings"] == []
    assert stuck["settles_at"] > result["references"]["double_softmax"] - 15
    assert free["settles_at"] < 120
    curves = json.loads((tmp_path / "puzzle" / "curves.json").read_text())
    assert [len(curve) for curve in curves["curves"].values()] == [4, 4]
    assert (tmp_path / "puzzle" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_steps_are_refused(tmp_path: pathlib.Path):
    with pytest.raises(InputError, match="--steps=10: must be 100 or more"):
        puzzle.reproduce(str(tmp_path / "puzzle"), steps=10)
    assert not list(tmp_path.iterdir())
