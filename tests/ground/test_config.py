"""Configurations: each field carries what its flag and a resumed training need to know of it."""

import dataclasses
import pathlib

import pytest

from ocr import config
from ocr.config import TrainConfig
from ocr.data.convert_config import ConvertConfig
from ocr.serving.serve_config import ServeConfig
from ocr.synthesis.render import RenderConfig
from ocr.training import optimizer
from ocr.training.adapt_config import AdaptConfig
from tfrecords.errors import IntegrityError

CONFIG = TrainConfig(train_data="a", eval_data="b", workdir="c")


@pytest.mark.parametrize("configuration", [AdaptConfig, ConvertConfig, RenderConfig, ServeConfig, TrainConfig])
def test_every_field_has_a_help_text_of_whole_sentences(configuration: type):
    for field in dataclasses.fields(configuration):
        assert field.metadata["help"].endswith("."), field.name


def test_every_optimizer_has_an_update_rule_of_its_name():
    assert optimizer.RULES.keys() == set(config.OPTIMIZERS)


def test_differences_are_listed_unless_the_field_may_change_when_a_training_resumes():
    given = dataclasses.replace(CONFIG, steps=5, workdir="d", batch_size=64, optimizer="sgd")
    assert config.differences(CONFIG, given) == ["batch_size: saved 32, given 64", "optimizer: saved adamw, given sgd"]


def test_paths_mean_nothing_on_another_machine():
    assert set(config.PATHS) == {"train_data", "eval_data", "workdir", "charset", "init_from", "picture_font"}


def test_a_configuration_round_trips_through_its_file(tmp_path: pathlib.Path):
    fingerprints = dict.fromkeys(config.FINGERPRINTS, "0")
    config.write(tmp_path / "config.json", CONFIG, fingerprints)
    assert config.read(tmp_path / "config.json") == (CONFIG, fingerprints)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(IntegrityError, match="damaged configuration"):
        config.read(tmp_path / "config.json")
