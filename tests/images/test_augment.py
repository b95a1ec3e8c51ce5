import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from ocr.images.augment import augment

ROWS = 400


def many(line: np.ndarray, seed: int = 0, strength: float = 1.0, columns: int = 0) -> np.ndarray:
    """Returns ROWS augmented copies of a line, in a batch that is wider than the line by so many columns."""
    pixels = np.pad(np.tile(line, (ROWS, 1, 1)), ((0, 0), (0, 0), (0, columns)))
    changed = augment(tf.constant(pixels), tf.fill([ROWS], line.shape[1]), strength, tf.constant([5, seed])).numpy()
    assert not changed[:, :, line.shape[1] :].any()
    return changed[:, :, : line.shape[1]]


def text_line(ink: int = 30, paper: int = 220) -> np.ndarray:
    image = Image.new("L", (200, 32), paper)
    ImageDraw.Draw(image).text((6, 4), "Sphinx of quartz 47", ink, ImageFont.load_default(20))
    return np.asarray(image)


def blank(tone: int, width: int = 60) -> np.ndarray:
    return np.full((32, width), tone, np.uint8)


def contrast(changed: np.ndarray) -> np.ndarray:
    """Returns how much each pixel differs from its line's background."""
    paper = np.median(changed, axis=(1, 2), keepdims=True)
    return np.abs(changed.astype(float) - paper)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_the_seed_determines_every_pixel(dtype: tf.DType):
    pixels, width = tf.constant(np.tile(text_line(), (50, 1, 1))), tf.fill([50], 200)
    first = augment(pixels, width, 0.5, tf.constant([3, 4], dtype))
    assert (first.dtype, first.shape) == (tf.uint8, (50, 32, 200))
    np.testing.assert_array_equal(first, augment(pixels, width, 0.5, tf.constant([3, 4], dtype)))
    for other in ([3, 5], [4, 4]):
        assert np.any(first != augment(pixels, width, 0.5, tf.constant(other, dtype)), axis=(1, 2)).mean() > 0.6


def test_each_line_changes_independently_and_some_stay_unchanged():
    changed = many(text_line())
    unchanged = np.all(changed == text_line(), axis=(1, 2))
    assert 0.1 < unchanged.mean() < 0.3
    assert len(np.unique(changed[~unchanged], axis=0)) == np.sum(~unchanged)


def test_a_data_set_of_batches_of_any_shape_equals_eager_calls():
    widths = [1, 280, 3, 40, 1, 33, 1]
    rng = np.random.default_rng(0)
    lines = [rng.integers(1, 256, (32, width), np.uint8) for width in widths]
    data = tf.data.Dataset.from_generator(lambda: lines, output_signature=tf.TensorSpec([32, None], tf.uint8))
    batches = data.map(lambda line: (line, tf.shape(line)[1])).padded_batch(3)
    seeds = tf.data.Dataset.random(seed=1).batch(2)
    changes = tf.data.Dataset.zip((batches, seeds)).map(lambda batch, seed: (batch, seed, augment(*batch, 1.0, seed)))
    sizes = []
    for (pixels, width), seed, changed in changes:
        np.testing.assert_array_equal(changed, augment(pixels, width, 1.0, seed))
        assert changed.shape == pixels.shape
        assert not np.any(changed.numpy() * (np.arange(pixels.shape[2]) >= width.numpy()[:, None, None]))
        sizes.append(changed.shape)
    assert sizes == [(3, 32, 280), (3, 32, 40), (1, 32, 1)]


@pytest.fixture
def unsqueezed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ocr.images.augment._SQUEEZED", 0.0)


@pytest.mark.parametrize("width", [12, 32, 90, 280, 1200])
@pytest.mark.parametrize("tones", [(20, 220), (220, 20)])
def test_nothing_leaves_the_image_at_full_strength(width: int, tones: tuple[int, int], unsqueezed):
    framed = blank(tones[0], width)
    framed[1:-1, 1:-1] = tones[1]
    far = contrast(many(framed, columns=10))
    seen = far > far.max(axis=(1, 2), keepdims=True) / 5
    middle = slice(4, -4)
    assert seen[:, :5, middle].any(1).all(), "the top of some line is gone"
    assert seen[:, -5:, middle].any(1).all(), "the bottom of some line is gone"
    assert seen[:, middle, :6].any(2).all(), "the left of some line is gone"
    assert seen[:, middle, -6:].any(2).all(), "the right of some line is gone"


def moved(changed: np.ndarray, axis: int) -> np.ndarray:
    """Returns how far, in pixels along the axis, the ink at one end of each line is from that at the other."""
    far = contrast(changed)
    far = np.where(far > far.max(axis=(1, 2), keepdims=True) / 3, far, 0.0)
    index = np.arange(far.shape[axis]).reshape([1, -1, 1] if axis == 1 else [1, 1, -1])
    place = (far * index).sum(axis) / far.sum(axis)
    return place[:, -6:-2].mean(1) - place[:, 2:6].mean(1)


