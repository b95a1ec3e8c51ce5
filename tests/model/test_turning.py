import functools
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ocr.charset import Charset
from ocr.images.preprocess import NO_CONTRAST, READ, UNDECODABLE
from ocr.model import fusion, networks, ngram_estimate, turning
from ocr.model.recogniser import Recogniser
from ocr.saving.workdir import Workdir

NONE = ("", 0.0)


class Reader:
    """Reads lines by the value of their first pixel, and returns the last line first."""

    def __init__(self, readings: list[tuple[str, float]]):
        self._texts, self._confidences = tf.constant([text for text, _ in readings]), tf.constant([c for _, c in readings])
        self.lines_read = tf.Variable(0)

    def __call__(self, pixels: tf.Tensor, width: tf.Tensor, status: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        self.lines_read.assign_add(tf.size(width))
        first = tf.cast(pixels[::-1, 0, 0], tf.int32)
        outputs = [tf.gather(self._texts, first), tf.gather(self._confidences, first), status[::-1]]
        return outputs, tf.range(tf.size(width))[::-1]


def read_best(
    upright: list[tuple[str, float]], turned: list[list[tuple[str, float]]], status: list[int]
) -> tuple[list[str], list[int], list[int], int]:
    """Reads lines.

    Args:
      upright: how each is read as it is shown.
      turned: how each is read by 180 degrees; or, if its image is tall, by 90 and 270.
      status: of each.

    Returns:
      Their texts, by how many degrees each was turned, their statuses, and how many lines were read turned.
    """
    rows = len(upright)
    pixels, width = np.full((rows, 2, 5), 99, np.uint8), 1 + np.arange(rows) % 5
    on_side, side_width = np.full((rows, 2, 3), 99, np.uint8), np.zeros(rows, int)
    readings = list(upright)

    def paint(lines: np.ndarray, row: int, line_width: int, places: list[tuple[str, float] | int]) -> None:
        """Makes the first pixel and the last, which is the first upside down, the numbers of readings."""
        for place, value in zip(((0, 0), (-1, line_width - 1)), places, strict=True):
            if not isinstance(value, int):
                readings.append(value)
                value = len(readings) - 1
            lines[row][place] = value

    for row, ways in enumerate(turned):
        paint(pixels, row, width[row], [row, ways[0] if len(ways) == 1 else NONE])
        if len(ways) == 2:
            side_width[row] = 1 + row % 3
            paint(on_side, row, side_width[row], list(ways))
    reader = Reader(readings)
    lines, sides = (
        turning.Lines(tf.constant(p), tf.constant(w, tf.int32)) for p, w in ((pixels, width), (on_side, side_width))
    )
    outputs, place = reader(*lines, tf.constant(status))
    reader.lines_read.assign(0)
    outputs, place, degrees = turning.best(reader, outputs, place, lines, sides)
    text, _, code = (tf.gather(output, place).numpy() for output in outputs)
    return [each.decode() for each in text], degrees.numpy().tolist(), code.tolist(), int(reader.lines_read)


@pytest.mark.parametrize(
    ("upright", "turned", "text", "degrees"),
    [
        pytest.param(("ab", 0.1), [("xy", 0.6)], "xy", 180, id="upside down"),
        pytest.param(("", 0.1), [("xy", 0.6)], "xy", 180, id="nothing, upside down"),
        pytest.param(("ab", 0.5), [("xy", 0.99)], "ab", 0, id="sure"),
        pytest.param(("口", 0.71), [("中", 1.0)], "口", 0, id="one sure character"),
        pytest.param(("ab", 0.1), [("xy", 0.4)], "ab", 0, id="not much more probable"),
        pytest.param(("abcdefgh", 0.01), [("x", 0.06)], "abcdefgh", 0, id="only shorter"),
        pytest.param(("ab", 0.1), [("", 0.99)], "ab", 0, id="nothing upside down"),
        pytest.param(("", 0.99), [("xy", 0.6), ("zz", 0.2)], "xy", 90, id="on its side"),
        pytest.param(("", 0.99), [("zz", 0.5), ("xy", 0.6)], "xy", 270, id="on its other side"),
        pytest.param(("", 0.99), [("xy", 0.4), ("zz", 0.4)], "", 0, id="tall and doubtful in any way"),
        pytest.param(("1", 0.9), [("xy", 0.99), ("zz", 0.2)], "1", 0, id="a tall character"),
    ],
)
def test_what_is_much_more_probable_once_it_is_turned_is_turned(upright, turned, text: str, degrees: int):
    # Beside others, of which one cannot be read.
    around = [("good", 0.9), ("no", 0.1), ("123", 0.9)]
    beside = [[("bad", 1.0)], [("yes", 1.0)], [NONE, NONE]]
    texts, turns, _, _ = read_best([*around, upright], [*beside, turned], [READ, UNDECODABLE, READ, READ])
    assert (texts, turns) == (["good", "no", "123", text], [0, 0, 0, degrees])


def test_a_tall_image_whose_columns_show_nothing_is_read_on_its_side():
    ways = [[("xy", 0.9), NONE], [("xy", 0.9)], [NONE, NONE]]
    texts, turns, status, _ = read_best([NONE] * 3, ways, [NO_CONTRAST] * 3)
    assert (texts, turns, status) == (["xy", "", ""], [90, 0, 0], [READ, NO_CONTRAST, NO_CONTRAST])


def test_only_doubtful_lines_are_read_again():
    sure, doubtful = ("ab", 0.9), ("ab", 0.1)
    assert read_best([sure] * 3, [[NONE], [NONE, NONE], [NONE]], [READ] * 3)[-1] == 0
    assert read_best([sure, doubtful, sure, doubtful], [[NONE], [NONE], [NONE, NONE], [NONE, NONE]], [READ] * 4)[-1] == 3


def turn(file: bytes, degrees: int) -> bytes:
    """Returns an image file turned clockwise."""
    turned = io.BytesIO()
    Image.open(io.BytesIO(file)).rotate(-degrees, expand=True).save(turned, "png")
    return turned.getvalue()


@pytest.fixture(scope="module")
def read(trained):
    """Returns a function that reads image files, and turned lines if it is told to."""
    model, charset, *_ = Workdir(trained.workdir).load()
    files = [tf.TensorSpec([None], tf.string)]
    ways = [Recogniser(model, charset, turned_lines=turned_lines) for turned_lines in (False, True)]
    functions = [tf.function(functools.partial(way.read_files, detailed=True), files, autograph=False) for way in ways]
    plain, both = (function.get_concrete_function() for function in functions)

    def read(files: list[bytes], turned_lines: bool = True) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in (both if turned_lines else plain)(tf.constant(files)).items()}

    return read


