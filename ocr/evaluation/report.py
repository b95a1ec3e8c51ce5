"""The report on how well lines were read: metrics, the most frequent errors, and advice on what to do about them."""

import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ocr.charset import describe
from ocr.evaluation import metrics, report_html, risk_coverage
from ocr.evaluation.metrics import CalibrationBin, LineResult
from tfrecords import files

_MAX_WORST, _MAX_CONFUSIONS, _MAX_PLACES = 50, 40, 3  # worst lines; confusions; pictures of each confusion
_LENGTHS, _WIDTHS = (1, 5, 10, 20, 40), (1, 100, 200, 400, 800)  # lower bounds of the groups, in characters and pixels
_MIN_GROUP = 20  # lines: the metrics of a smaller group are too noisy for advice

Images = Callable[[Collection[int]], Mapping[int, bytes]]


def write(folder: pathlib.Path, title: str, lines: Sequence[LineResult], measured: Mapping[str, Any], images: Images) -> None:
    """Writes `report.html`, and `report.json` with the same content except for the pictures.

    Args:
      folder: to write to.
      title: of the page.
      lines: the results of all lines.
      measured: their metrics, from `metrics.measures`.
      images: takes line numbers, returns a PNG file of each line as the network gets it, 32 pixels high.
    """
    content = contents(lines, measured)
    files.write_json(folder / "report.json", {"title": title, **content})
    shown = {row["line"] for row in content["worst"]}
    shown |= {place["line"] for row in content["confusions"] for place in row["places"]}
    files.write_text(folder / "report.html", report_html.draw(title, content, lines, images(shown)))


