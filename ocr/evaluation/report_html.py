"""The report as a single self-contained HTML file."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ocr.evaluation import metrics
from ocr.evaluation.metrics import LineResult

_STYLE = """
:root { color-scheme: light dark; --faint: #8888; --bad: #c0143c; --good: #16794a }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { text-align: left; padding: .25rem .8rem .25rem 0 }
td { border-top: 1px solid var(--faint); vertical-align: middle }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
img { max-height: 40px; max-width: 520px; display: block; background: #fff }
.text { font-size: 1.15rem } input.new { font: inherit; width: 22rem; max-width: 100% }
mark { background: none; color: var(--bad); font-weight: bold; text-decoration: underline }
ins { color: var(--good); font-weight: bold }
.groups { display: flex; flex-wrap: wrap; gap: 0 3rem } .figures td { font-size: 1.3rem } small { opacity: .7 }
"""


def draw(title: str, content: Mapping[str, Any], lines: Sequence[LineResult], images: Mapping[int, bytes]) -> str:
    """Returns the HTML of a report.

    Args:
      title: of the page.
      content: see `report.contents`.
      lines: the results of all lines.
      images: by line number, PNG files of the lines that `content` shows.
    """

    def picture(number: int) -> str:
        return line_image(number, images[number])

    figures = content["figures"]
    ranges = {key: " to ".join(f"{bound:.2%}" for bound in figures[f"{key}_interval"]) for key in ("cer", "line_accuracy")}
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        table(
            ("", "", ""),
            [
                ("Character errors (CER)", f"{figures['cer']:.2%}", f"<small>95%: {ranges['cer']}</small>"),
                ("Lines without an error", f"{figures['line_accuracy']:.2%}", f"<small>95%: {ranges['line_accuracy']}</small>"),
                ("CER after NFKC, without spaces", f"{figures['cer_nfkc']:.2%}", ""),
                ("Calibration error of confidences", f"{figures['calibration_error']:.2%}", ""),
                ("Lines", f"{figures['lines']:,}", ""),
            ],
            "figures",
        ),
        "<h2>What to do next</h2><ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in content["advice"]) + "</ul>",
        '<div class="groups">',
    ]
    parts += [_groups("Characters", content["by_length"]), _groups("Width in pixels", content["by_width"])]
    parts += [f"<div><h2>Confidence</h2>{_diagram(content['calibration'])}</div>", _groups("Font", content["by_font"])]
    parts += ["</div>", _risk_coverage(content["risk_coverage"])]
    rows = [
        (
            _shown(row["truth"]),
            _shown(row["text"]),
            row["count"],
            "".join(
                f"{picture(p['line'])}<span class=text>{_marked(lines[p['line']].truth, p['place'], row['truth'])}</span>"
                for p in row["places"]
            ),
        )
        for row in content["confusions"]
    ]
    parts.append(f"<h2>Confusions</h2>{table(('Should be', 'Read', 'Times', 'Where'), rows)}")
    worst = [
        (
            picture(row["line"]),
            f"<span class=text>{compared(row['truth'], row['text'])}</span>",
            row["edits"],
            f"{row['confidence']:.0%}",
            f"<small>{html.escape(row['filename'])}</small>",
        )
        for row in content["worst"]
    ]
    header = ("Line", "Read; <ins>should be</ins>", "Edits", "Confidence", "File")
    parts.append(f"<h2>The worst lines</h2>{table(header, worst)}")
    return page(title, parts)


def page(title: str, parts: Sequence[str]) -> str:
    """Returns a self-contained page."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def line_image(number: int, png: bytes) -> str:
    """Returns the image of a line, with its number for those who do not see it."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="line {number}" src="data:image/png;base64,{data}">'


def _risk_coverage(measured: Mapping[str, Any]) -> str:
    """Returns what is left of the errors if lines below a threshold are not answered: a table and two curves."""
    rows = [
        (f"{row['threshold']:g}", row["lines"], f"{row['coverage']:.1%}", f"{row['cer']:.2%}", f"{row['line_error']:.1%}")
        for row in measured["thresholds"]
    ]
    thresholds = table(("Confidence at least", "Lines", "Coverage", "CER", "Lines with an error"), rows)
    areas = f"Areas under the curves: CER {measured['cer_area']:.4f}, lines with an error {measured['line_error_area']:.4f}."
    return (
        "<h2>Risk and coverage</h2><p>Errors that are left if only lines of at least some confidence are answered, as with "
        f'<code>ocr_predict --min_confidence</code>.</p><div class="groups">{thresholds}'
        f"<div>{_curves(measured['points'])}<p><small>{areas}</small></p></div></div>"
    )


def _curves(points: Sequence[Mapping[str, Any]]) -> str:
    """Returns CER and share of lines with an error against coverage as SVG, each on a scale of its own."""
    width, height, left = 360, 200, 10
    drawn, legend = "", ""
    for row, (key, name, colour) in enumerate((("cer", "CER", "#3366cc"), ("line_error", "lines with an error", "#c0143c"))):
        top = max(point[key] for point in points) or 1.0
        places = [(left + point["coverage"] * width, 8 + (1 - point[key] / top) * height) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*places, places[-1]])  # a single point is a dot
        drawn += f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linecap="round"/>'
        legend += f'<text x="{left + 6}" y="{26 + 16 * row}" fill="{colour}">{name}, up to {top:.2%}</text>'
    return (
        f'<svg width="{width + 2 * left + 30}" height="{height + 52}" role="img" aria-label="errors by coverage" '
        'font-size="12" fill="currentColor" stroke="none">'
        f'<rect x="{left}" y="8" width="{width}" height="{height}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
        f'{drawn}{legend}<text x="{left}" y="{height + 24}">0</text><text x="{left + width - 24}" y="{height + 24}">100%</text>'
        f'<text x="{left + 80}" y="{height + 42}">coverage: share of lines answered</text></svg>'
    )


def _groups(name: str, groups: Sequence[Mapping[str, Any]]) -> str:
    if not groups:
        return ""
    rows = [(html.escape(row["name"]), row["lines"], f"{row['cer']:.2%}", f"{row['line_accuracy']:.1%}") for row in groups]
    return f"<div><h2>By {name.lower()}</h2>{table((name, 'Lines', 'CER', 'Correct'), rows)}</div>"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], kind: str = "") -> str:
    """Returns a table; columns of numbers are right-aligned."""
    numbers = [bool(rows) and re.fullmatch(r"[\d,.]+%?", str(value)) is not None for value in (rows or [header])[0]]

    def line(tag: str, values: Sequence[Any]) -> str:
        cells = (f"<{tag}{' class=n' * number}>{value}</{tag}>" for value, number in zip(values, numbers, strict=True))
        return f"<tr>{''.join(cells)}</tr>\n"

    head = line("th", header) if any(header) else ""
    return f'<table class="{kind}">{head}{"".join(line("td", row) for row in rows)}</table>'


def _shown(character: str) -> str:
    """Returns a character of a confusion with its code point, since look-alikes cannot be distinguished by sight."""
    if not character:
        return "<small>nothing</small>"
    return f"<span class=text>{html.escape(character)}</span> <small>U+{ord(character):04X}</small>"


def _marked(text: str, place: int, truth: str) -> str:
    end = place + len(truth)
    return f"{html.escape(text[:place])}<mark>{html.escape(text[place:end] or '|')}</mark>{html.escape(text[end:])}"


def compared(truth: str, text: str) -> str:
    """Returns a text with its wrong characters marked, each followed by the right one."""
    parts, rest = [], text
    at = 0
    for edit in metrics.alignment(truth, text):
        same, at = edit.place - at, edit.place + len(edit.truth)
        parts.append(html.escape(rest[:same]))
        parts.append(
            (f"<mark>{html.escape(edit.text)}</mark>" if edit.text else "")
            + (f"<ins>{html.escape(edit.truth)}</ins>" if edit.truth else "")
        )
        rest = rest[same + len(edit.text) :]
    return "".join(parts) + html.escape(rest)


def _diagram(bins: Sequence[Mapping[str, Any]]) -> str:
    """Returns the share of correct lines against confidence as SVG; a dot's area shows its number of lines."""
    side, edge = 260, 34
    most = max(each["lines"] for each in bins)
    dots = "".join(
        f'<circle cx="{edge + each["confidence"] * side:.1f}" cy="{(1 - each["right"]) * side + 8:.1f}" '
        f'r="{3 + 9 * (each["lines"] / most) ** 0.5:.1f}" fill="#3366cc" fill-opacity=".75">'
        f"<title>{each['lines']} lines, confidence {each['confidence']:.1%}, correct {each['right']:.1%}</title></circle>"
        for each in bins
    )
    return (
        f'<svg width="{side + 2 * edge}" height="{side + 52}" role="img" aria-label="share of correct lines by confidence" '
        'font-size="12" fill="currentColor" stroke="none">'
        f'<rect x="{edge}" y="8" width="{side}" height="{side}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
        f'<line x1="{edge}" y1="{side + 8}" x2="{edge + side}" y2="8" stroke="currentColor" stroke-opacity=".4"/>{dots}'
        f'<text x="{edge}" y="{side + 24}">0</text><text x="{edge + side - 24}" y="{side + 24}">100%</text>'
        f'<text x="{edge + 60}" y="{side + 42}">confidence of a line</text>'
        f'<text x="14" y="{side}" transform="rotate(-90 14 {side})">lines without an error</text></svg>'
    )
