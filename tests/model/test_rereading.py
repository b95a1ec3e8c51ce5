import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ocr.charset import Charset
from ocr.images.preprocess import NO_CONTRAST, READ, UNDECODABLE
from ocr.model import fusion, networks, ngram_estimate, rereading
from ocr.model.recogniser import Recogniser
from ocr.saving.workdir import Workdir

WAYS = ["narrower", "wider", "larger", "smaller"]
NONE = [("", 0.0)] * 4


def read_best(
    lines: list[tuple[str, float]], again: list[list[tuple[str, float]]], status: list[int] | None = None, width: int = 10
) -> tuple[list[str], list[float], int]:
    """Reads lines.

    Args:
      lines: how each is read.
      again: how each is read in each of the ways.
      status: of each; READ if None.
      width: of each, in pixels; they are 8 pixels high.

    Returns:
      Their texts and confidences, and how many lines were read again.
    """
    pixels = np.repeat(np.arange(len(lines), dtype=np.uint8), 8 * width).reshape(-1, 8, width)  # its number is its colour
    readings = {-1: lines} | {way: [each[way] for each in again] for way in range(4)}
    calls = []

    def read(pixels: tf.Tensor, width: tf.Tensor, status: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns the last line first."""
        numbers, way = pixels[:, 0, 0].numpy(), np.full(len(pixels), -1)
        if calls:  # all lines in the first way, in the second, and so on
            way = np.arange(len(pixels)) // (len(pixels) // 4)
        calls.append(len(pixels))
        text, confidence = zip(*(readings[w][n] for w, n in zip(way, numbers, strict=True)), strict=True)
        return [tf.constant(text)[::-1], tf.constant(confidence)[::-1], status[::-1]], tf.range(len(pixels))[::-1]

    tf.config.run_functions_eagerly(True)
    try:
        codes = tf.constant(status or [READ] * len(lines))
        widths = tf.fill([len(lines)], width)
        outputs, place = read(tf.constant(pixels), widths, codes)
        turned = tf.constant([90 * (text == "turned") for text, _ in lines])
        outputs, place = rereading.best(read, outputs, place, tf.constant(pixels), widths, turned)
    finally:
        tf.config.run_functions_eagerly(False)
    text, confidence, _ = (tf.gather(output, place).numpy() for output in outputs)
    return [each.decode() for each in text], [round(float(each), 3) for each in confidence], sum(calls[1:])


@pytest.mark.parametrize(
    ("line", "again", "expected"),
    [
        (("ab", 0.1), [("cd", 0.05), ("ef", 0.3), ("gh", 0.2), ("", 0.1)], ("ef", 0.3)),
        (("ab", 0.1), [("cd", 0.05), ("ef", 0.09), ("ab", 0.4), ("gh", 0.3)], ("ab", 0.4)),
        (("ab", 0.1), [("cd", 0.05), ("ef", 0.09), ("gh", 0.01), ("", 0.9)], ("ab", 0.1)),
        (("", 0.4), [("cd", 0.05), ("ef", 0.5), ("", 0.9), ("", 0.9)], ("ef", 0.5)),
        (("ab", 0.8), [("cd", 0.9)] * 4, ("cd", 0.9)),
        (("ab", 0.82), [("cd", 0.9)] * 4, ("ab", 0.82)),
    ],
)
def test_of_a_doubtful_line_the_most_probable_text_is_taken_but_no_empty_one(line, again, expected):
    # Beside others, of which one cannot be read.
    texts, confidences, _ = read_best(
        [("good", 0.9), ("no", 0.1), line, ("12", 0.2)],
        [[("bad", 1.0)] * 4, [("yes", 1.0)] * 4, again, [("1", 0.1), ("123", 0.7), ("2", 0.1), ("3", 0.6)]],
        [READ, UNDECODABLE, READ, READ],
    )
    assert (texts, confidences) == (["good", "no", expected[0], "123"], [0.9, 0.1, expected[1], 0.7])


def test_only_doubtful_lines_that_are_not_very_long_are_read_again():
    sure, doubtful = ("ab", 0.9), ("ab", 0.1)
    assert read_best([sure, doubtful], [NONE] * 2, [READ, NO_CONTRAST])[-1] == 0
    assert read_best([sure, doubtful, doubtful], [NONE] * 3)[-1] == 8
    assert read_best([doubtful], [NONE], width=40 * 8)[-1] == 4
    assert read_best([doubtful], [NONE], width=40 * 8 + 1)[-1] == 0
    assert read_best([("turned", 0.1)], [NONE])[-1] == 0


@pytest.mark.parametrize(("number", "size"), [(0, (136, 48)), (1, (238, 48)), (2, (240, 48)), (3, (136, 48))], ids=WAYS)
def test_a_line_is_scaled_as_pillow_scales_it(number: int, size: tuple[int, int]):
    rng = np.random.default_rng(3)
    image = Image.fromarray(np.kron(rng.integers(0, 256, (8, 17)), np.ones((6, 10))).astype(np.uint8))  # 170 pixels wide
    pixels = np.asarray(image)
    top, bottom = {2: (7, 41), 3: (-6, 54)}.get(number, (0, 48))
    edges = np.pad(pixels, ((6, 6), (0, 0)), mode="edge")[6 + top : 6 + bottom]
    expected = np.asarray(Image.fromarray(edges).resize(size, Image.Resampling.BILINEAR), int)
    beyond = rng.integers(0, 256, (2, 48, 60), np.uint8)
    lines = np.concatenate([np.stack([pixels, pixels[::-1]]), beyond], axis=2)
    changed, width = (each.numpy() for each in rereading._change(tf.constant(lines), tf.constant([170, 120])))
    assert width[2 * number] == size[0]
    difference = np.abs(changed[2 * number, :, : size[0]].astype(int) - expected)
    assert np.percentile(difference, 99) <= 6
    assert difference.mean() < 1.0


@pytest.fixture(scope="module")
def read(trained):
    """Returns a function that reads image files, and doubtful lines again if it is told to."""
    model, charset, *_ = Workdir(trained.workdir).load()
    ways = [Recogniser(model, charset, reread=reread) for reread in (False, True)]
    spec = [tf.TensorSpec([None], tf.string)]
    plain, again = (
        tf.function(functools.partial(way.read_files, detailed=True), spec, autograph=False).get_concrete_function()
        for way in ways
    )

    def read(files: list[bytes], reread: bool = True) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in (again if reread else plain)(tf.constant(files)).items()}

    return read


def squeezed(file: bytes, factor: float) -> bytes:
    """Returns an image file with letters that are narrower, or wider."""
    image = tf.io.decode_image(file, 1)
    height, width = image.shape[:2]
    scaled = tf.image.resize(image, [height, round(width * factor)], antialias=True)
    return tf.io.encode_png(tf.cast(tf.round(scaled), tf.uint8)).numpy()


def test_lines_of_unusual_proportions_are_read_better_and_others_as_without(trained, files, read):
    rows = (trained.lines / "eval" / "labels.txt").read_text().splitlines()
    truths = [text for _, text in sorted(row.split("\t") for row in rows)]
    batch = [*files[:40], *(squeezed(file, 0.5) for file in files[:40]), *(squeezed(file, 1.5) for file in files[:40]), b"junk"]
    outputs, plain = read(batch), read(batch, reread=False)
    again = outputs.pop("reread") == 1
    assert outputs.keys() == plain.keys()
    for name, value in plain.items():
        length = min(value.shape[-1], outputs[name].shape[-1])
        np.testing.assert_array_equal(outputs[name][..., :length][~again], value[..., :length][~again])
    assert again.sum() >= 10
    assert not again[(plain["confidence"] >= 0.9) | (plain["status"] != READ)].any()
    assert (outputs["confidence"][again] > plain["confidence"][again]).all()
    right, right_before = (
        [text.decode() == truth for text, truth in zip(o["text"], [*truths[:40] * 3, ""], strict=True)]
        for o in (outputs, plain)
    )
    assert sum(right) > sum(right_before)


def test_a_line_that_is_read_again_is_read_alike_whatever_is_beside_it_and_its_characters_have_their_places(files, read):
    batch = [squeezed(file, factor) for file in files[:30] for factor in (0.5, 1.6)]
    outputs, unsqueezed = read(batch), read(files[:30], reread=False)
    rows = np.flatnonzero(outputs["reread"])
    assert len(rows) >= 5
    for row in rows[:5]:
        alone = read([batch[row], files[50]])
        assert (alone["text"][0], alone["reread"][0]) == (outputs["text"][row], 1)
        np.testing.assert_allclose(alone["confidence"][0], outputs["confidence"][row], rtol=1e-4)
    widths, own = ([tf.io.decode_image(file).shape[1] for file in some] for some in (batch, files[:30]))
    alike = 0
    for row in rows:
        length = len(outputs["text"][row])
        start, end = (outputs[name][row, :length] for name in ("char_start", "char_end"))
        places_in_order = [0, *np.stack([start, end], axis=1).ravel(), widths[row]]
        assert places_in_order == sorted(places_in_order)
        if outputs["text"][row] == unsqueezed["text"][row // 2]:
            alike += 1
            places = sum(unsqueezed[name][row // 2, :length] for name in ("char_start", "char_end"))
            np.testing.assert_allclose(start + end, places * widths[row] / own[row // 2], atol=0.2 * widths[row])
    assert alike >= 5


@pytest.mark.slow
def test_lines_are_read_again_with_a_language_model_and_however_they_are_turned():
    keras.utils.set_random_seed(1)
    charset, rng = Charset("0123456789"), np.random.default_rng(1)
    model = networks.build("lite", charset.num_classes)
    lm = ngram_estimate.estimate(["0123456789" * 3, "9753108642"], 2)
    fused = fusion.Fusion(lm, charset, fusion.Weights(0.5, 1.0, 2.0))
    both = Recogniser(model, charset, fusion=fused, turned_lines=True, reread=True)
    sizes = [(32, 60 + 10 * number) for number in range(8)] + [(60 + 10 * number, 24) for number in range(8)]
    noise = [tf.io.encode_png(rng.integers(0, 256, (*size, 1), np.uint8)).numpy() for size in sizes]
    outputs = {name: value.numpy() for name, value in both.read_files(tf.constant([*noise, b"junk"]), detailed=True).items()}
    assert outputs["status"].tolist() == [READ] * 16 + [UNDECODABLE]
    assert outputs["reread"].any()
    texts = [b"".join(characters) for characters in outputs["chars"]]
    assert texts == outputs["text"].tolist()
