import json
import pathlib
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from ocr.saving import export
from ocr.serving import saved_model
from ocr.synthesis import drawing, fonts, styles
from tfrecords.errors import InputError, IntegrityError


@pytest.fixture(scope="module")
def model(trained):
    return tf.saved_model.load(str(trained.export / "1"))


def test_the_signature_is_the_one_that_servers_rely_on(model):
    serve = model.signatures["serving_default"]
    (given,) = serve.structured_input_signature[1].values()
    assert (given.name, given.dtype, given.shape.as_list()) == ("image_bytes", tf.string, [None])
    assert {name: (out.dtype, out.shape.as_list()) for name, out in serve.structured_outputs.items()} == {
        "text": (tf.string, [None]),
        "confidence": (tf.float32, [None]),
        "status": (tf.int32, [None]),
    }


def test_bad_images_get_their_status_and_leave_their_neighbours_alone(trained, model):
    serve = model.signatures["serving_default"]
    good = [path.read_bytes() for path in sorted((trained.lines / "eval").glob("*.png"))[:6]]
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0" * 4
    bad = [b"junk", b"", good[0][:200], b"\x89PNG\r\n\x1a\n", "Grüße".encode(), bomb, b"\0" * 500]
    wide = tf.io.encode_png(np.full((32, 1500, 1), 255, np.uint8)).numpy()
    outputs = serve(image_bytes=tf.constant([*good[:3], *bad, wide, *good[3:]]))
    assert outputs["status"].numpy().tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 2, 1, 0, 0, 0, 0]
    assert not any(outputs["text"].numpy()[3:10])
    assert not outputs["confidence"].numpy()[3:10].any()
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
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        line = drawing.draw("".join(map(str, rng.integers(0, 10, 4))), font, height, 0, styles.STYLES["clean"], rng)
        outputs = model.signatures["detailed"](image_bytes=tf.constant([line.encoded()]))
        chars, starts, ends = (outputs[name].numpy()[0] for name in ("chars", "char_start", "char_end"))
        if len(chars) == 4:
            found += 1
            assert (starts <= line.middles).all()
            assert (line.middles < ends).all()
            assert (ends[:-1] <= starts[1:]).all()
            assert b"".join(chars) == outputs["text"].numpy()[0]
    assert found >= 15


def test_warm_up_requests_are_what_servers_understand(trained):
    from tensorflow_serving.apis import prediction_log_pb2

    path = trained.export / "1" / "assets.extra" / "tf_serving_warmup_requests"
    logs = [prediction_log_pb2.PredictionLog.FromString(r) for r in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    asked = [log.predict_log.request for log in logs]
    assert {request.model_spec.signature_name for request in asked} == {"serving_default", "detailed", "lines"}
    sizes = [tf.make_ndarray(r.inputs["image_bytes"]).shape for r in asked if "image_bytes" in r.inputs]
    assert sorted(sizes) == [(1,), (1,), (32,), (32,)]


def damage_alphabet(folder: pathlib.Path):
    (folder / "assets" / "charset.txt").write_text("\n".join("abcdefghij"))


def damage_warm_up(folder: pathlib.Path):
    (folder / "assets.extra" / "tf_serving_warmup_requests").unlink()


def damage_weights(folder: pathlib.Path):
    about = folder / "assets.extra" / "model.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"weights": "0" * 64}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_alphabet, "alphabet of export/1/assets/charset.txt"),
        (damage_weights, "alphabet and weights: '"),
        (damage_warm_up, "requests to warm up with: "),
    ],
)
def test_check_names_what_is_wrong_with_an_export(trained, command, last_json, tmp_path, damage, message):
    shutil.copytree(trained.export, tmp_path / "export")
    good = command("ocr_export", "--check=export")
    assert good.returncode == 0, good.stderr
    assert len(last_json(good)["checked"]) == 9
    damage(tmp_path / "export" / "1")
    done = command("ocr_export", "--check=export")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert message in done.stderr


