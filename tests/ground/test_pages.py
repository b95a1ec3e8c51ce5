"""What the pages say is there: paths, make targets, flags of the command lines, flags of the recipes."""

import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGES = (
    *("README.md", "README.zh-CN.md", "BUILD.md", "CONTRIBUTING.md"),
    *("docs/architecture.md", "docs/other_lines.md", "deploy/README.md", "ocr/pretrained/README.md"),
)
COMMANDS = {path.stem for path in (ROOT / "tools").glob("*.py")} - {"__init__", "demo"}
RECIPES = sorted((ROOT / "recipes").glob("*.flags"))


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_make_targets_exist(page: str):
    path = r"\b(?:ocr|tools|tfrecords|tests|docs|recipes|deploy)/[\w./]*\w(?:\.py|\.flags|\.md|\.sh|\.png|/)"
    paths = set(re.findall(path, text_of(page)))
    assert {path for path in paths - {"tools/NAME.py", "ocr/labels/"} if not (ROOT / path).exists()} == set()
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M))
    assert set(re.findall(r"`make ([a-z][a-z-]*)`", text_of(page))) <= targets


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_have_only_flags_that_exist(page: str):
    for name, rest in re.findall(rf"\b({'|'.join(COMMANDS)}) ([^;|&`\n]*)", text_of(page)):
        flags = importlib.import_module(f"tools.{name}").FLAGS
        assert {flag for flag in re.findall(r"(?<!\S)--(\w+)", rest) if flag not in flags} - {"flagfile", "help"} == set(), (
            name,
            rest,
        )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_states_its_cost_and_its_flags_exist(recipe: pathlib.Path):
    head = [line for line in recipe.read_text("utf-8").splitlines() if line.startswith("#")]
    for word in ("trains", "time", "machine", "result", "command"):
        assert any(line.startswith(f"# {word} ") for line in head), word
    flags = importlib.import_module("tools.ocr_train").FLAGS
    try:
        flags(["ocr_train", f"--flagfile={recipe}"])
    finally:
        flags.unparse_flags()