def contents(lines: Sequence[LineResult], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the contents of a report.

    Args:
      lines: the results of all lines.
      measured: their metrics, from `metrics.measures`.

    Returns:
      `figures`, the metrics as given; `by_length`, `by_width` and `by_font`: groups of lines with `name`, `lines`, `cer` and
      `line_accuracy`; `confusions`: `truth`, `text` and `count`, the most frequent first, with `places`, a `line` and a `place`
      in it, both counted from 0; `worst`: `line`, `filename`, `truth`, `text`, `confidence` and `edits`, the worst first;
      `calibration`: bins of lines of similar confidence; `risk_coverage`: see `risk_coverage.measure`; `advice`: sentences.
    """
    edits = metrics.edit_distances([line.truth for line in lines], [line.text for line in lines])
    confusions = metrics.confusions((line.truth, line.text) for line in lines)
    order = sorted(range(len(lines)), key=lambda n: (-edits[n] / max(len(lines[n].truth), 1), -lines[n].confidence))
    groups = {
        "by_length": _groups(lines, edits, _ranges(_LENGTHS, [len(line.truth) for line in lines])),
        "by_width": _groups(lines, edits, _ranges(_WIDTHS, [line.width for line in lines])),
        "by_font": _groups(lines, edits, [line.font for line in lines]),
    }
    confidences, lengths = [line.confidence for line in lines], np.array([len(line.truth) for line in lines])
    bins = metrics.calibration_bins(confidences, edits == 0)
    return {
        "figures": dict(measured),
        **groups,
        "confusions": [
            {
                "truth": truth,
                "text": text,
                "count": len(places),
                "places": [{"line": number, "place": place} for number, place in places[:_MAX_PLACES]],
            }
            for (truth, text), places in list(confusions.items())[:_MAX_CONFUSIONS]
        ],
        "worst": [
            {
                "line": n,
                "filename": lines[n].filename,
                "truth": lines[n].truth,
                "text": lines[n].text,
                "confidence": round(lines[n].confidence, 4),
                "edits": int(edits[n]),
            }
            for n in order[:_MAX_WORST]
            if edits[n]
        ],
        "calibration": [each._asdict() for each in bins],
        "risk_coverage": risk_coverage.measure(confidences, edits, lengths),
        "advice": list(_advice(lines, measured, groups, confusions, bins)),
    }


def _ranges(begins: Sequence[int], values: Sequence[int]) -> list[str]:
    """Returns the name of the range each value falls in."""
    ends = [*(begin - 1 for begin in begins[1:]), 0]
    names = [f"{begin} to {end}" if end else f"{begin} and more" for begin, end in zip(begins, ends, strict=True)]
    return [names[max(int(np.searchsorted(begins, value, side="right")) - 1, 0)] for value in values]


def _groups(lines: Sequence[LineResult], edits: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the metrics of the lines of each name; ranges in ascending order, other groups by falling CER."""
    rows = []
    for name in dict.fromkeys(names):
        members = [n for n, other in enumerate(names) if other == name]
        characters = sum(len(lines[n].truth) for n in members)
        rows.append(
            {
                "name": name,
                "lines": len(members),
                "cer": round(float(edits[members].sum()) / max(characters, 1), 6),
                "line_accuracy": round(float((edits[members] == 0).mean()), 6),
            }
        )
    if [row["name"] for row in rows] == [""]:
        return []
    return sorted(rows, key=lambda row: int(row["name"].split()[0]) if row["name"][:1].isdecimal() else -row["cer"])


def _advice(
    lines: Sequence[LineResult],
    measured: Mapping[str, Any],
    groups: Mapping[str, list[dict[str, Any]]],
    confusions: Mapping[tuple[str, str], list[tuple[int, int]]],
    bins: Sequence[CalibrationBin],
) -> Iterable[str]:
    """Suggests what to do next, the most useful first."""
    wrong = sum(map(len, confusions.values()))
    if not wrong:
        yield "Every line was read correctly: try harder ones."
        return
    cer = measured["cer"]
    if measured["cer_nfkc"] < 0.7 * cer:
        yield (
            f"{1 - measured['cer_nfkc'] / cer:.0%} of the errors are spaces or variants of one character, such as full and "
            "half width: label them consistently, or go by cer_nfkc."
        )
    read = {character for line in lines for character in line.text}
    never = {c for (truth, _), places in confusions.items() for c in truth if len(places) >= 3} - read
    if never:
        yield (
            f"Never read: {describe(''.join(sorted(never)))}. Add lines with these characters, and make sure the alphabet has "
            "them."
        )
    for kind, what in (("by_font", "font"), ("by_length", "length in characters"), ("by_width", "width in pixels")):
        large = [row for row in groups[kind] if row["lines"] >= _MIN_GROUP]
        worst = max(large, key=lambda row: row["cer"], default=None)
        if worst and len(large) > 1 and worst["cer"] > 2 * cer:
            yield (
                f"Lines of the {what} {worst['name']} have a CER of {worst['cer']:.2%}, against {cer:.2%} overall: train on "
                "more lines like them."
            )
    missing, added = (sum(len(p) for pair, p in confusions.items() if not pair[side]) for side in (1, 0))
    if missing > 0.4 * wrong:
        yield f"{missing} of {wrong} errors are missing characters: check narrow or clipped letters, and the ends of lines."
    if added > 0.4 * wrong:
        yield f"{added} of {wrong} errors are added characters: check the images for other lines, rules and noise."
    (truth, text), places = next(iter(confusions.items()))
    if len(places) > 0.1 * wrong and truth and text:
        yield (
            f"{describe(truth)} read as {describe(text)} makes up {len(places) / wrong:.0%} of all errors: check whether the "
            "two can be distinguished in the images, and whether the labels do so."
        )
    gap = metrics.calibration_error(bins)
    if gap > 0.03:
        mean = sum(each.lines * (each.confidence - each.right) for each in bins)
        yield (
            f"Confidences are {'too high' if mean > 0 else 'too low'}, off by {gap:.1%} on average: choose a threshold from "
            "the table of risk and coverage rather than from the confidence itself."
        )
    yield "Inspect the worst lines: wrong labels and clipped images among them cost more than any setting gains."
