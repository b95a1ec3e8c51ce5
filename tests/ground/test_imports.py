"""Imports go one way: tools -> ocr -> tfrecords, and between the rooms of ocr only as the table below says."""

import ast
import configparser
import graphlib
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
# The rooms of ocr, and the other rooms that each may import. All may import `images` and the ground floor, the modules
# directly in ocr.
ROOMS = {
    "images": set(),
    "data": set(),
    "model": set(),
    "synthesis": set(),
    "serving": {"data"},
    "saving": {"model", "data", "synthesis", "serving"},
    "evaluation": {"model", "data", "synthesis", "serving", "saving"},
    "doctor": {"model", "data", "saving", "evaluation"},
    "training": {"data", "model", "synthesis", "serving", "saving", "evaluation", "doctor"},
}
# Importing these must not load TensorFlow, which takes seconds.
WITHOUT_TENSORFLOW = (
    "ocr.allocator",
    "ocr.client",
    "ocr.config",
    "ocr.options",
    "ocr.charset",
    "ocr.pretrained",
    "ocr.data.convert_config",
    "ocr.images.header",
    "ocr.images.preprocess_numpy",
    "ocr.synthesis.render",
    "ocr.serving.edge",
    "ocr.serving.serve_config",
    "ocr.serving.wire",
    "ocr.training.adapt_config",
    "tools.cli.command",
    "tools.ocr_lm",
    "tools.ocr_predict",
)


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path for package in ("ocr", "tfrecords", "tools") for path in sorted((ROOT / package).rglob("*.py"))
}


def imported(path: pathlib.Path) -> set[str]:
    """Returns everything that a file imports: modules of this project by their full names, others as dotted names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            within_tools = path.is_relative_to(ROOT / "tools") and (node.level > 0 or module.split(".")[0] == "tools")
            assert (node.level > 0) == within_tools, f"{path}: modules of tools, and no others, import each other relatively"
            if node.level:
                folder = path.parents[node.level - 1].relative_to(ROOT)
                module = ".".join([*folder.parts, *module.split(".")]).rstrip(".")
            dotted = {f"{module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else module for name in dotted} | (dotted - MODULES.keys())
    return names


IMPORTED = {name: imported(path) for name, path in MODULES.items()}


def room(name: str) -> str:
    """Returns the room of a module of ocr; "" is the ground floor."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


def test_every_folder_of_ocr_is_a_room_with_a_docstring():
    folders = {path.parent.name for path in (ROOT / "ocr").glob("*/__init__.py")}
    assert folders == {*ROOMS, "pretrained"}
    for name in ROOMS:
        body = ast.parse((ROOT / "ocr" / name / "__init__.py").read_text("utf-8")).body
        assert len(body) == 1, f"ocr/{name}/__init__.py: has more than a docstring"
        assert isinstance(body[0], ast.Expr)


@pytest.mark.parametrize("name", ["", *ROOMS])
def test_a_room_imports_only_those_it_may(name: str):
    allowed = {""} if name == "" else {"", "images", name, *ROOMS[name]}
    for module in MODULES:
        if module.startswith("ocr.") and room(module) == name and module != "ocr.client":
            others = {used for used in IMPORTED[module] if used.startswith("ocr.")}
            assert {used for used in others if room(used) not in allowed} == set(), module


def test_the_public_name_of_the_client_is_an_alias_that_no_module_uses():
    assert {name for name in IMPORTED["ocr.client"] if name in MODULES} == {"ocr.serving.client"}
    assert not [module for module in MODULES if module != "ocr.client" and "ocr.client" in IMPORTED[module]]


def test_there_are_no_circular_imports():
    graph = {name: {used for used in IMPORTED[name] if used in MODULES and used != name} for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(("package", "forbidden"), [("tfrecords", ("ocr", "tools")), ("ocr", ("tools", "tests"))])
def test_packages_import_one_way(package: str, forbidden: tuple[str, ...]):
    for module in MODULES:
        if module.split(".")[0] == package:
            assert not {name for name in IMPORTED[module] if name.split(".")[0] in forbidden}, module


def test_a_wheel_has_every_package_and_the_command_lines_under_a_name_of_their_own():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    folders = {path.parent.relative_to(ROOT).as_posix() for path in MODULES.values() if path.name == "__init__.py"}
    expected = {re.sub("^tools", "ocr_tools", folder).replace("/", ".") for folder in folders}
    assert set(config["options"]["packages"].split()) == expected
    commands = dict(line.split(" = ") for line in config["options.entry_points"]["console_scripts"].strip().split("\n"))
    files = {path.stem for path in (ROOT / "tools").glob("*.py")} - {"__init__", "demo"}
    assert commands == {name: f"ocr_tools.{name}:run" for name in files}


def test_flags_are_defined_only_in_tools_and_no_private_tensorflow_module_is_used():
    for module, names in IMPORTED.items():
        assert not {name for name in names if name.startswith("tensorflow.python")}, module
        assert module.startswith("tools") or not {name for name in names if name.startswith("absl.flags")}, module


def test_reading_with_an_export_needs_no_model_or_charset_code():
    needed = {"ocr.pretrained", "ocr.serving.questions", "tfrecords.errors", "tfrecords.files"}
    assert {name for name in IMPORTED["ocr.serving.saved_model"] if name in MODULES} == needed
    assert {name for name in IMPORTED["ocr.serving.questions"] if name in MODULES} == {"tfrecords.errors"}


@pytest.mark.parametrize("module", WITHOUT_TENSORFLOW)
def test_importing_a_light_module_does_not_load_tensorflow(module: str):
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
