"""Measures what it is worth to read doubtful lines turned, too, and what it costs."""

import io
import pathlib
from collections.abc import Sequence

from PIL import Image, ImageOps

from ocr.model.recogniser import Recogniser
from ocr.saving import warm_start
from ocr.serving import saved_model

from . import drawn
from .timing import Comparison
from .variants import Variants

_WAYS: dict[str, list[Image.Transpose | None]] = {  # how lines are turned, in turn
    "upright": [None],
    "upside down": [Image.Transpose.ROTATE_180],
    "on their side": [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270],
}


def measure(
    count: int, fonts: Sequence[str] = (), corpus: Sequence[str] = (), model: str = "pretrained", data: str = ""
) -> Comparison:
    """Reads lines upright, upside down and on their side, as they are shown and as an export with `--turned_lines` does.

    Args:
      count: the number of drawn lines of each kind.
      fonts: to draw with, as in `render_lines`.
      corpus: files of running text, likewise; without, texts are random characters.
      model: an export, of which the network is taken.
      data: records of other lines, of which at most `count` are read, or "".

    Returns:
      By kind of lines and how they are turned: `cer`, with `--turned_lines`; `as_shown`, the CER without; `changed`, the number
      of lines that have another text with it. Of upright lines the ratio of CPU times, too, `cpu_1` and `cpu_32`: see
      `Variants`.

    Raises:
      InputError: there is no such model, font or file.
    """
    origin = warm_start.load_export(saved_model.newest_version(pathlib.Path(model)))
    recognisers = (Recogniser(origin.model, origin.charset, fixed=True, turned_lines=turned) for turned in (False, True))
    variants = Variants(*recognisers)
    results: Comparison = {}
    with drawn.drawing(origin.charset, fonts) as drawing:
        kinds = {f"drawn, {style}": drawing.records(count, style, corpus) for style in ("clean", "hard")}
        for name, records in (kinds | ({data: data} if data else {})).items():
            files, truths = drawn.load(records, count)
            for way, turns in _WAYS.items():
                turned = [turn(file, turns[number % len(turns)]) for number, file in enumerate(files)]
                row = variants.compared(turned, truths, "as_shown")
                results[f"{name}, {way}"] = row | (variants.cpu_ratios(turned) if way == "upright" else {})
    return results


def turn(file: bytes, way: Image.Transpose | None) -> bytes:
    """Returns an image file with its image turned, as a PNG unless it stays as it is."""
    if way is None:
        return file
    turned = io.BytesIO()
    ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGBA").transpose(way).save(turned, "png", compress_level=1)
    return turned.getvalue()
