"""A path is a path: a folder may have characters in its name that are wildcards elsewhere, to TensorFlow among others."""

import pathlib
import shutil
import subprocess

import pytest

from ocr import charset as charsets
from ocr.saving import warm_start
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from tfrecords.errors import InputError, IntegrityError
from tfrecords.files import no_wildcards

DIGITS = charsets.charset_by_name("digits")
NAMES = [  # to a shell, a pattern, a format string or a list of paths they would mean something else
    "-a",
    "$HOME",
    "~",
    "~root",
    "run [1]",
    "a]b",
    "[!a-z]",
    "a*b",
    "**",
    "a?b",
    "m\\1",
    "\\",
    " a ",
    "'",
    '"',
    "a\nb",
    "a\tb",
    "a\r",
    "\u6587\u4ef6",
    "\u00e9",
    "e\u0301",
    "\U0001f600",
    "\u202ea",
    "\x01\x7f",
    "--a=b",
    "%41",
    "100%",
    "%s",
    "#a",
    "a,b",
    "a:b",
    "a:3",
    "a@b",
    "a@train",
    "a;b&c",
    "`a`",
    "a|b",
    "<a>",
    "{0}",
    "{a,b}",
    "(a)",
    "a!",
    "^$",
    "a+b",
    "a.",
    "...",
    "a\\nb",
    "file:",
    "x" * 200,
]


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
    for load in (saved_model.load, lambda path: warm_start.load(str(path), "lite")):
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
def test_every_command_works_below_any_folder(invoke, last_json, tmp_path: pathlib.Path, unchecked_exports):
    folder = "/".join(NAMES)
    assert len(NAMES) >= 40
    lines, records, run, exports = (f"{folder}/{name}" for name in ("lines", "records", "run", "export"))

    def done(name: str, *arguments: str) -> subprocess.CompletedProcess:
        result = invoke(name, *arguments)
        assert result.returncode == 0, result.stderr
        return result

    done("render_lines", f"--output={lines}", "--count=6", "--charset=digits", "--width=96", "--max_chars=5", "--workers=1")
    packing = [f"--images={lines}", f"--labels={lines}/labels.txt", f"--output={records}", "--workers=1"]
    done("make_tfrecords", *packing, "--charset=digits")
    done("make_tfrecords", *packing, f"--charset={records}/charset.txt", "--split=eval")
    done("make_tfrecords", f"--verify={records}")
    training = [f"--train_data={records}:2,{records}@eval:1", f"--eval_data={records}@eval", "--batch_size=4"]
    done("ocr_train", *training, f"--workdir={run}", "--steps=2")
    assert last_json(done("ocr_train", *training, f"--workdir={run}", "--steps=3"))["steps"] == 3
    of_training = last_json(done("ocr_eval", f"--model={run}", f"--data={records}", f"--report={folder}/report"))
    done("ocr_export", f"--workdir={run}", f"--export_dir={exports}", f"--calibrate={records}")
    assert last_json(done("ocr_eval", f"--model={exports}", f"--data={records}"))["cer"] == of_training["cer"]
    read = done("ocr_predict", f"--saved_model={exports}", f"--picture={folder}/read.png", "--", lines, f"{lines}/000000.png")
    assert len(read.stdout.splitlines()) == 7
    done("ocr_doctor", f"--data={records}", f"--workdir={run}")
    assert warm_start.load(str(tmp_path / exports)).charset.characters == DIGITS.characters
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[0]]
