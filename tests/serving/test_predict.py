import io
import json
import pathlib
import shutil

import pytest
from PIL import Image

from ocr.serving import predict
from tools import ocr_predict

DATA = pathlib.Path(__file__).parents[1] / "data"


def test_predictions_come_in_order_and_bad_files_are_reported(trained, invoke, tmp_path):
    good = sorted((trained.lines / "eval").glob("*.png"))[:40]
    (tmp_path / "junk.png").write_bytes(b"junk")
    Image.new("L", (90, 32)).save(tmp_path / "page.tif")
    files = [good[0], "nowhere.png", "junk.png", "page.tif", *good[1:]]
    done = invoke("ocr_predict", f"--saved_model={trained.export}", "--picture=read.png", *files)
    assert done.returncode == 1
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(file) for file in files]
    assert [row[1:] for row in rows[1:4]] == [["", "0.0000"]] * 3
    truths = dict(line.split("\t") for line in (trained.lines / "eval" / "labels.txt").read_text().splitlines())
    right = [row[1] == truths[file.name] for row, file in zip([rows[0], *rows[4:]], good, strict=True)]
    assert sum(right) >= 36
    assert done.stderr.splitlines() == [
        "nowhere.png: No such file or directory",
        "junk.png: not an image that can be decoded",
        "page.tif: not an image that can be decoded: TIFF, not PNG, JPEG, GIF or plain BMP",
    ]
    assert (tmp_path / "read.png").stat().st_size > 10_000


def test_folders_and_standard_input_are_read_and_printed_as_json(trained, invoke, tmp_path, monkeypatch):
    good = sorted((trained.lines / "eval").glob("*.png"))[:3]
    for folder in ("lines", "empty"):
        (tmp_path / folder).mkdir()
    for path in good[:2]:
        shutil.copy(path, tmp_path / "lines")
    (tmp_path / "lines" / "junk\udcff.png").write_bytes(b"junk")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(good[2].read_bytes())))
    done = invoke("ocr_predict", f"--saved_model={trained.export}", "--json", "lines", "-", "empty", "-")
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = [*(f"lines/{path.name}" for path in good[:2]), "lines/junk\udcff.png", "-", "empty", "-"]
    assert [(row["file"], row["status"]) for row in rows] == list(zip(names, [0, 0, 1, 0, 1, 1], strict=True))
    truths = dict(line.split("\t") for line in (trained.lines / "eval" / "labels.txt").read_text().splitlines())
    assert sum(rows[row]["text"] == truths[path.name] for row, path in zip((0, 1, 3), good, strict=True)) >= 2
    assert min(rows[row]["confidence"] for row in (0, 1, 3)) > 0.3
    assert [row.get("reason", "")[:14] for row in rows] == ["", "", "not an image t", "", "no image in it", "standard input"]
    assert len(done.stderr.splitlines()) == 3


def test_texts_below_a_confidence_are_withheld_and_that_is_no_failure(invoke, tmp_path, monkeypatch):
    Image.new("L", (90, 32), 255).save(tmp_path / "line.png")
    (tmp_path / "junk.png").write_bytes(b"junk")
    answers = [("sure", 0.9, 0), ("equal", 0.75, 0), ("doubtful", 0.7499, 0), ("", 0.0, 1)]

    monkeypatch.setattr(ocr_predict, "_line_reader", lambda values: lambda images: zip(*answers[: len(images)], strict=True))

    def predict_with(*arguments: str):
        return invoke("ocr_predict", "--min_confidence=0.75", *arguments)

    done = predict_with("line.png", "line.png", "line.png")
    assert (done.returncode, done.stderr) == (0, "line.png: below --min_confidence\n")
    assert done.stdout == "line.png\tsure\t0.9000\nline.png\tequal\t0.7500\nline.png\t\t0.7499\n"
    done = predict_with("--json", "line.png", "line.png", "line.png", "junk.png")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[1] == {"file": "line.png", "text": "equal", "confidence": 0.75, "status": 0}
    reasons = [row.get("reason", "") for row in rows]
    assert (done.returncode, reasons) == (1, ["", "", "below --min_confidence", "not an image that can be decoded"])
    assert rows[2] == {"file": "line.png", "text": "", "confidence": 0.7499, "status": 0, "reason": reasons[2]}
    done = predict_with("--engine=beam", "--input=x", "--output=y")
    assert (done.returncode, "--min_confidence" in done.stderr) == (1, True)


def test_a_server_predicts_what_its_export_predicts(trained, server, invoke, tmp_path):
    paths = sorted((trained.lines / "eval").glob("*.png"))[:40]
    (tmp_path / "junk.png").write_bytes(b"junk")
    remote = invoke("ocr_predict", f"--server={server.grpc}", "junk.png", *paths)
    local = invoke("ocr_predict", f"--saved_model={trained.export}", "junk.png", *paths)
    assert remote.returncode == local.returncode == 1
    rows = [[line.split("\t") for line in done.stdout.splitlines()] for done in (remote, local)]
    assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]
    assert len(rows[0]) == 41
    assert "junk.png: not an image that can be decoded" in remote.stderr


def test_a_server_that_cannot_be_reached_is_reported(invoke):
    done = invoke("ocr_predict", "--server=localhost:1", "--timeout_s=1", "line.png")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "--server=localhost:1: " in done.stderr


def test_blank_images_and_lines_that_stand_upright_are_reported(invoke, tmp_path):
    line = Image.open(next(DATA.glob("欢迎*.jpg"))).convert("L")
    Image.new("L", (200, 32), 255).save(tmp_path / "blank.png")
    line.rotate(90, expand=True).save(tmp_path / "tall.png")
    line.crop((0, 0, 28, 32)).resize((28, 40)).save(tmp_path / "character.png")  # higher than wide, and read
    done = invoke("ocr_predict", "blank.png", "tall.png", "character.png")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "blank.png\t\t0.0000"
    assert [message.split(":")[:2] for message in done.stderr.splitlines()] == [
        ["blank.png", " blank"],
        ["tall.png", " higher than wide"],
    ]


def test_a_line_that_stands_upright_is_no_failure(invoke, tmp_path, monkeypatch):
    Image.new("L", (32, 90), 255).save(tmp_path / "tall.png")
    monkeypatch.setattr(ocr_predict, "_line_reader", lambda values: lambda images: ([""], [0.99], [0]))
    done = invoke("ocr_predict", "tall.png")
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
    # True of every export, whether it reads turned lines or not.
    assert "tall.png: higher than wide: only an export with --turned_lines reads text on its side; turn" in done.stderr


@pytest.mark.parametrize(
    ("size", "status", "reason"), [(20_000_000, 1, "not an image"), (20_000_001, 2, "too large: over 20 MB")]
)
def test_no_more_of_a_file_is_read_than_tells_its_status(tmp_path, size: int, status: int, reason: str):
    (tmp_path / "large.png").write_bytes(bytes(size + 5 * (status == 2)))
    sizes = []

    def read(images: list[bytes]):
        sizes.extend(map(len, images))
        return [""], [0.0], [status]

    (prediction,) = predict.predict_files(read, [str(tmp_path / "large.png")])
    assert prediction.reason.startswith(reason)
    assert sizes == [size]
