import json
import pathlib
import shutil

import pytest
import tensorflow as tf

RUNNER = "--beam_options=--runner=BundleBasedDirectRunner"


def rows(folder: pathlib.Path, pattern: str) -> list[dict]:
    return [json.loads(line) for path in sorted(folder.glob(pattern)) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def arguments(trained, tmp_path):
    """Returns a function that gives a command line but for its name."""
    (tmp_path / "out").mkdir()
    model = f"--saved_model={trained.export}"
    return lambda pattern: ["--engine=beam", model, f"--input={pattern}", "--output=out/read", RUNNER]


@pytest.fixture
def read(arguments, invoke):
    return lambda pattern: invoke("ocr_predict", *arguments(pattern))


def check_images(read, trained, last_json, tmp_path) -> None:
    shutil.copytree(trained.lines / "eval", tmp_path / "lines" / "eval")
    (tmp_path / "lines" / "eval" / "junk.png").write_bytes(b"junk")
    done = read("lines/**/*.png")
    assert done.returncode == 0, done.stderr
    assert last_json(done) == {"images": 201, "bad": 1, "parts": 1, "parts_before": 0}
    bad = rows(tmp_path / "out", "read-bad-*.jsonl")
    assert bad == [{"file": "lines/eval/junk.png", "reason": "not an image that can be decoded"}]


def test_images_are_read_as_without_beam_and_a_complete_run_is_not_repeated(trained, invoke, read, last_json, tmp_path):
    check_images(read, trained, last_json, tmp_path)
    paths = sorted(f"lines/eval/{path.name}" for path in (trained.lines / "eval").glob("*.png"))
    local = invoke("ocr_predict", f"--saved_model={trained.export}", *paths)
    expected = [line.split("\t") for line in local.stdout.splitlines()]
    predictions = rows(tmp_path / "out", "read-0*.jsonl")
    assert [[row["file"], row["text"]] for row in predictions] == [row[:2] for row in expected]
    again = read("lines/**/*.png")
    assert last_json(again) == {"images": 201, "bad": 1, "parts": 1, "parts_before": 1}
    other = read("lines/**/*1.png")
    assert (other.returncode, len(other.stderr.splitlines())) == (1, 1)
    assert "that run was with other files" in other.stderr
    (tmp_path / "out" / "read.plan.json").write_text("[1]")
    damaged = read("lines/**/*.png")
    assert (damaged.returncode, damaged.stderr.splitlines()) == (2, ["error: out/read.plan.json: damaged (not an object)"])


@pytest.mark.slow
def test_a_process_reads_images(arguments, command, trained, last_json, tmp_path):
    check_images(lambda pattern: command("ocr_predict", *arguments(pattern)), trained, last_json, tmp_path)


@pytest.mark.slow
def test_shards_are_read_one_by_one_and_a_damaged_one_is_named(trained, read, last_json, tmp_path):
    shutil.copytree(trained.records, tmp_path / "records")
    shards = sorted((tmp_path / "records").glob("lines-eval.tfrecord-*"))
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:1000] + b"\xff" + content[1001:])
    damaged = read("records/lines-eval.tfrecord-*")
    assert (damaged.returncode, len(damaged.stderr.splitlines())) == (2, 1), damaged.stderr
    assert damaged.stderr.endswith(f"{shards[1].name}: damaged\n")
    with tf.io.TFRecordWriter(str(shards[1])) as writer:
        writer.write(b"no example")
    damaged = read("records/lines-eval.tfrecord-*")
    assert (damaged.returncode, damaged.stderr.splitlines()[0][-9:]) == (2, ": damaged"), damaged.stderr
    shards[1].write_bytes(content)
    done = read("records/lines-eval.tfrecord-*")
    assert last_json(done) == {"images": 200, "bad": 0, "parts": 2, "parts_before": 1}
    truths = dict(line.split("\t") for line in (trained.lines / "eval" / "labels.txt").read_text().splitlines())
    right = [truths[row["file"]] == row["text"] for row in rows(tmp_path / "out", "read-0*.jsonl")]
    assert sum(right) > 180


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--saved_model={export}", "--input=nothing/*", "--output=read", RUNNER], "--input=nothing/*: matches no file"),
        (["--saved_model={export}", "--input={file}", "--output=out/read", RUNNER], "--output=out/read: no such folder"),
        (["--input=x", "--output=y", RUNNER, "image.png"], "--engine=beam: takes --input in place of images"),
        ([], "--input: has to be given"),
        (["--input=x", "--output=y"], "--beam_options: has to name a runner"),
        (["--input=x", "--output=y", "--beam_options=--runner='a"], "No closing quotation"),
        (["--engine=flink"], "--engine=flink: must be one of local, beam"),
    ],
    ids=[
        "no matching file",
        "no folder for the output",
        "images as arguments",
        "no input",
        "no runner",
        "unbalanced quotation marks",
        "other engine",
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(trained, invoke, given: list[str], message: str):
    line = [argument.format(export=trained.export, file=__file__) for argument in given]
    done = invoke("ocr_predict", "--engine=beam", *line)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert message in done.stderr
