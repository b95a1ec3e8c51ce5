"""Measures what a language model is worth: lines of other passages of a text, read with and without one."""

import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from ocr.model import ngram_estimate
from ocr.model.fusion import Fusion
from ocr.model.recogniser import Recogniser
from ocr.saving import fusion_weights, warm_start
from ocr.serving import saved_model
from ocr.synthesis.texts import corpus_runs
from tfrecords.errors import InputError

from . import drawn
from .timing import Comparison
from .variants import Variants, error_rates

_ORDER = 3
_BLOCK, _HELD_OUT = 500, 25  # lines of a passage; of so many passages, one is for the lines and the others for the n-grams


def measure(
    count: int, fonts: Sequence[str] = (), corpus: Sequence[str] = (), model: str = "pretrained", data: str = ""
) -> Comparison:
    """Builds a language model, chooses its weights as `ocr_export` does, and reads lines with and without it.

    Args:
      count: the number of lines of each kind.
      fonts: to draw with, as in `render_lines`.
      corpus: files of running text. Passages of them give the texts of lines, the rest of them gives the n-grams.
      model: an export, of which the network is taken.
      data: records of other lines, of which at most `count` are read, or "".

    Returns:
      What was chosen on other lines: `weight`, `bonus`, `threshold`. By kind of lines `cer`, that of greedy decoding, and `lm`,
      with 95% intervals, `lm_low` and `lm_high`; and the ratio of CPU times, `cpu_1` and `cpu_32`: see `Variants`.

    Raises:
      InputError: there is no such model, font or file, or there is too little text.
    """
    origin = warm_start.load_export(saved_model.newest_version(pathlib.Path(model)))
    passages, rest = split([run for path in corpus for run in corpus_runs(path, origin.charset, 1)])
    ngram = ngram_estimate.estimate(rest, _ORDER)
    with drawn.drawing(origin.charset, fonts) as drawing, tempfile.TemporaryDirectory() as folder:
        held_out = [pathlib.Path(folder) / name for name in ("calibrate.txt", "measure.txt")]
        for number, path in enumerate(held_out):
            path.write_text("\n".join(passages[number::2]), "utf-8")
        calibrate, texts = map(str, held_out)
        # As many clean lines as hard ones would make little difference: their weights are chosen on doubtful lines.
        lines = [drawing.records(count, "hard", [calibrate]), drawing.records(-(-count // 2), "clean", [calibrate])]
        plain = Recogniser(origin.model, origin.charset, fixed=True)
        weights, chosen = fusion_weights.choose(plain, ngram, ",".join(lines))
        variants = Variants(
            plain, Recogniser(origin.model, origin.charset, "beam", fixed=True, fusion=Fusion(ngram, origin.charset, weights))
        )
        results: Comparison = {"chosen": {"lines": chosen["lines"], **weights._asdict()}}
        kinds = {
            "hard": drawing.records(count, "hard", [texts]),
            "clean": drawing.records(count, "clean", [texts]),
            "numbers, dates and codes, hard": drawing.records(count, "hard", numbers=1.0),
            "random characters, hard": drawing.records(count, "hard"),
        } | ({data: data} if data else {})
        for name, records in kinds.items():
            results |= _compared(variants, name, records, weights.threshold, count)
    return results


def split(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits text into passages for lines to read, one in 25, and the rest, for n-grams, in which none of these lines is.

    Raises:
      InputError: it has too few lines.
    """
    block = min(_BLOCK, len(lines) // _HELD_OUT)
    if not block:
        raise InputError(f"--corpus: {len(lines)} lines of the model's characters; a language model needs at least {_HELD_OUT}")
    number = np.arange(len(lines)) // block % _HELD_OUT
    rest = [line for line, place in zip(lines, number, strict=True) if place]
    known = set(rest)
    passages = [line for line, place in zip(lines, number, strict=True) if not place and line not in known]
    return passages, rest


def _compared(variants: Variants, name: str, records: str, threshold: float, count: int) -> Comparison:
    files, truths = drawn.load(records, count)
    greedy, fused = (reading.results(truths) for reading in variants.read(files))
    rows = {name: _row(greedy, fused) | variants.cpu_ratios(files)}
    unsure = [number for number, line in enumerate(greedy) if line.confidence < threshold]
    if unsure:
        rows[f"{name}, unsure"] = _row([greedy[n] for n in unsure], [fused[n] for n in unsure])
    return rows


def _row(greedy: list, fused: list) -> dict[str, float]:
    return {"lines": len(greedy), "cer": error_rates(greedy)["cer"], **error_rates(fused, "lm")}
