import json
import pathlib
import shutil

import pytest
import tensorflow as tf

RUNNER = "--beam_options=--runner=BundleBasedDirectRunner"


def rows(folder: pathlib.Path, pattern: str) -> list[dict]:
    return [json.loads(line) for path in sorted(folder.glob(pattern)) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def read(trained, command):
    def run(pattern: object, *arguments: str):
        model = f"--saved_model={trained.export}"
        return command("ocr_predict", "--engine=beam", model, f"--input={pattern}", "--output=out/read", RUNNER, *arguments)

    return run


def test_images_are_read_as_they_are_alone_and_a_run_that_was_ended_goes_on(trained, command, read, last_json, tmp_path):
    (tmp_path / "out").mkdir()
    shutil.copytree(trained.lines / "eval", tmp_path / "lines" / "eval")
    (tmp_path / "lines" / "eval" / "junk.png").write_bytes(b"junk")
    done = read("lines/**/*.png")
    assert done.returncode == 0, done.stderr
    assert last_json(done) == {"images": 201, "bad": 1, "parts": 1, "parts_before": 0}
    paths = sorted(f"lines/eval/{path.name}" for path in (trained.lines / "eval").glob("*.png"))
    here = command("ocr_predict", f"--saved_model={trained.export}", *paths)
    expected = [line.split("\t") for line in here.stdout.splitlines()]
    found = rows(tmp_path / "out", "read-0*.jsonl")
    assert [[row["file"], row["text"]] for row in found] == [row[:2] for row in expected]
    bad = rows(tmp_path / "out", "read-bad-*.jsonl")
    assert bad == [{"file": "lines/eval/junk.png", "reason": "not an image that can be decoded"}]
    again = read("lines/**/*.png")
    assert last_json(again) == {"images": 201, "bad": 1, "parts": 1, "parts_before": 1}
    other = read("lines/**/*1.png")
    assert (other.returncode, len(other.stderr.splitlines())) == (1, 1)
    assert "what was begun there was with other files" in other.stderr
    (tmp_path / "out" / "read.plan.json").write_text("[1]")
    damaged = read("lines/**/*.png")
    assert (damaged.returncode, damaged.stderr.splitlines()) == (2, ["error: out/read.plan.json: damaged"])


def test_records_are_read_shard_by_shard_and_a_damaged_one_is_named(trained, read, last_json, tmp_path):
    (tmp_path / "out").mkdir()
    shutil.copytree(trained.records, tmp_path / "records")
    shards = sorted((tmp_path / "records").glob("lines-eval.tfrecord-*"))
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:1000] + b"\xff" + whole[1001:])
    damaged = read("records/lines-eval.tfrecord-*")
    assert (damaged.returncode, len(damaged.stderr.splitlines())) == (2, 1), damaged.stderr
    assert damaged.stderr.endswith(f"{shards[1].name}: damaged\n")
    with tf.io.TFRecordWriter(str(shards[1])) as writer:
        writer.write(b"no example")
    damaged = read("records/lines-eval.tfrecord-*")
    assert (damaged.returncode, damaged.stderr.splitlines()[0][-9:]) == (2, ": damaged"), damaged.stderr
    shards[1].write_bytes(whole)
    done = read("records/lines-eval.tfrecord-*")
    assert last_json(done) == {"images": 200, "bad": 0, "parts": 2, "parts_before": 1}
    truths = dict(line.split("\t") for line in (trained.lines / "eval" / "labels.txt").read_text().splitlines())
    right = [truths[row["file"]] == row["text"] for row in rows(tmp_path / "out", "read-0*.jsonl")]
    assert sum(right) > 180


def test_what_cannot_be_run_is_said_in_one_line(read, command, tmp_path):
    for done, message in (
        (read("nothing/*"), "--input=nothing/*: matches no file"),
        (read(__file__), "--output=out/read: no such folder"),
        (read(__file__, "image.png"), "--engine=beam: takes --input in place of images"),
        (command("ocr_predict", "--engine=beam"), "--input: has to be given"),
        (command("ocr_predict", "--engine=beam", "--input=x", "--output=y"), "--beam_options: has to name a runner"),
        (
            command("ocr_predict", "--engine=beam", "--input=x", "--output=y", "--beam_options=--runner='a"),
            "No closing quotation",
        ),
        (command("ocr_predict", "--engine=flink"), "--engine=flink: must be one of local, beam"),
    ):
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert message in done.stderr
