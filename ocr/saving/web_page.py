"""Writes the server's page as static files that read images in the browser, with ONNX Runtime's npm package."""

import pathlib
import shutil

from ocr import serving
from tfrecords import files
from tfrecords.errors import InputError

_PAGE = pathlib.Path(serving.__file__).parent / "web"
_RUNTIME = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_SCRIPT = '<script src="page.js" defer></script>'
_STYLE = ".comparison { display: none; }\n"  # it takes the signature `score`, which only exports have
_SCRIPTS = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
    "style-src 'self'; img-src blob:; connect-src 'self'\">\n"
    '<script src="ort.wasm.min.js" defer></script>\n<script src="local.js" defer></script>\n' + _SCRIPT
)


def check_package(package: str) -> None:
    """Checks that a folder is the npm package onnxruntime-web.

    Raises:
      InputError: it is not.
    """
    if not package or not all((pathlib.Path(package) / "dist" / name).is_file() for name in _RUNTIME):
        raise InputError(f"--onnxruntime_web={package}: not that npm package; npm install onnxruntime-web writes it")


def write(folder: pathlib.Path, package: str) -> None:
    """Adds the page and the runtime to a folder with a model, its alphabet and description.

    Args:
      folder: as `edge.convert` writes it.
      package: folder of the npm package onnxruntime-web.
    """
    for name in ("page.js", "local.js"):
        shutil.copy(_PAGE / name, folder / name)
    files.write_text(folder / "page.css", (_PAGE / "page.css").read_text("utf-8") + _STYLE)
    page = (_PAGE / "index.html").read_text("utf-8").replace(_SCRIPT, _SCRIPTS)
    page = page.replace("{model_name}", "ocr").replace("{corrects}", "false")
    files.write_text(folder / "index.html", page)
    for name in _RUNTIME:
        shutil.copy(pathlib.Path(package) / "dist" / name, folder / name)