@pytest.mark.parametrize(("narrow", "narrowest"), [(True, 0.5), (False, 1.0)])
def test_some_lines_are_squeezed_anywhere_and_whole(monkeypatch: pytest.MonkeyPatch, narrow: bool, narrowest: float):
    for other in ("_WARPED", "_BLURRED", "_RELIT", "_NOISY"):
        monkeypatch.setattr(f"ocr.images.augment.{other}", 0.0)
    framed = blank(200, 280)
    framed[4:-4, 10:-10] = 20
    lines = tf.constant(np.tile(framed, (ROWS, 1, 1)))
    changed = augment(lines, tf.fill([ROWS], 280), 1.0, tf.constant([5, 0]), narrow=narrow).numpy()
    dark = changed < 110
    assert not dark[:, [0, -1]].any(), "above or below"
    assert not dark[:, :, [0, -1]].any(), "at an end"
    heights, widths = dark.any(2).sum(1), dark.any(1).sum(1)
    squeezed = heights < 24
    assert 0.2 < squeezed.mean() < 0.4
    assert heights.min() == pytest.approx(24 * 0.6, abs=1)
    assert widths.min() == pytest.approx(260 * narrowest, rel=0.03)
    assert (widths[~squeezed] >= 259).mean() > 0.95
    above, before = dark.any(2).argmax(1)[squeezed], dark.any(1).argmax(1)[squeezed]
    assert np.ptp(above) > 6
    assert (np.ptp(before) > 80) == narrow


def test_some_lines_slope_and_some_lean_slightly_both_ways(unsqueezed):
    stroke = blank(220, 280)
    stroke[15:17] = 20
    rise = moved(many(stroke), axis=1)
    assert 1.5 < rise.max() < 3.2
    assert 1.5 < -rise.min() < 3.2
    stem = blank(220, 280)
    stem[:, 139:141] = 20
    lean = moved(many(stem), axis=2)
    assert 2.0 < lean.max() < 5.0
    assert 2.0 < -lean.min() < 5.0
    assert np.mean(np.abs(rise) < 0.2) > 0.6
    assert np.mean(np.abs(lean) < 0.2) > 0.6


@pytest.mark.parametrize("tone", [30, 200])
def test_the_edge_is_repeated_beyond_the_image(tone: int):
    columns = many(blank(tone), columns=40).mean(1)
    assert np.abs(columns - np.median(columns, axis=1, keepdims=True)).max() < 10


def test_noise_is_on_some_lines_and_unbiased_with_a_deviation_of_at_most_ten():
    changed = many(blank(128)).astype(float)
    deviation = changed.std(axis=(1, 2))
    noisy = deviation > 0
    assert 0.2 < noisy.mean() < 0.4
    assert 8 < deviation.max() < 10.5
    assert np.mean(np.abs(changed[noisy].mean((1, 2)) - 128) < 0.3) > 0.4, "half of the noisy lines are no lighter or darker"
    noise = changed[noisy] - changed[noisy].mean((1, 2), keepdims=True)
    later = many(blank(128), seed=1).astype(float)
    later = later[later.std((1, 2)) > 0] - 128
    count = min(len(noise), len(later))
    pairs = [(noise[:, 1:], noise[:, :-1]), (noise[:, :, 1:], noise[:, :, :-1]), (noise[1:], noise[:-1])]
    for one, other in [*pairs, (noise[:count], later[:count])]:
        assert abs(np.mean(one * other) / np.mean(noise**2)) < 0.02, "noise repeats itself"


def test_some_lines_are_blurred_along_and_some_across():
    rng = np.random.default_rng(0)
    grain = (rng.integers(0, 2, (32, 200)) * 100 + 80).astype(np.uint8)
    far = many(grain) - many(grain).mean((1, 2), keepdims=True)
    along = (far[:, :, 1:] * far[:, :, :-1]).mean((1, 2)) / (far**2).mean((1, 2))
    across = (far[:, 1:] * far[:, :-1]).mean((1, 2)) / (far**2).mean((1, 2))
    assert ((along > 0.5) & (across < 0.15)).any()
    assert ((across > 0.5) & (along < 0.15)).any()


@pytest.mark.parametrize("darkest", [0, 120, 240])
def test_brightness_changes_but_faint_text_is_never_lost(darkest: int, unsqueezed):
    faint = blank(darkest)
    faint[:, 30:] += 15
    changed = many(faint).astype(float)
    left, right = changed[:, :, :28].mean((1, 2)), changed[:, :, 32:].mean((1, 2))
    assert np.abs(right - left).min() > 5
    assert np.std(left) > 8
    assert 0.01 < np.mean(right < left) < 0.1, "some lines are inverted, but few"


def test_contrast_does_not_clip_faint_details_in_black_or_white(unsqueezed):
    both = np.repeat(np.array([[0, 15, 240, 255]], np.uint8), 30, axis=1).repeat(32, axis=0)
    means = np.stack([many(both)[:, :, start + 2 : start + 28].mean((1, 2)) for start in (0, 30, 60, 90)])
    assert np.abs(means[0] - means[1]).min() > 5
    assert np.abs(means[2] - means[3]).min() > 5


def test_changes_grow_with_the_strength(unsqueezed):
    line = text_line().astype(float)
    changes = [np.abs(many(text_line(), strength=strength) - line).mean((1, 2)) for strength in (0.05, 0.5, 1.0)]
    means = [np.mean(change[change < 60]) for change in changes]  # without the inverted lines
    assert means[0] < 2
    assert means[0] * 4 < means[1] < means[2] * 0.8
    assert np.mean(changes[0] > 60) < 0.01


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.5, float("nan")])
def test_an_invalid_strength_is_refused(strength: float):
    with pytest.raises(ValueError, match=r"strength \("):
        many(text_line(), strength=strength)
