import json
import pathlib
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from ocr.model import frozen
from ocr.saving import export
from ocr.saving.workdir import Trained
from ocr.serving import saved_model
from ocr.synthesis import drawing, fonts, styles
from tfrecords.errors import InputError, IntegrityError


@pytest.fixture(scope="module")
def model(trained):
    return tf.saved_model.load(str(trained.export / "1"))


def test_the_default_signature_is_what_servers_rely_on(model):
    serve = model.signatures["serving_default"]
    (argument,) = serve.structured_input_signature[1].values()
    assert (argument.name, argument.dtype, argument.shape.as_list()) == ("image_bytes", tf.string, [None])
    assert {name: (out.dtype, out.shape.as_list()) for name, out in serve.structured_outputs.items()} == {
        "text": (tf.string, [None]),
        "confidence": (tf.float32, [None]),
        "status": (tf.int32, [None]),
    }


def test_bad_images_get_their_status_and_do_not_affect_others(trained, model):
    serve = model.signatures["serving_default"]
    good = [path.read_bytes() for path in sorted((trained.lines / "eval").glob("*.png"))[:6]]
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0" * 4
    bad = [b"junk", b"", good[0][:200], b"\x89PNG\r\n\x1a\n", "Grüße".encode(), bomb, b"\0" * 500]
    blank = tf.io.encode_png(np.full((32, 1500, 1), 255, np.uint8)).numpy()
    outputs = serve(image_bytes=tf.constant([*good[:3], *bad, blank, *good[3:]]))
    assert outputs["status"].numpy().tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 2, 1, 3, 0, 0, 0]
    assert not any(outputs["text"].numpy()[3:11])
    assert not outputs["confidence"].numpy()[3:11].any()
    for place, image in zip((0, 1, 2, 11, 12, 13), good, strict=True):
        alone = serve(image_bytes=tf.constant([image]))
        assert outputs["text"].numpy()[place] == alone["text"].numpy()[0]
        assert outputs["confidence"].numpy()[place] == pytest.approx(alone["confidence"].numpy()[0], abs=1e-4)


def test_an_empty_batch_gives_empty_outputs(model):
    outputs = model.signatures["serving_default"](image_bytes=tf.constant([], tf.string))
    assert [value.shape.as_list() for value in outputs.values()] == [[0]] * 3


@pytest.mark.parametrize("height", [32, 80])
def test_each_character_is_where_it_was_drawn(model, height):
    font = fonts.open_fonts(())[0]
    complete = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        line = drawing.draw("".join(map(str, rng.integers(0, 10, 4))), font, height, 0, styles.STYLES["clean"], rng)
        outputs = model.signatures["detailed"](image_bytes=tf.constant([line.encoded()]))
        chars, starts, ends = (outputs[name].numpy()[0] for name in ("chars", "char_start", "char_end"))
        if len(chars) == 4:
            complete += 1
            assert (starts <= line.middles).all()
            assert (line.middles < ends).all()
            assert (ends[:-1] <= starts[1:]).all()
            assert b"".join(chars) == outputs["text"].numpy()[0]
    assert complete >= 15


def test_the_graph_has_core_kernels_only_and_no_python(trained):
    # The message's class has no public name in TensorFlow, but operation names can be searched for in its bytes.
    graph = (trained.export / "1" / "saved_model.pb").read_bytes()
    assert b"DecodeImage" in graph
    for operation in (b"PyFunc", b"EagerPyFunc", b"XlaLaunch", b"_XlaMustCompile"):
        assert operation not in graph


def test_the_files_beside_the_model_describe_it(trained):
    folder = trained.export / "1"
    assert (folder / "assets" / "charset.txt").read_text("utf-8").split() == list("0123456789")
    about = json.loads((folder / "assets.extra" / "model.json").read_text("utf-8"))
    assert about["network"] == "lite"
    assert about["metrics"]["cer"] == trained.result["cer"]
    assert about["alphabet"] == about["made_of"]["alphabet"]
    assert about["versions"]["tensorflow"] == tf.__version__


