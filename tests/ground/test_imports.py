"""Imports go one way: tools -> ocr -> tfrecords, and inside ocr only downwards."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# From the ground up: a module imports only those before it.
_ORDER = """
    addons charset config progress workers imagefile headers images augment_addons augment labels fonts texts drawing sheet
    render candidates convert engine convert_beam dummy sets verify order inputs ctc decode keras_versions fast_layers models
    frozen learner findings references probe doctor recogniser sharpness predict wire answers client predict_beam
    warmup serving_config inspection versions batcher service rpc rest serve optimizer recipe devices steps
    workdir warm_start calibration confusions reading page report evaluate watch journal diagnose best clock run train
    reproduce export timing bench_data bench_serve bench_read bench_train bench
"""
OCR = tuple(_ORDER.split())
TFRECORDS = ("errors", "files", "schema", "shards", "manifest", "tfds", "writer", "reader")


def imported(path: pathlib.Path) -> set[str]:
    """Returns the modules that a file imports anywhere in it, as dotted names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def modules(package: str) -> list[pathlib.Path]:
    return [path for path in sorted((ROOT / package).glob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize(("package", "order"), [("ocr", OCR), ("tfrecords", TFRECORDS)])
def test_a_module_imports_only_modules_below_it(package: str, order: tuple[str, ...]):
    assert sorted(path.stem for path in modules(package)) == sorted(order), "name every module in the order above"
    for path in modules(package):
        above = {f"{package}.{name}" for name in order[order.index(path.stem) :]}
        assert not imported(path) & above, f"{path.name} imports a module above it"


@pytest.mark.parametrize(("package", "forbidden"), [("tfrecords", ("ocr", "tools")), ("ocr", ("tools", "tests"))])
def test_packages_import_one_way(package: str, forbidden: tuple[str, ...]):
    for path in modules(package):
        assert not {name for name in imported(path) if name.split(".")[0] in forbidden}, path.name


def test_flags_are_defined_in_tools_only_and_nothing_private_of_tensorflow_is_used():
    for package in ("ocr", "tfrecords", "tools"):
        for path in modules(package):
            names = imported(path)
            assert not {n for n in names if n.startswith("tensorflow.python")}, path.name
            assert package == "tools" or not {n for n in names if n.startswith("absl")}, path.name


def test_reading_with_an_export_needs_neither_model_nor_charset_code():
    assert not {n for n in imported(ROOT / "ocr" / "predict.py") if n.split(".")[0] == "ocr"}
