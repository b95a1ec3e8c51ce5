"""How flags are given to the command lines: flag files, and `~` in paths."""

import pathlib

import pytest
from PIL import ImageFont


def test_flags_are_read_from_a_flag_file(invoke, last_json, tmp_path: pathlib.Path):
    (tmp_path / "recipe").write_text("--count=3\n--charset=digits\n")
    done = invoke("render_lines", "--flagfile=recipe", "--output=lines")
    assert done.returncode == 0, done.stderr
    assert last_json(done)["lines"] == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["--count=3", "# of Windows", "--flagfile=inner"])
def test_a_flag_file_may_have_a_byte_order_mark(invoke, last_json, tmp_path: pathlib.Path, first: str, encoding: str):
    (tmp_path / "recipe").write_text(f"{first}\r\n--charset=digits\r\n--count=3\r\n", encoding)
    (tmp_path / "inner").write_text("--seed=2\n", encoding)
    done = invoke("render_lines", "--output=lines", "--flagfile", "recipe")
    assert done.returncode == 0, done.stderr
    assert last_json(done)["lines"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--count=3\n--charset=\xff\n", "is not UTF-8"),
        (b"--flagfile=recipe", "names itself"),
        (None, "No such file or directory"),
    ],
)
def test_a_flag_file_that_cannot_be_read_is_refused(invoke, tmp_path: pathlib.Path, content: bytes | None, message: str):
    if content:
        (tmp_path / "recipe").write_bytes(content)
    done = invoke("render_lines", "--flagfile=recipe", "--output=lines")
    assert (done.returncode, done.stderr) == (1, f"error: --flagfile=recipe: {message}\n")


@pytest.mark.parametrize(
    ("line", "flag", "value"),
    [
        ("render_lines --output=~/lines --count=1", "output", "{home}/lines"),
        ("render_lines --output=~ --count=1", "output", "{home}"),
        ("render_lines --output=x --count=1 --fonts=~/a/*.ttf:2,~/b.ttf", "fonts", ["{home}/a/*.ttf:2", "{home}/b.ttf"]),
        ("render_lines --output=x --count=1 --charset=chinese_ocr:~/file", "charset", "chinese_ocr:{home}/file"),
        ("render_lines --output=./~/a~b --count=1", "output", "./~/a~b"),
        ("render_lines --output=~nobody-here/x --count=1", "output", "~nobody-here/x"),
        ("render_lines --output=a,~/b --count=1", "output", "a,~/b"),
        (
            "ocr_train --train_data=~/a:3,~/b@eval --eval_data=~@eval --workdir=~root/w",
            "train_data",
            "{home}/a:3,{home}/b@eval",
        ),
        ("ocr_train --train_data=a --eval_data=~@eval --workdir=w", "eval_data", "{home}@eval"),
        ("ocr_export --workdir=w --export_dir=x --serving_base_path=~/models", "serving_base_path", "~/models"),
    ],
)
def test_home_is_put_in_the_place_of_a_tilde(invoke, monkeypatch, tmp_path: pathlib.Path, line: str, flag: str, value):
    name, *arguments = line.split()
    taken = {}
    monkeypatch.setattr(f"tools.{name}.main", lambda values, _: taken.update(values))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert invoke(name, *arguments).returncode == 0
    given = [one.format(home=tmp_path) for one in value] if isinstance(value, list) else value.format(home=tmp_path)
    assert taken[flag] == given


@pytest.mark.parametrize("name", [" a ", '"', '"a', "it's", "a\nb", "a,b", ", ", "a:b", "a:3", "[a]", "#1", "a,b:2"])
def test_paths_in_a_list_may_have_any_names(invoke, last_json, tmp_path: pathlib.Path, name: str):
    for folder in (name, "z"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("words to draw")
        (tmp_path / folder / f"{name}.ttf").write_bytes(ImageFont.load_default(20).font_bytes)
    texts, fonts = f"{name}/{name}:2,z/{name}:1", f"{name}/{name}.ttf,z/{name}.ttf#0"
    done = invoke("render_lines", "--output=new", "--count=2", "--workers=1", f"--words={texts}", f"--fonts={fonts}")
    assert done.returncode == 0, done.stderr
    assert last_json(done)["lines"] == 2


def test_paths_in_a_list_may_be_quoted_and_have_blanks_after_commas(invoke, last_json, tmp_path: pathlib.Path):
    for name in ("a,b.txt", "c.txt"):
        (tmp_path / name).write_text("words to draw")
    done = invoke("render_lines", "--output=new", "--count=2", "--workers=1", '--words="a,b.txt:2", c.txt:1')
    assert done.returncode == 0, done.stderr
    assert last_json(done)["lines"] == 2
