"""A path is a path: a folder may have characters in its name that are wildcards elsewhere, to TensorFlow among others."""

import pathlib
import shutil

import pytest
from trainings import config

from ocr import charset as charsets
from ocr.evaluation import evaluate
from ocr.model import networks
from ocr.saving import check_export, export, warm_start
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from ocr.training import train
from tfrecords.errors import InputError, IntegrityError
from tfrecords.files import no_wildcards

DIGITS = charsets.charset_by_name("digits")
NAMES = ["run [1]", "a*b?", "m\\1", "[!a-z]", "**", "\\"]


def test_a_training_and_an_export_are_read_below_any_folder(trained, files, tmp_path: pathlib.Path):
    folder = tmp_path / "r[1] *?" / "\\"
    shutil.copytree(trained.workdir, folder / "run")
    shutil.copytree(trained.export, folder / "export")
    assert Workdir(folder / "run").load().metrics["step"] == 300
    texts, _, statuses = saved_model.load(folder / "export")(files[:4])
    assert all(texts)
    assert not statuses.any()


def test_a_folder_that_looks_like_a_pattern_is_not_confused_with_one_that_matches(trained, tmp_path: pathlib.Path):
    shutil.copytree(trained.workdir, tmp_path / "run1")
    shutil.copytree(trained.workdir, tmp_path / "run[1]")
    for path in (tmp_path / "run[1]" / "best").glob("*.index"):
        path.unlink()
    with pytest.raises(IntegrityError, match="damaged checkpoint") as raised:
        Workdir(tmp_path / "run[1]").load()
    assert f"for {tmp_path}/run[1]/best/ckpt-" in str(raised.value)
    assert "/proc/" not in str(raised.value)


@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.index"])
def test_damage_below_such_a_folder_is_reported_with_the_folders_own_path(trained, tmp_path: pathlib.Path, file: str):
    version = shutil.copytree(trained.export, tmp_path / "m[1]") / "1"
    (version / file).unlink()
    if file == "saved_model.pb":
        (version / file).mkdir()
    for load in (saved_model.load, lambda path: warm_start.take_weights(networks.build("lite", 11), DIGITS, str(path))):
        with pytest.raises((InputError, IntegrityError)) as raised:
            load(version)
        assert str(raised.value).startswith(str(version))
        assert "/proc/" not in str(raised.value)


def test_another_path_is_given_only_where_there_are_wildcards(tmp_path: pathlib.Path):
    with no_wildcards(tmp_path) as same:
        assert same == tmp_path
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "file").touch()
    with no_wildcards(tmp_path / "a[1]") as other:
        assert [path.name for path in other.iterdir()] == ["file"]
        assert not set(str(other)) & set("*?[]\\")
    assert not other.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "{a}", "$x", "%41", " a ", "-a", "~", "a;b&c", "a'b\"c", "\u6587\u4ef6", "a\tb"])
def test_everything_works_below_any_folder(trained, tmp_path: pathlib.Path, name: str):
    folder = tmp_path / name
    records, run, exports = str(shutil.copytree(trained.records, folder / "records")), folder / "run", folder / "export"
    train.train(config(records, run, steps=2))
    assert train.train(config(records, run, steps=4))["steps"] == 4
    of_training = evaluate.evaluate(run, records, report_to=str(folder / "report"))
    export.export(str(run), str(exports), calibrate=records)
    check_export.inspect(saved_model.newest_version(exports))
    assert evaluate.evaluate(exports, records)["cer"] == of_training["cer"]
    assert train.train(config(records, folder / "warm", steps=1, init_from=str(exports)))["steps"] == 1
