import pathlib

import numpy as np
import pytest
import tensorflow as tf

from ocr import charset as charsets
from ocr.data import dataset, mixture, pipeline
from ocr.images.augment import augmenter
from tfrecords import schema, writer
from tfrecords.errors import InputError

DIGITS = charsets.charset_by_name("digits")


def write(
    folder: pathlib.Path, texts: list[str], widths: list[int], pixels_per_frame: int = 4, shards: int = 2
) -> dataset.Split:
    """Writes lines, a third of them each as PNG, JPEG and raw pixels; a line's pixels all are its number."""
    with writer.SplitWriter(folder, "lines", "train", DIGITS.file_text(), num_shards=2, positions=len(texts)) as out:
        for index, (text, width) in enumerate(zip(texts, widths, strict=True)):
            pixels = np.full((32, width, 1), index % 256, np.uint8)
            kind = (schema.PNG, schema.JPEG, schema.RAW)[index % 3]
            encoders = {schema.PNG: tf.io.encode_png, schema.JPEG: tf.io.encode_jpeg}
            encoded = pixels.tobytes() if kind == schema.RAW else encoders[kind](pixels).numpy()
            out.add(schema.Record(encoded, kind, 32, width, 1, text, f"{index}").serialize(), index, text, width)
        made = {"charset": "f", "image_format": "keep", "pixels_per_frame": 4}
        out.finish(**made)
    return dataset.find(str(folder), "train")


def test_evaluation_counts_every_line_once_in_order(tmp_path: pathlib.Path):
    texts, widths = [str(n) for n in range(50)], [20 + n for n in range(50)]
    lines = write(tmp_path, texts, widths)
    seen = list(pipeline.evaluation_batches(lines, DIGITS, 8))
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
    lines = write(tmp_path, [str(n) for n in range(60)], [20] * 60)

    def order(seed: int) -> list[int]:
        batches = pipeline.training_batches(mixture.mix(str(lines.folder), 4), DIGITS, 12, seed).take(10)
        return [int(text) for batch in batches for text in batch["text"].numpy()]

    first = order(0)
    assert sorted(first) == sorted([*range(60)] * 2)
    assert first[:60] != sorted(first[:60])
    assert first[:60] != first[60:]
    assert order(0) == first
    assert order(1) != first


def test_lines_too_long_for_the_network_are_named_and_left_out(tmp_path: pathlib.Path):
    # At 8 pixels a frame, 40 pixels have 5 frames: enough for 12345 and 1223, too few for 123456 and 11223.
    texts = ["12345", "123456", "1223", "11223", "1"]
    lines = write(tmp_path, texts, [40] * 5)
    data = mixture.mix(str(lines.folder), 8)
    assert data.skipped == ("1", "3")
    assert mixture.mix(str(lines.folder), 4).skipped == ()
    seen = {t for batch in pipeline.training_batches(data, DIGITS, 3, 0).take(20) for t in batch["text"].numpy()}
    assert seen == {b"12345", b"1223", b"1"}


def test_image_files_are_what_was_packed_and_raw_pixels_become_png(tmp_path: pathlib.Path):
    lines = write(tmp_path, ["1", "2", "3"], [20, 30, 40])
    batch = next(iter(pipeline.image_files(lines, 8)))
    assert (batch["filename"].numpy().tolist(), batch["text"].numpy().tolist()) == ([b"0", b"1", b"2"], [b"1", b"2", b"3"])
    assert (batch["width"].numpy().tolist(), batch["font"].numpy().tolist()) == ([20, 30, 40], [b""] * 3)
    for index, file in enumerate(batch["encoded"].numpy()):
        np.testing.assert_array_equal(tf.io.decode_image(file).numpy(), index)


def test_an_alphabet_that_lacks_a_character_is_refused_by_its_name(tmp_path: pathlib.Path):
    lines = write(tmp_path, ["12", "3a"], [40, 40])
    with pytest.raises(InputError, match=r"the alphabet lacks 'a' \(U\+0061\) of split train"):
        lines.check_writable_with(DIGITS)


def test_the_fingerprint_is_that_of_the_records_wherever_they_lie(tmp_path: pathlib.Path):
    one = write(tmp_path / "one", ["1", "2"], [40, 40])
    same = write(tmp_path / "two", ["1", "2"], [40, 40])
    other = write(tmp_path / "three", ["1", "3"], [40, 40])
    assert one.fingerprint == same.fingerprint != other.fingerprint


def take(data: mixture.Mixture, count: int, **options) -> list[dict[str, np.ndarray]]:
    given = {"batch_size": 8, "seed": 3, **options}
    batches = pipeline.training_batches(data, DIGITS, **given).take(count)
    return [{key: value.numpy() for key, value in batch.items()} for batch in batches]


