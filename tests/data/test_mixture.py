import pathlib

import numpy as np
import pytest
from small_splits import DIGITS, take, write

from ocr.charset import Charset
from ocr.data import dummy, mixture, pipeline
from ocr.images.network_input import FrameSize
from tfrecords.errors import InputError


def test_lines_too_long_for_the_network_are_skipped_and_named(tmp_path: pathlib.Path):
    # At 8 pixels a frame, 40 pixels have 5 frames: enough for 12345 and 1223, too few for 123456 and 11223.
    texts = ["12345", "123456", "1223", "11223", "1"]
    write(tmp_path, texts, [40] * 5)
    data = mixture.mix(str(tmp_path), FrameSize(32, 8))
    assert data.skipped == ("1", "3")
    assert mixture.mix(str(tmp_path), FrameSize(32, 4)).skipped == ()
    seen = {t for batch in pipeline.training_batches(data, DIGITS, 3, 0).take(20) for t in batch["text"].numpy()}
    assert seen == {b"12345", b"1223", b"1"}


def test_splits_are_mixed_by_weight(tmp_path: pathlib.Path):
    for name, digit, count in (("a", "1", 200), ("b", "2", 50)):
        write(tmp_path / name, [digit] * count, [40] * count, "raw")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")

    def share_of_ones(spec: str) -> float:
        texts = np.concatenate([batch["text"] for batch in take(mixture.mix(spec, FrameSize(32, 4)), 31)])  # a window
        return float(np.mean(texts == b"1"))

    assert share_of_ones(f"{a}:1,{b}:3") == pytest.approx(0.25, abs=0.02)
    assert share_of_ones(f"{a},{b}") == pytest.approx(0.8, abs=0.02)
    assert share_of_ones(f"{a}@train:3,{b}@train:1") == pytest.approx(0.75, abs=0.02)
    mixed = mixture.mix(f"{a}:1,{b}:3", FrameSize(32, 4))
    assert (mixed.records, mixed.count, mixed.characters) == (250, 250, {"1": 200, "2": 50})
    assert mixed.fingerprint != mixture.mix(f"{a}:1,{b}:2", FrameSize(32, 4)).fingerprint


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{a}:3,{b}", "all of them a weight"),
        ("{a}:x,{b}:1", "the weight 'x' must be"),
        ("{a}:0,{b}:1", "the weight '0' must be"),
        ("{a}:1,{a}:2", "the same lines twice"),
        ("{a}:1,none:2", "none: no such folder"),
    ],
)
def test_an_invalid_mixture_is_refused(tmp_path: pathlib.Path, spec: str, message: str):
    for name in ("a", "b"):
        write(tmp_path / name, ["1", "2"], [40, 40])
    with pytest.raises(InputError, match=message):
        mixture.mix(spec.format(a=tmp_path / "a", b=tmp_path / "b"), FrameSize(32, 4))


def test_more_splits_than_lines_in_a_batch(tmp_path: pathlib.Path):
    folders = [str(write(tmp_path / str(number), [str(number)], [40], "raw").folder) for number in range(3)]
    texts = np.concatenate([batch["text"] for batch in take(mixture.mix(",".join(folders), FrameSize(32, 4)), 4, batch_size=2)])
    assert set(texts) == {b"0", b"1", b"2"}


def test_raw_lines_of_another_height_are_refused_and_those_of_the_networks_height_are_read(tmp_path: pathlib.Path):
    dummy.convert(str(tmp_path), 20, 11, height=48, width=72, max_label_length=3)
    with pytest.raises(InputError, match="raw pixels of lines 48 high, the network takes 32"):
        mixture.mix(str(tmp_path), FrameSize(32, 4))
    data = mixture.mix(str(tmp_path), FrameSize(48, 8))
    batch = next(iter(pipeline.training_batches(data, Charset("".join(data.characters)), 8, seed=0)))
    assert batch["pixels"].shape == (8, 48, 80)
