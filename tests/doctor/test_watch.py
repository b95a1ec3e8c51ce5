import keras
import pytest
import tensorflow as tf
from keras import layers

from ocr import charset as charsets
from ocr.doctor.watch import Watch
from ocr.evaluation.metrics import LineResult
from ocr.model import networks
from ocr.model.objective import Objective

CHARSET = charsets.charset_by_name("digits")
TRUTHS = ["012", "345", "678", "901"]


class Watched:
    """A watch over a network of its own, with the reports it has written."""

    def __init__(self):
        keras.utils.set_random_seed(0)
        self.model = networks.build("lite", CHARSET.num_classes)
        self.reports: list[dict] = []
        self.watch = Watch(Objective(self.model), {"uniform": 50.0}, 0.001, [], self.reports.append)

    @property
    def codes(self) -> list[str]:
        return [finding["code"] for finding in self.reports[-1]["findings"]]

    def take_steps(self, change: float, loss: float, step: int = 20) -> None:
        """Scales all weights by 1 + change, as ten steps."""
        weights = self.model.trainable_variables
        self.watch.before_steps(weights)
        for weight in weights:
            weight.assign(weight * (1.0 + change))
        self.watch.after_steps(step, 10, loss, 0.001, weights)

    def read(self, texts: list[str]) -> None:
        pixels = tf.random.stateless_uniform([4, 32, 64], (0, 0), 0, 256, tf.int32)
        batch = {"pixels": tf.cast(pixels, tf.uint8), "width": tf.fill([4], 64)}
        results = [LineResult("", truth, text, 0.5) for truth, text in zip(TRUTHS, texts, strict=True)]
        self.watch.after_evaluation(results, CHARSET, batch)


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.mark.parametrize(
    ("change", "loss", "step", "codes"),
    [
        pytest.param(0.1, 40.0, 20, [], id="healthy"),
        pytest.param(6.0, 40.0, 10, ["rate_high"], id="weights replaced"),
        pytest.param(float("nan"), 40.0, 10, ["rate_high"], id="weights not finite"),
        pytest.param(1e-6, 49.0, 20, ["rate_low"], id="weights still"),
        pytest.param(1e-6, 49.0, 10, [], id="too early to tell"),
        pytest.param(1e-6, 10.0, 20, [], id="weights still but loss low"),
    ],
)
def test_a_rate_is_judged_by_how_far_it_moves_the_weights(watched: Watched, change, loss, step, codes):
    watched.take_steps(change, loss, step)
    assert watched.codes == codes


def test_a_loss_that_blows_up_is_a_high_rate(watched: Watched, caplog):
    watched.take_steps(0.1, 60.0)  # an untrained network's loss may be above uniform
    watched.take_steps(0.1, 85.0)
    assert watched.codes == []
    watched.take_steps(0.1, 95.0)
    watched.take_steps(0.1, 99.0)
    assert watched.codes == ["rate_high"]
    assert caplog.text.count("doctor: rate_high: ") == 1


def test_a_network_that_reads_nothing_yet_is_not_gone_blank(watched: Watched):
    watched.read([""] * 4)
    assert watched.codes == []
    norm = [layer for layer in watched.model.layers if isinstance(layer, layers.BatchNormalization)][-1]
    norm.gamma.assign(tf.zeros_like(norm.gamma))
    norm.beta.assign(-tf.ones_like(norm.beta))
    watched.read([""] * 4)
    assert watched.codes == ["collapsed_blank"]


@pytest.mark.parametrize(
    ("texts", "codes"),
    [
        pytest.param(TRUTHS, [], id="right"),
        pytest.param(["123", "456", "789", "012"], ["labels_shifted"], id="next class"),
        pytest.param(["901", "234", "567", "890"], ["labels_shifted"], id="class before"),
        pytest.param(["444", "111", "222", "333"], [], id="wrong"),
        pytest.param(["1", "1", "1", "1"], [], id="one character"),
    ],
)
def test_labels_of_a_shifted_alphabet_show_in_what_is_read(watched: Watched, texts: list[str], codes: list[str]):
    watched.read(texts)
    assert watched.codes == codes


@pytest.mark.parametrize(
    ("doubted", "log_probability", "codes"),
    [
        pytest.param(6, -30.0, ["labels_wrong"], id="three in a hundred"),
        pytest.param(2, -30.0, [], id="one in a hundred"),
        pytest.param(6, -2.0, [], id="lines that are hard to read"),
        pytest.param(6, float("-inf"), [], id="characters that the network does not know"),
    ],
)
def test_labels_are_doubted_that_the_images_contradict(watched: Watched, doubted, log_probability, codes):
    right = [LineResult("", "01234", "01234", 0.9, log_probability=-0.1)] * (200 - doubted)
    wrong = [LineResult("", "01235", "01234", 0.9, log_probability=log_probability)] * doubted
    watched.watch.after_evaluation(right + wrong, CHARSET, {})
    assert watched.codes == codes


@pytest.mark.parametrize(("texts", "codes"), [(["012", "3", "", "9"], ["forgetting"]), (["012", "345", "", "9"], [])])
def test_lines_that_the_initial_weights_read_and_the_new_ones_do_not_are_forgetting(watched: Watched, texts, codes):
    read_before = [LineResult("", truth, text, 0.5) for truth, text in zip(TRUTHS, ["012", "345", "678", "901"], strict=True)]
    watched.watch.remember(read_before)
    watched.read(texts)
    assert watched.codes == codes