def test_the_two_newest_versions_are_configured_for_serving(trained, command, last_json, tmp_path):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    def configured(folder: str):
        done = command("ocr_export", "--export_dir=export", f"--serving_config={folder}", "--serving_base_path=/mnt/ocr")
        assert done.returncode == 0, done.stderr
        assert sorted(last_json(done)["serving_config"]) == ["batching.config", "models.config", "monitoring.config"]
        text = (tmp_path / folder / "models.config").read_text("utf-8")
        (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
        assert (model.name, model.base_path) == ("ocr", "/mnt/ocr")
        return list(model.model_version_policy.specific.versions), dict(model.version_labels)

    for version in "7", "8", "10":
        shutil.copytree(trained.export / "1", tmp_path / "export" / version)
        if version == "7":
            assert configured("one") == ([7], {"stable": 7})
    assert configured("three") == ([8, 10], {"stable": 8, "canary": 10})
    again = command("ocr_export", "--export_dir=export", "--serving_config=three")
    assert again.returncode == 1
    assert again.stderr.startswith("error: three: already there")


def test_the_graph_has_core_kernels_alone_and_no_python(trained):
    # TensorFlow gives the message's class no public name, but the operations' names stand in its bytes.
    graph = (trained.export / "1" / "saved_model.pb").read_bytes()
    assert b"DecodeImage" in graph
    for operation in (b"PyFunc", b"EagerPyFunc", b"XlaLaunch", b"_XlaMustCompile"):
        assert operation not in graph


def test_what_lies_beside_the_model_tells_what_it_is(trained):
    folder = trained.export / "1"
    assert (folder / "assets" / "charset.txt").read_text("utf-8").split() == list("0123456789")
    about = json.loads((folder / "assets.extra" / "model.json").read_text("utf-8"))
    assert about["network"] == "lite"
    assert about["metrics"]["cer"] == trained.result["cer"]
    assert about["alphabet"] == about["made_of"]["alphabet"]
    assert about["versions"]["tensorflow"] == tf.__version__


def test_versions_count_up_and_are_never_overwritten(trained, tmp_path):
    workdir = str(trained.workdir)
    assert export.export(workdir, str(tmp_path / "export"), version=7)["version"] == 7
    assert export.export(workdir, str(tmp_path / "export"))["version"] == 8
    with pytest.raises(InputError, match="export/8: already there"):
        export.export(workdir, str(tmp_path / "export"), version=8)
    assert saved_model.newest_version(tmp_path / "export").name == "8"
    assert saved_model.newest_version(tmp_path / "export" / "7").name == "7"
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["7", "8"]


def test_an_export_that_reads_otherwise_is_not_put_in_place(trained, tmp_path, monkeypatch):
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


def test_another_alphabet_beside_the_weights_is_refused(trained, tmp_path):
    shutil.copytree(trained.workdir, tmp_path / "run")
    (tmp_path / "run" / "charset.txt").write_text("\n".join("abcdefghij"))
    with pytest.raises(IntegrityError, match=r"alphabet of .*charset\.txt"):
        export.export(str(tmp_path / "run"), str(tmp_path / "export"))


def test_a_folder_that_is_no_training_is_refused(tmp_path):
    with pytest.raises(InputError, match="no training in it"):
        export.export(str(tmp_path), str(tmp_path / "export"))
    with pytest.raises(InputError, match="no exported model in it"):
        saved_model.newest_version(tmp_path)


def test_predict_reads_in_order_and_names_what_it_cannot_read(trained, command, tmp_path):
    good = sorted((trained.lines / "eval").glob("*.png"))[:40]
    (tmp_path / "junk.png").write_bytes(b"junk")
    files = [good[0], "nowhere.png", "junk.png", *good[1:]]
    done = command("ocr_predict", f"--saved_model={trained.export}", "--picture=read.png", *files)
    assert done.returncode == 1
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(file) for file in files]
    assert [row[1:] for row in rows[1:3]] == [["", "0.0000"], ["", "0.0000"]]
    truths = dict(line.split("\t") for line in (trained.lines / "eval" / "labels.txt").read_text().splitlines())
    right = [row[1] == truths[file.name] for row, file in zip([rows[0], *rows[3:]], good, strict=True)]
    assert sum(right) >= 36
    assert done.stderr.splitlines() == [
        "nowhere.png: No such file or directory",
        "junk.png: not an image that can be decoded",
    ]
    assert (tmp_path / "read.png").stat().st_size > 10_000


def test_a_model_that_is_none_of_ours_is_refused(tmp_path: pathlib.Path):
    module = tf.Module()
    serve = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": serve})
    with pytest.raises(InputError, match="does not take image_bytes"):
        saved_model.load(tmp_path)


def test_a_version_that_no_server_takes_is_refused(trained, tmp_path: pathlib.Path):
    with pytest.raises(InputError, match="--version=9223372036854775808: must be 1 to"):
        export.export(str(trained.workdir), str(tmp_path), version=2**63)
