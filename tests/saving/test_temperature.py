import numpy as np
import pytest
import tensorflow as tf

from ocr.data import dataset, pipeline
from ocr.evaluation import evaluate
from ocr.model.recogniser import Recogniser
from ocr.saving import export, temperature
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from ocr.synthesis import render

HARD = {
    "charset": "digits",
    "width": 112,
    "min_chars": 2,
    "max_chars": 6,
    "degrade": "hard",
    "tfrecords": True,
    "split": "eval",
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two sets of lines harder than what the recogniser has learned from, so that it is wrong at times."""
    here = tmp_path_factory.mktemp("hard")
    for seed in (5, 6):
        render.render(render.RenderConfig(output=str(here / str(seed)), count=200, seed=seed, **HARD))
    return [str(here / "5"), str(here / "6")]


@pytest.mark.slow
def test_a_network_half_as_sharp_needs_twice_the_factor(trained, records):
    model, charset, *_ = Workdir(trained.workdir).load()
    recogniser = Recogniser(model, charset)
    factor = temperature.find_scale(recogniser, records[0])
    for weight in model.get_layer("logits").trainable_variables:
        weight.assign(weight * 0.5)
    assert 0.4 < factor < 1.29, "both factors have to be among those tried"
    assert temperature.find_scale(recogniser, records[0]) == pytest.approx(2.0 * factor, rel=0.1)


@pytest.mark.slow
def test_the_factor_is_that_of_lines_read_as_the_export_will(trained, records):
    model, charset, *_ = Workdir(trained.workdir).load()
    recogniser = Recogniser(model, charset)
    batches = pipeline.evaluation_batches(dataset.find(records[0], "eval"), charset, 32, 32)
    read_lines = tf.function(recogniser.read_lines, reduce_retracing=True, autograph=False)

    def nll(factor: float) -> float:
        total = 0.0
        for batch in batches:
            read = read_lines(batch["pixels"], batch["width"], True, tf.constant(factor))
            p = np.clip(np.where(read["text"] == batch["text"], read["confidence"], 1.0 - read["confidence"]), 1e-6, 1.0)
            total -= np.log(p).sum()
        return total

    factor = temperature.find_scale(recogniser, records[0], reread=True)
    assert nll(factor) <= min(nll(factor * 1.1), nll(factor / 1.1))


@pytest.mark.slow
def test_a_calibrated_export_reads_the_same_and_says_better_how_often_it_is_right(
    trained, records, tmp_path, unchecked_exports
):
    made = export.export(str(trained.workdir), str(tmp_path), calibrate=records[0])
    files = [path.read_bytes() for path in sorted((trained.lines / "eval").glob("*.png"))[:50]]
    assert saved_model.load(tmp_path)(files)[0] == saved_model.load(trained.export)(files)[0]
    before, after = (evaluate.evaluate(path, records[1])["calibration_error"] for path in (trained.export, tmp_path))
    assert made["sharpness"] != 1.0
    assert after < before
