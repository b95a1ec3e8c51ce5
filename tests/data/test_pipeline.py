import pathlib

import numpy as np
import pytest
import tensorflow as tf
from small_splits import DIGITS, take, write

from ocr.data import mixture, pipeline
from ocr.images.augment import augmenter
from ocr.images.network_input import FrameSize


def test_evaluation_counts_every_line_once_in_order(tmp_path: pathlib.Path):
    texts, widths = [str(n) for n in range(50)], [20 + n for n in range(50)]
    split = write(tmp_path, texts, widths)
    seen = list(pipeline.evaluation_batches(split, DIGITS, 8, 32))
    assert [batch["width"].shape[0] for batch in seen] == [8] * 6 + [2]
    assert [t.decode() for batch in seen for t in batch["text"].numpy()] == texts
    for batch in seen:
        pixels, width = batch["pixels"].numpy(), batch["width"].numpy()
        assert pixels.shape[1:] == (32, width.max())
        for row, text, own in zip(pixels, batch["text"].numpy(), width, strict=True):
            assert own == widths[int(text)]
            np.testing.assert_array_equal(row[:, :own], int(text))
            assert not row[:, own:].any()
        labels = zip(batch["labels"].numpy(), batch["label_lengths"].numpy(), strict=True)
        assert [DIGITS.decode(row[:n]).encode() for row, n in labels] == batch["text"].numpy().tolist()


def test_training_shuffles_and_sees_every_line_equally_often(tmp_path: pathlib.Path):
    split = write(tmp_path, [str(n) for n in range(60)], [20] * 60, "raw")

    def order(seed: int) -> list[int]:
        batches = pipeline.training_batches(mixture.mix(str(split.folder), FrameSize(32, 4)), DIGITS, 12, seed).take(10)
        return [int(text) for batch in batches for text in batch["text"].numpy()]

    first = order(0)
    assert sorted(first) == sorted([*range(60)] * 2)
    assert first[:60] != sorted(first[:60])
    assert first[:60] != first[60:]
    assert order(0) == first
    assert order(1) != first


def test_image_files_are_returned_unchanged_and_raw_pixels_as_png(tmp_path: pathlib.Path):
    split = write(tmp_path, ["1", "2", "3"], [20, 30, 40])
    batch = next(iter(pipeline.image_files(split, 8)))
    assert (batch["filename"].numpy().tolist(), batch["text"].numpy().tolist()) == ([b"0", b"1", b"2"], [b"1", b"2", b"3"])
    assert (batch["width"].numpy().tolist(), batch["font"].numpy().tolist()) == ([20, 30, 40], [b""] * 3)
    for index, file in enumerate(batch["encoded"].numpy()):
        np.testing.assert_array_equal(tf.io.decode_image(file).numpy(), index)


def assert_same(batches: list[dict[str, np.ndarray]], others: list[dict[str, np.ndarray]]) -> None:
    for one, other in zip(batches, others, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], key)


@pytest.fixture(scope="module")
def natural(tmp_path_factory: pytest.TempPathFactory) -> mixture.Mixture:
    """Returns 600 lines of natural widths."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 31, 600)
    texts = ["".join(map(str, rng.integers(0, 10, length))) for length in lengths]
    split = write(tmp_path_factory.mktemp("natural"), texts, (lengths * 28 + rng.integers(0, 28, 600)).tolist())
    return mixture.mix(str(split.folder), FrameSize(32, 4))


# Step 75 begins a new window.
@pytest.mark.parametrize(
    ("first", "start", "end", "strength"),
    [
        (72, 74, 77, 1.0),
        *(
            pytest.param(*steps, strength, marks=pytest.mark.slow)
            for steps in ((0, 1, 100), (0, 60, 100), (0, 77, 100), (1000, 1001, 1003))
            for strength in (0.0, 1.0)
        ),
    ],
)
def test_a_batch_is_a_function_of_seed_and_step(natural: mixture.Mixture, first: int, start: int, end: int, strength: float):
    batches = take(natural, end - first, start=first, augment=augmenter(strength))
    assert_same(batches[start - first :], take(natural, end - start, start=start, augment=augmenter(strength)))


# Step 75 begins a new window.
@pytest.mark.parametrize(("start", "steps"), [(72, 6), pytest.param(0, 80, marks=pytest.mark.slow)])
def test_workers_share_each_batch(natural: mixture.Mixture, start: int, steps: int):
    batches = take(natural, steps, start=start)
    parts = [take(natural, steps, start=start, share=(worker, 3)) for worker in range(3)]
    for step, batch in enumerate(batches):
        assert [len(part[step]["text"]) for part in parts] == [2, 3, 3]
        names = np.concatenate([part[step]["filename"] for part in parts])
        np.testing.assert_array_equal(names, batch["filename"])


def test_lines_of_similar_width_share_batches(natural: mixture.Mixture):
    batches = take(natural, 75)
    own = sum(int(batch["width"].sum()) for batch in batches)
    pixels = sum(batch["pixels"].shape[0] * batch["pixels"].shape[2] for batch in batches)
    assert own / pixels > 0.85
    assert len({batch["pixels"].shape[2] for batch in batches}) > 20


def test_a_split_smaller_than_a_batch_is_repeated(tmp_path: pathlib.Path):
    split = write(tmp_path, ["1", "2", "3"], [40, 50, 60])
    texts = np.concatenate([batch["text"] for batch in take(mixture.mix(str(split.folder), FrameSize(32, 4)), 3)])
    assert sorted(texts) == sorted([b"1", b"2", b"3"] * 8)


def test_augmentation_changes_only_pixels(natural: mixture.Mixture):
    for plain, varied in zip(take(natural, 3), take(natural, 3, augment=augmenter(1.0)), strict=True):
        assert (plain["pixels"] != varied["pixels"]).any()
        for key in ("width", "labels", "label_lengths", "text", "filename"):
            np.testing.assert_array_equal(plain[key], varied[key])
