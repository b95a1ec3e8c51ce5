"""What there is to tell of how well lines are read: figures, what is wrong most often, and what to do about it."""

import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ocr.charset import describe
from ocr.evaluation import calibration, confusions, metrics, report_html
from ocr.evaluation.metrics import Reading
from tfrecords import files

_WORST, _PAIRS, _SEEN = 50, 40, 3  # lines; confusions; pictures of each of these
_LENGTHS, _WIDTHS = (1, 5, 10, 20, 40), (1, 100, 200, 400, 800)  # where a group begins, in characters and pixels
_FEW = 20  # lines, of which no figure is worth advice

Images = Callable[[Collection[int]], Mapping[int, bytes]]


def write(folder: pathlib.Path, title: str, lines: Sequence[Reading], measured: Mapping[str, Any], images: Images) -> None:
    """Writes `report.html`, and `report.json` with the same in it but for the pictures.

    Args:
      folder: to write to.
      title: of the page.
      lines: what was read, all of it.
      measured: as `reading.measures`.
      images: gives the image files of lines, by their numbers.
    """
    found = facts(lines, measured)
    files.write_json(folder / "report.json", {"title": title, **found})
    shown = {row["line"] for row in found["worst"]}
    shown |= {place["line"] for row in found["confusions"] for place in row["places"]}
    files.write_text(folder / "report.html", report_html.draw(title, found, lines, images(shown)))


def facts(lines: Sequence[Reading], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a report tells.

    Returns:
      `figures`, as given; `by_length`, `by_width` and `by_font`: groups of lines with `name`, `lines`, `cer`, `line_accuracy`;
      `confusions`: `truth`, `text` and `count`, the most frequent first, with `places`, a `line` and a `place` in it, counted
      from 0; `worst`: `line`, `filename`, `truth`, `text`, `confidence` and `edits`, the most wrong first; `calibration`:
      groups of like confidence; `advice`: sentences.
    """
    edits = metrics.edits([line.truth for line in lines], [line.text for line in lines])
    pairs = confusions.count((line.truth, line.text) for line in lines)
    order = sorted(range(len(lines)), key=lambda n: (-edits[n] / max(len(lines[n].truth), 1), -lines[n].confidence))
    groups = {
        "by_length": _groups(lines, edits, _ranges(_LENGTHS, [len(line.truth) for line in lines])),
        "by_width": _groups(lines, edits, _ranges(_WIDTHS, [line.width for line in lines])),
        "by_font": _groups(lines, edits, [line.font for line in lines]),
    }
    bins = calibration.bins([line.confidence for line in lines], edits == 0)
    return {
        "figures": dict(measured),
        **groups,
        "confusions": [
            {
                "truth": truth,
                "text": text,
                "count": len(places),
                "places": [{"line": number, "place": place} for number, place in places[:_SEEN]],
            }
            for (truth, text), places in list(pairs.items())[:_PAIRS]
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
            for n in order[:_WORST]
            if edits[n]
        ],
        "calibration": [each._asdict() for each in bins],
        "advice": list(_advice(lines, measured, groups, pairs, bins)),
    }


def _ranges(begins: Sequence[int], values: Sequence[int]) -> list[str]:
    """Returns the name of the range that each value is in."""
    ends = [*(begin - 1 for begin in begins[1:]), 0]
    names = [f"{begin} to {end}" if end else f"{begin} and more" for begin, end in zip(begins, ends, strict=True)]
    return [names[max(int(np.searchsorted(begins, value, side="right")) - 1, 0)] for value in values]


def _groups(lines: Sequence[Reading], edits: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the figures of lines of like names, in the order of their first number, or else of their CER."""
    rows = []
    for name in dict.fromkeys(names):
        own = [n for n, other in enumerate(names) if other == name]
        characters = sum(len(lines[n].truth) for n in own)
        rows.append(
            {
                "name": name,
                "lines": len(own),
                "cer": round(float(edits[own].sum()) / max(characters, 1), 6),
                "line_accuracy": round(float((edits[own] == 0).mean()), 6),
            }
        )
    if [row["name"] for row in rows] == [""]:
        return []
    return sorted(rows, key=lambda row: int(row["name"].split()[0]) if row["name"][:1].isdecimal() else -row["cer"])


def _advice(
    lines: Sequence[Reading],
    measured: Mapping[str, Any],
    groups: Mapping[str, list[dict[str, Any]]],
    pairs: Mapping[tuple[str, str], list],
    bins: Sequence[calibration.Bin],
) -> Iterable[str]:
    """Says what is worth doing next, the most useful first."""
    wrong = sum(map(len, pairs.values()))
    if not wrong:
        yield "Every line is read: try harder ones."
        return
    cer = measured["cer"]
    if measured["cer_nfkc"] < 0.7 * cer:
        yield (
            f"Of the errors {1 - measured['cer_nfkc'] / cer:.0%} are forms of one character, such as full and half width, or "
            "spaces: write the labels one way, or judge by cer_nfkc."
        )
    read = {character for line in lines for character in line.text}
    never = {c for (truth, _), places in pairs.items() for c in truth if len(places) >= 3} - read
    if never:
        yield (
            f"Never read: {describe(''.join(sorted(never)))}. Add lines that hold these characters, and see that the alphabet "
            "has them."
        )
    for kind, what in (("by_font", "font"), ("by_length", "length in characters"), ("by_width", "width in pixels")):
        many = [row for row in groups[kind] if row["lines"] >= _FEW]
        worst = max(many, key=lambda row: row["cer"], default=None)
        if worst and len(many) > 1 and worst["cer"] > 2 * cer:
            yield (
                f"Lines of the {what} {worst['name']} have a CER of {worst['cer']:.2%} where all together have {cer:.2%}: "
                "train with more like them."
            )
    lost, added = (sum(len(p) for pair, p in pairs.items() if not pair[side]) for side in (1, 0))
    if lost > 0.4 * wrong:
        yield f"{lost} of {wrong} errors are characters left out: look at narrow or cut letters, and at the ends of lines."
    if added > 0.4 * wrong:
        yield f"{added} of {wrong} errors are characters added: look for strokes of other lines, rules and noise in the images."
    (truth, text), places = next(iter(pairs.items()))
    if len(places) > 0.1 * wrong and truth and text:
        yield (
            f"{describe(truth)} read as {describe(text)} makes up {len(places) / wrong:.0%} of all errors: see whether both "
            "can be told apart in the images, and whether the labels keep them apart."
        )
    off = calibration.error(bins)
    if off > 0.03:
        mean = sum(each.lines * (each.confidence - each.right) for each in bins)
        yield (
            f"Confidences are {'too high' if mean > 0 else 'too low'}, by {off:.1%} on average: choose a threshold from the "
            "table of calibration, not from the number itself."
        )
    yield "Look at the worst lines: wrong labels and cut images among them cost more than any setting gains."
