import gc
import pathlib

import pytest
import tensorflow as tf

from ocr import pretrained
from ocr.serving import saved_model
from tfrecords.errors import InputError, IntegrityError


def test_versions_are_folders_of_positive_numbers_with_a_model(tmp_path: pathlib.Path):
    for name in ("1", "9", "10", "0010", "007", "0" * 30 + "8", "0", "00", "-3", "٣", "x", str(2**63), "1" * 20):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "11").mkdir()
    folders = {1: "1", 7: "007", 8: "0" * 30 + "8", 9: "9", 10: "10"}
    assert saved_model.versions(tmp_path) == {number: tmp_path / name for number, name in folders.items()}
    assert list(saved_model.versions(tmp_path)) == sorted(folders)
    assert saved_model.newest_version(tmp_path) == tmp_path / "10"
    assert saved_model.newest_version(tmp_path / "9") == tmp_path / "9"
    assert saved_model.next_version(tmp_path) == 12
    assert saved_model.next_version(tmp_path / "11") == saved_model.next_version(tmp_path / "nowhere") == 1


def test_pretrained_stands_for_the_model_that_ships_with_the_package():
    assert saved_model.newest_version(saved_model.PRETRAINED).parent == pretrained.FOLDER


def test_a_folder_without_a_model_is_refused(tmp_path: pathlib.Path):
    with pytest.raises(InputError, match="no exported model in it"):
        saved_model.newest_version(tmp_path)


def test_a_damaged_model_is_refused(tmp_path: pathlib.Path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"junk")
    with pytest.raises(IntegrityError, match="1: damaged, cannot be loaded"):
        saved_model.load(tmp_path)


def test_a_model_with_another_signature_is_refused(tmp_path: pathlib.Path):
    module = tf.Module()
    serve = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": serve})
    with pytest.raises(InputError, match="does not take image_bytes"):
        saved_model.load(tmp_path)


def test_a_model_that_is_no_longer_used_leaves_no_graph_in_memory(trained):
    def graphs() -> int:
        gc.collect()
        return sum(type(each).__name__ == "FuncGraph" for each in gc.get_objects())

    before = graphs()
    model = saved_model.load(trained.export)
    assert graphs() > before
    del model
    assert graphs() == before
