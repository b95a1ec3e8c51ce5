import numpy as np
import pytest

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.data import dataset, mixture, pipeline
from ocr.evaluation import evaluate
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.saving import warm_start
from ocr.saving.warm_start import Origin
from ocr.saving.workdir import Workdir
from ocr.training import new_characters


@pytest.mark.slow
def test_new_characters_are_read_before_anything_else_of_a_network_changes(trained):
    model, known = Workdir(trained.workdir).load().model, Charset("012345689")
    kernel, bias = model.get_layer("logits").get_weights()
    without = networks.build("lite", known.num_classes)  # a network that has never known the digit 7
    without.set_weights([*model.get_weights()[:-2], np.delete(kernel, 7, axis=1), np.delete(bias, 7)])
    charset, origin = charsets.charset_by_name("digits"), Origin(without, known)
    learner = networks.build("lite", charset.num_classes)
    warm_start.take_weights(learner, charset, origin)
    held_out = dataset.find(str(trained.records), "eval")

    def cer() -> float:
        return evaluate.evaluate_network(learner, charset, held_out)[1]["cer"]

    assert cer() > 0.08
    before = [np.copy(value) for value in learner.get_weights()]
    data = mixture.mix(str(trained.records), networks.network("lite").frame)
    batches = pipeline.training_batches(data, charset, 16, seed=0)
    new_characters.learn(Objective(learner), warm_start.new_classes(charset, origin), batches, lambda: False)
    assert cer() < 0.01
    *others, kernel, bias = learner.get_weights()
    for now, was in zip(others, before, strict=False):
        np.testing.assert_array_equal(now, was)
    known_classes = [*range(7), 8, 9, charset.blank]
    np.testing.assert_array_equal(kernel[:, known_classes], before[-2][:, known_classes])
    np.testing.assert_array_equal(bias[known_classes], before[-1][known_classes])
