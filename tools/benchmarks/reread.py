"""Measures what it is worth to read doubtful lines in other sizes, too, and what it costs."""

import pathlib
from collections.abc import Sequence

from ocr.model.recogniser import Recogniser
from ocr.saving import warm_start
from ocr.serving import saved_model

from . import drawn
from .timing import Comparison
from .variants import Variants


def measure(
    count: int, fonts: Sequence[str] = (), corpus: Sequence[str] = (), model: str = "pretrained", data: str = ""
) -> Comparison:
    """Reads lines once, and as an export with `--reread` does.

    Args:
      count: the number of drawn lines of each kind.
      fonts: to draw with, as in `render_lines`.
      corpus: files of running text, likewise; without, texts are random characters.
      model: an export, of which the network is taken.
      data: records of other lines, of which at most `count` are read, or "".

    Returns:
      By kind of lines: `cer`, with `--reread`; `once`, the CER without; `changed`, the number of lines that have another text
      with it; and the ratio of CPU times, `cpu_1` and `cpu_32`: see `Variants`.

    Raises:
      InputError: there is no such model, font or file.
    """
    origin = warm_start.load_export(saved_model.newest_version(pathlib.Path(model)))
    variants = Variants(*(Recogniser(origin.model, origin.charset, fixed=True, reread=reread) for reread in (False, True)))
    results: Comparison = {}
    with drawn.drawing(origin.charset, fonts) as drawing:
        kinds = {f"drawn, {style}": drawing.records(count, style, corpus) for style in ("clean", "hard")}
        for name, records in (kinds | ({data: data} if data else {})).items():
            files, truths = drawn.load(records, count)
            results[name] = variants.compared(files, truths, "once") | variants.cpu_ratios(files)
    return results
