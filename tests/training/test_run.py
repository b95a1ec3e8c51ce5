import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from trainings import config, digits_config, journal, metric, tensors

from ocr.model.objective import Objective
from ocr.saving.workdir import Workdir
from ocr.training import train
from tfrecords.errors import IntegrityError


def test_a_loss_that_stays_non_finite_stops_the_training(records: str, tmp_path: pathlib.Path):
    settings = config(records, tmp_path / "run", learning_rate=1e30, optimizer="sgd", schedule="constant", steps=40)
    with pytest.raises(IntegrityError, match=r"the loss or a gradient was not finite in \d+ steps in a row, up to step"):
        train.train(settings)


def test_non_finite_weights_are_not_saved(records: str, tmp_path: pathlib.Path):
    blown = {"learning_rate": 1e30, "optimizer": "sgd", "schedule": "constant", "steps": 1}
    with pytest.raises(IntegrityError, match="not finite"):
        train.train(config(records, tmp_path / "run", **blown))
    assert not list((tmp_path / "run").glob("*/ckpt-*"))


@pytest.mark.alike
def test_a_stopped_training_logs_its_last_steps(records: str, tmp_path: pathlib.Path):
    answers = iter([False, True])
    train.train(config(records, tmp_path / "run", log_every=100, eval_every=100, checkpoint_every=100), lambda: next(answers))
    assert list(metric(tmp_path / "run", "loss")) == [10]


@pytest.mark.parametrize(
    "trainer", [pytest.param("loop", marks=pytest.mark.alike), pytest.param("keras", marks=pytest.mark.slow)]
)
def test_a_training_stops_when_patience_runs_out(records: str, tmp_path: pathlib.Path, trainer: str):
    # Steps this large only make it worse.
    fields = {"learning_rate": 3.0, "optimizer": "sgd", "schedule": "constant", "eval_every": 1, "log_every": 1}
    done = train.train(config(records, tmp_path / "run", steps=200, trainer=trainer, patience=2, **fields))
    assert done["steps"] < 200
    assert done["steps"] == done["best_step"] + 2


def test_epoch_decay_lowers_the_rate_after_each_epoch(records: str, tmp_path: pathlib.Path):
    # 64 lines in batches of 16: an epoch is 4 steps.
    fields = {"schedule": "epoch_decay", "learning_rate": 0.0005, "optimizer": "adam", "batch_size": 16, "log_every": 2}
    train.train(config(records, tmp_path / "run", **fields))
    rates = metric(tmp_path / "run", "learning_rate")
    assert rates == pytest.approx({2: 5e-4, 4: 2e-4, 6: 2e-4, 8: 8e-5, 10: 8e-5, 12: 3.2e-5})


@pytest.mark.alike
def test_the_logged_learning_rate_follows_the_schedule(records: str, tmp_path: pathlib.Path):
    settings = config(records, tmp_path, optimizer="sgd", schedule="cosine", learning_rate=0.01, steps=6, log_every=1)
    train.train(dataclasses.replace(settings, eval_every=6))
    rates = list(metric(tmp_path, "learning_rate").values())
    cosine = [0.005, 0.01, *(0.005 * (1 + np.cos(np.pi * k / 4)) for k in range(1, 5))]
    np.testing.assert_allclose(rates, cosine, rtol=1e-4, atol=1e-8)


class NanForSevens(Objective):
    """The loss is NaN for lines with a 7."""

    def ctc_loss(self, logits, frames, batch):
        own = tf.sequence_mask(batch["label_lengths"], tf.shape(batch["labels"])[1])
        bad = tf.reduce_any((batch["labels"] == 7) & own, axis=1)
        return tf.where(bad, float("nan"), super().ctc_loss(logits, frames, batch))


@pytest.mark.slow
def test_a_failing_step_is_skipped_and_its_lines_named(
    trained, tmp_path: pathlib.Path, monkeypatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("ocr.training.train.Objective", NanForSevens)
    fields = {"batch_size": 2, "steps": 8, "eval_every": 8, "override": True, "bad_steps": 100}
    assert train.train(digits_config(trained, tmp_path / "run", **fields))["steps"] == 8
    assert Workdir(tmp_path / "run").newest() == 8  # though its last step may have been skipped
    reports = [line for line in journal(tmp_path / "run") if "left_out" in line]
    left_out, files = ([one for line in reports for one in line[name]] for name in ("left_out", "files"))
    assert 0 < len(left_out) < 8
    assert len(files) == 2 * len(left_out)
    texts = dict(line.split("\t") for line in (trained.lines / "train" / "labels.txt").read_text().splitlines())
    assert all("7" in texts[a] + texts[b] for a, b in zip(files[::2], files[1::2], strict=True))
    assert "skipped, because the loss or a gradient is not finite; its lines are " in caplog.text
    assert all(np.isfinite(value).all() for value in tensors(tmp_path / "run", Workdir(tmp_path / "run").newest()).values()
               if value.dtype == np.float32)  # fmt: skip


def test_too_many_failing_steps_end_the_training_and_keep_the_last_good_checkpoint(
    trained, saved: pathlib.Path, tmp_path: pathlib.Path, monkeypatch
):
    shutil.copytree(saved, tmp_path / "run")
    before = tensors(tmp_path / "run", 10)
    monkeypatch.setattr("ocr.training.train.Objective", NanForSevens)
    fields = {"steps": 50, "override": True, "bad_steps": 3}
    with pytest.raises(IntegrityError, match=r"in \d+ steps in a row, up to step \d+ .*the last good checkpoint is of step 10"):
        train.train(digits_config(trained, tmp_path / "run", **fields))
    assert Workdir(tmp_path / "run").newest() == 10
    for name, value in tensors(tmp_path / "run", 10).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_training_whose_last_step_failed_is_an_error(trained, tmp_path: pathlib.Path):
    blown = {"learning_rate": 1e30, "schedule": "constant", "steps": 6, "log_every": 100, "checkpoint_every": 100}
    with pytest.raises(IntegrityError, match=r"after step 6 the network's outputs are not finite: there is no checkpoint yet"):
        train.train(digits_config(trained, tmp_path / "run", **blown))
