import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr.charset import Charset
from ocr.model import networks
from ocr.model.keep_objective import KeepObjective
from ocr.saving import warm_start
from ocr.saving.warm_start import Origin

OLD, NEW = Charset("abc"), Charset("xcab")
BATCH = {
    "pixels": tf.constant(np.random.default_rng(0).integers(0, 256, (2, 32, 40), np.uint8)),
    "width": tf.constant([40, 24]),
    "labels": tf.constant([[0, 2], [1, 0]]),  # "xa", and "c" with one character of padding
    "label_lengths": tf.constant([2, 1]),
}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture
def networks_of_both() -> tuple[keras.Model, keras.Model]:
    """Returns a network and a teacher that knows all its characters except the first."""
    keras.utils.set_random_seed(0)
    teacher = warm_start.teacher(NEW, Origin(networks.build("lite", OLD.num_classes), OLD))
    return networks.build("lite", NEW.num_classes), teacher


def test_a_teacher_has_the_same_logits_and_never_reads_what_it_does_not_know(networks_of_both):
    origin = networks.build("lite", OLD.num_classes)
    theirs, _ = networks.logits(origin, BATCH["pixels"], BATCH["width"], training=False)
    its, _ = networks.logits(warm_start.teacher(NEW, Origin(origin, OLD)), BATCH["pixels"], BATCH["width"], training=False)
    np.testing.assert_allclose(tf.gather(its, [2, 3, 1, 4], axis=2), theirs, rtol=1e-5)
    assert (its[:, :, 0].numpy() < -1e8).all()


def test_the_loss_has_the_divergence_of_the_known_classes_where_the_label_does_not_contradict(networks_of_both):
    model, teacher = networks_of_both
    logits, taught = (
        networks.logits(each, BATCH["pixels"], BATCH["width"], training=False)[0].numpy() for each in (model, teacher)
    )
    p, q = log_softmax(taught[..., 1:]), log_softmax(logits[..., 1:])
    divergence = (np.exp(p) * (p - q)).sum(2)  # [2, T]
    best = taught.argmax(2)
    counted = np.array([[c in (2, 4) for c in best[0]], [c in (1, 4) and t < 6 for t, c in enumerate(best[1])]])
    assert counted.any()
    assert not counted[:, :6].all()
    objective = KeepObjective(model, teacher, 2.0)
    line_losses, loss = objective.losses(BATCH)
    expected = float(objective.reduce(line_losses)) + 2.0 * (divergence * counted).sum() / 2
    assert float(loss) == pytest.approx(expected, rel=1e-2)  # the teacher's kernels are rounded to half precision


def test_nothing_is_lost_at_the_start_and_statistics_stay(networks_of_both):
    _, teacher = networks_of_both
    statistics = [value.numpy() for value in networks.statistics(teacher)]
    line_losses, loss = (objective := KeepObjective(teacher, teacher, 1.0)).losses(BATCH)
    assert float(loss) == pytest.approx(float(objective.reduce(line_losses)), abs=1e-3)
    for value, before in zip(networks.statistics(teacher), statistics, strict=True):
        np.testing.assert_array_equal(value.numpy(), before)
