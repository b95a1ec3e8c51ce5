import pathlib
import shutil

import numpy as np
import pytest
from trainings import digits_config

from ocr import charset as charsets
from ocr.model import networks
from ocr.saving import export, warm_start
from ocr.saving.workdir import Workdir
from ocr.training import train
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError


def test_initial_weights_come_from_a_training_or_export_with_another_alphabet(trained, tmp_path: pathlib.Path):
    their_charset, own_charset = charsets.charset_by_name("digits"), charsets.Charset("9a0")
    for source in (trained.workdir, trained.export):
        model = networks.build("lite", own_charset.num_classes)
        assert warm_start.take_weights(model, own_charset, warm_start.load(str(source), "lite")) == 2
        other = Workdir(trained.workdir).load().model
        their_kernel, their_bias = other.get_layer("logits").get_weights()
        for weight, origin in zip(model.weights[:-2], other.weights[:-2], strict=True):
            np.testing.assert_array_equal(weight.numpy(), origin.numpy())
        for mine, its in ((0, 9), (2, 0), (own_charset.blank, their_charset.blank)):
            np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0][:, mine], their_kernel[:, its])
            assert model.get_layer("logits").get_weights()[1][mine] == their_bias[its]
        # "a" gets the mean of what the ten digits have.
        for mine, its in zip(model.get_layer("logits").get_weights(), (their_kernel, their_bias), strict=True):
            np.testing.assert_allclose(mine[..., 1], its[..., :10].mean(-1), atol=1e-5)


def test_weights_are_averaged_with_those_that_they_were_trained_from_but_not_new_characters():
    old, new = charsets.charset_by_name("digits"), charsets.Charset("9a0")
    origin = warm_start.Origin(networks.build("lite", old.num_classes), old)
    model = networks.build("lite", new.num_classes)
    trained = [np.copy(value) for value in model.get_weights()]
    warm_start.average(model, new, origin, 0.25)
    for is_now, was, start in zip(model.get_weights()[:-2], trained[:-2], origin.model.get_weights()[:-2], strict=True):
        np.testing.assert_allclose(is_now, 0.75 * was + 0.25 * start, rtol=1e-5, atol=1e-6)
    kernel, start = model.get_weights()[-2], origin.model.get_weights()[-2]
    np.testing.assert_array_equal(kernel[:, 1], trained[-2][:, 1])  # "a"
    for own, its in ((0, 9), (2, 0), (new.blank, old.blank)):
        np.testing.assert_allclose(kernel[:, own], 0.75 * trained[-2][:, own] + 0.25 * start[:, its], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_training_with_the_weights_of_another_one_reads_at_once(trained, tmp_path: pathlib.Path):
    fields = {"steps": 1, "learning_rate": 1e-9, "eval_every": 1, "ema": 0.9, "init_from": str(trained.export), "replicas": 2}
    assert train.train(digits_config(trained, tmp_path / "run", **fields))["cer"] < 0.02
    # It is ignored when the training resumes.
    fields |= {"steps": 2, "init_from": "/gone", "replicas": 0}
    assert train.train(digits_config(trained, tmp_path / "run", **fields))["steps"] == 2


@pytest.mark.slow
def test_what_a_training_keeps_and_started_from_stays_known(trained, tmp_path: pathlib.Path, unchecked_exports):
    run = tmp_path / "run"
    fields = {"init_from": str(trained.export), "keep": 1.0, "learning_rate": 1e-3, "steps": 4, "eval_every": 4}
    train.train(digits_config(trained, run, **fields, checkpoint_every=2))
    done = train.train(digits_config(trained, run, **fields | {"steps": 6}))  # resumes with the same teacher
    assert done["steps"] == 6
    assert done["cer"] < 0.02
    about = files.read_json(trained.export / "1" / "assets.extra" / "model.json")
    written = export.export(str(run), str(tmp_path / "export"))["export"]
    made_of = files.read_json(pathlib.Path(written) / "assets.extra" / "model.json")["made_of"]
    assert made_of["init_from"] == about["weights"]
    with pytest.raises(InputError, match=r"init_from: saved .*, given "):
        train.train(digits_config(trained, run, **fields | {"init_from": str(run), "steps": 8}))


@pytest.mark.parametrize(
    ("source", "model", "error", "message"),
    [
        ("/nowhere", "lite", InputError, "--init_from=/nowhere: no such folder"),
        (None, "cnn", InputError, "has the network lite, this training cnn"),
        ("cut", "lite", IntegrityError, "damaged export"),
    ],
    ids=["no such folder", "another network", "a truncated export"],
)
def test_unusable_initial_weights_are_refused(trained, tmp_path: pathlib.Path, source, model: str, error, message: str):
    if source == "cut":
        source = str(shutil.copytree(trained.export, tmp_path / "cut"))
        path = tmp_path / "cut" / "1" / "saved_model.pb"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(error, match=message):
        train.train(digits_config(trained, tmp_path / "run", model=model, init_from=source or str(trained.export)))