def assert_same(ours: list[dict[str, np.ndarray]], theirs: list[dict[str, np.ndarray]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], key)


@pytest.fixture(scope="module")
def natural(tmp_path_factory: pytest.TempPathFactory) -> mixture.Mixture:
    """Returns 600 lines of natural widths."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 31, 600)
    texts = ["".join(map(str, rng.integers(0, 10, length))) for length in lengths]
    lines = write(tmp_path_factory.mktemp("natural"), texts, (lengths * 28 + rng.integers(0, 28, 600)).tolist())
    return mixture.mix(str(lines.folder), 4)


@pytest.mark.parametrize("start", [1, 60, 77, 1000])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_batch_is_a_function_of_seed_and_step(natural: mixture.Mixture, start: int, strength: float):
    if start < 100:
        assert_same(
            take(natural, 100, augment=augmenter(strength))[start:],
            take(natural, 100 - start, start=start, augment=augmenter(strength)),
        )
    else:
        assert_same(
            take(natural, 3, start=start, augment=augmenter(strength))[1:],
            take(natural, 2, start=start + 1, augment=augmenter(strength)),
        )


def test_workers_share_each_batch(natural: mixture.Mixture):
    whole = take(natural, 80)
    parts = [take(natural, 80, share=(index, 3)) for index in range(3)]
    for step, batch in enumerate(whole):
        assert [len(part[step]["text"]) for part in parts] == [2, 3, 3]
        names = np.concatenate([part[step]["filename"] for part in parts])
        np.testing.assert_array_equal(names, batch["filename"])


def test_lines_of_like_width_come_together(natural: mixture.Mixture):
    batches = take(natural, 75)
    own = sum(int(batch["width"].sum()) for batch in batches)
    pixels = sum(batch["pixels"].shape[0] * batch["pixels"].shape[2] for batch in batches)
    assert own / pixels > 0.85
    assert len({batch["pixels"].shape[2] for batch in batches}) > 20


def test_several_sets_are_mixed_by_weight(tmp_path: pathlib.Path):
    for name, digit, count in (("a", "1", 200), ("b", "2", 50)):
        write(tmp_path / name, [digit] * count, [40] * count)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")

    def share_of_ones(spec: str) -> float:
        texts = np.concatenate([batch["text"] for batch in take(mixture.mix(spec, 4), 100)])
        return float(np.mean(texts == b"1"))

    assert share_of_ones(f"{a}:1,{b}:3") == pytest.approx(0.25, abs=0.02)
    assert share_of_ones(f"{a},{b}") == pytest.approx(0.8, abs=0.02)
    assert share_of_ones(f"{a}@train:3,{b}@train:1") == pytest.approx(0.75, abs=0.02)
    mixed = mixture.mix(f"{a}:1,{b}:3", 4)
    assert (mixed.records, mixed.count, mixed.characters) == (250, 250, {"1": 200, "2": 50})
    assert mixed.fingerprint != mixture.mix(f"{a}:1,{b}:2", 4).fingerprint


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
def test_what_cannot_be_mixed_is_refused(tmp_path: pathlib.Path, spec: str, message: str):
    for name in ("a", "b"):
        write(tmp_path / name, ["1", "2"], [40, 40])
    with pytest.raises(InputError, match=message):
        mixture.mix(spec.format(a=tmp_path / "a", b=tmp_path / "b"), 4)


def test_fewer_lines_than_a_batch_go_round(tmp_path: pathlib.Path):
    lines = write(tmp_path, ["1", "2", "3"], [40, 50, 60])
    texts = np.concatenate([batch["text"] for batch in take(mixture.mix(str(lines.folder), 4), 3)])
    assert sorted(texts) == sorted([b"1", b"2", b"3"] * 8)


def test_augmentation_changes_pixels_alone(natural: mixture.Mixture):
    for plain, varied in zip(take(natural, 3), take(natural, 3, augment=augmenter(1.0)), strict=True):
        assert (plain["pixels"] != varied["pixels"]).any()
        for key in ("width", "labels", "label_lengths", "text", "filename"):
            np.testing.assert_array_equal(plain[key], varied[key])


def test_more_sets_than_lines_in_a_batch(tmp_path: pathlib.Path):
    folders = [str(write(tmp_path / str(number), [str(number)], [40]).folder) for number in range(5)]
    texts = np.concatenate([batch["text"] for batch in take(mixture.mix(",".join(folders), 4), 6, batch_size=2)])
    assert set(texts) == {b"0", b"1", b"2", b"3", b"4"}