def test_another_alphabet_than_that_of_the_weights_is_refused(trained, tmp_path):
    shutil.copytree(trained.workdir, tmp_path / "run")
    (tmp_path / "run" / "charset.txt").write_text("\n".join("abcdefghij"))
    with pytest.raises(IntegrityError, match=r"alphabet of .*charset\.txt"):
        export.export(str(tmp_path / "run"), str(tmp_path / "export"))


def test_a_version_beyond_what_servers_can_number_is_refused(trained, tmp_path: pathlib.Path):
    with pytest.raises(InputError, match="--version=9223372036854775808: must be 1 to"):
        export.export(str(trained.workdir), str(tmp_path), version=2**63)


def test_a_folder_without_a_training_is_refused(tmp_path):
    with pytest.raises(InputError, match="no training in it"):
        export.export(str(tmp_path), str(tmp_path / "export"))


def test_an_existing_version_is_not_overwritten(trained, tmp_path):
    shutil.copytree(trained.export / "1", tmp_path / "8")
    with pytest.raises(InputError, match="8: already there"):
        export.export(str(trained.workdir), str(tmp_path), version=8)
    assert saved_model.next_version(tmp_path) == 9
    assert saved_model.newest_version(tmp_path) == saved_model.newest_version(tmp_path / "8") == tmp_path / "8"


def test_an_export_that_reads_other_texts_is_not_put_in_place(trained, tmp_path, monkeypatch):
    def save_other(*arguments) -> None:
        def wrong(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            shape = tf.shape(image_bytes)
            return {"text": tf.fill(shape, "wrong"), "confidence": tf.ones(shape), "status": tf.zeros(shape, tf.int32)}

        serve = tf.function(wrong, [tf.TensorSpec([None], tf.string, "image_bytes")])
        tf.saved_model.save(tf.Module(), str(arguments[-1]), signatures={"serving_default": serve})

    monkeypatch.setattr(export, "_save", save_other)
    with pytest.raises(IntegrityError, match="wrong"):
        export.export(str(trained.workdir), str(tmp_path / "export"))
    assert list((tmp_path / "export").iterdir()) == []


def test_an_export_is_compared_with_weights_that_are_rounded_as_its_own(trained, tmp_path, monkeypatch):
    compared, recogniser = [], export.Recogniser

    def of(model, *rest, **fields):
        compared.append(model)
        return recogniser(model, *rest, **fields)

    def averaged(self) -> Trained:  # those of a training are kept rounded
        loaded = load(self)
        kernel = loaded.model.weights[0]
        kernel.assign(kernel * 1.0001)
        return loaded

    def not_saved(*_: object) -> None:
        raise IntegrityError("not saved")

    load = export.Workdir.load
    monkeypatch.setattr(export.Workdir, "load", averaged)
    monkeypatch.setattr(export, "Recogniser", of)
    monkeypatch.setattr(export, "_save", not_saved)
    with pytest.raises(IntegrityError, match="not saved"):
        export.export(str(trained.workdir), str(tmp_path / "export"))
    for weight in map(tf.convert_to_tensor, compared[0].weights):
        np.testing.assert_array_equal(weight, frozen.rounded(weight))


@pytest.mark.slow
def test_a_network_exported_with_other_texts_is_not_put_in_place(trained, tmp_path, monkeypatch):
    save = export._save

    def save_other(recogniser, *rest):
        read = recogniser.read_files
        recogniser.read_files = lambda image_bytes, **how: (
            read(image_bytes, **how) | {"text": tf.fill(tf.shape(image_bytes), "wrong")}
        )
        save(recogniser, *rest)

    monkeypatch.setattr(export, "_save", save_other)
    with pytest.raises(IntegrityError, match="wrong"):
        export.export(str(trained.workdir), str(tmp_path / "export"))
    assert list((tmp_path / "export").iterdir()) == []