def test_upright_lines_are_read_as_without_and_images_that_are_not_read_are_not_turned(files, read):
    blank = turn(tf.io.encode_png(np.full((32, 99, 1), 255, np.uint8)).numpy(), 90)
    batch = [*files[:30], b"junk", b"", blank, files[0][:200]]
    outputs, expected = read(batch), read(batch, turned_lines=False)
    assert not outputs.pop("turned").any()
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value)


def test_turned_lines_are_read_as_they_are_upright_whatever_is_beside_them(files, read):
    upright = read(files[:50])
    turns = (90, 180, 270)
    batch = [turn(file, degrees) for file in files[:50] for degrees in turns]
    outputs = read([*batch, b"junk", files[0]])
    assert outputs["status"].tolist() == [0] * 150 + [1, 0]
    assert outputs["turned"][150:].tolist() == [0, 0]
    # In a digit upside down there is often another one. What is turned is turned back.
    turned = outputs["turned"][:150].reshape(50, 3)
    back = turned == 360 - np.array(turns)
    assert (back.sum(0) >= [35, 3, 35]).all()
    assert (outputs["text"][:150].reshape(50, 3) == upright["text"][:, np.newaxis])[back].all()
    # The network sees the same pixels, so a text is as probable as it is upright.
    confidence = outputs["confidence"][:150].reshape(50, 3), np.tile(upright["confidence"][:, np.newaxis], 3)
    np.testing.assert_allclose(*(values[back] for values in confidence), atol=1e-4)
    # In the columns of the image as it is shown.
    lengths = (upright["chars"] != b"").sum(1)
    for row in np.flatnonzero(back[:, 1]):
        start, end = (outputs[name][3 * row + 1, : lengths[row]] for name in ("char_start", "char_end"))
        np.testing.assert_array_equal(start, 112 - upright["char_end"][row, : lengths[row]])
        np.testing.assert_array_equal(end, 112 - upright["char_start"][row, : lengths[row]])
    for row in np.flatnonzero(back[:, 0]):
        assert set(outputs["char_start"][3 * row, : lengths[row]]) == {0}
        assert set(outputs["char_end"][3 * row, : lengths[row]]) == {32}
    for row in (0, 1, 2, 4, 7):
        alone = read([batch[row]])
        assert (alone["text"][0], alone["turned"][0]) == (outputs["text"][row], outputs["turned"][row])


@pytest.mark.slow
@pytest.mark.alike
def test_a_language_model_decodes_lines_whichever_way_they_are_turned(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turning, "_RATIO", 1.0)  # an untrained network reads rubbish in any way
    monkeypatch.setattr(turning, "_PER_CHARACTER", 1.0)
    keras.utils.set_random_seed(1)
    charset, rng = Charset("0123456789"), np.random.default_rng(1)
    model = networks.build("lite", charset.num_classes)
    for weight in model.get_layer("logits").trainable_variables:
        weight.assign(weight * 5.0)
    lm = ngram_estimate.estimate(["0123456789" * 3, "9753108642"], 2)
    fused = fusion.Fusion(lm, charset, fusion.Weights(0.5, 1.0, 2.0))
    plain, both = (Recogniser(model, charset, fusion=fused, turned_lines=turned_lines) for turned_lines in (False, True))
    sizes = [(32, 60 + 10 * number) for number in range(8)] + [(60 + 10 * number, 24) for number in range(8)]
    blocks = [np.kron(rng.integers(0, 256, (20, 25)), np.ones((8, 6))).astype(np.uint8) for _ in sizes]
    files = [tf.io.encode_png(image[:h, :w, np.newaxis]).numpy() for image, (h, w) in zip(blocks, sizes, strict=True)]
    outputs = both.read_files(tf.constant([*files, b"junk"]), detailed=True)
    degrees = outputs["turned"].numpy().tolist()
    assert {*degrees} >= {90, 180, 270}
    shown = [turn(file, turned) for file, turned in zip(files, degrees, strict=False)]
    expected = plain.read_files(tf.constant([*shown, b"junk"]), detailed=True)
    for name in ("text", "chars", "status"):
        assert outputs[name].numpy().tolist() == expected[name].numpy().tolist()
    for name in ("confidence", "char_confidence", "fused_score"):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-3, atol=1e-6)
    assert outputs["fused_score"][-1] == np.log(np.finfo(np.float32).tiny), "that of nothing, with confidence 0"
