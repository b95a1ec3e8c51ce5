"""The page of an audit: lines whose labels may be wrong, what to do about each, and a button that saves it as a file."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from ocr.evaluation import report_html
from ocr.evaluation.metrics import LineResult
from tfrecords import files

# A line is corrected if its box is checked: to the text in its field, or dropped if there is none.
_SCRIPT = """
document.getElementById("save").addEventListener("click", () => {
  const rows = [...document.querySelectorAll("tr:has(input:checked)")].map((row) => row.querySelector("input.new"));
  const file = new Blob(rows.map((field) => `${field.name}\\t${field.value}\\n`), { type: "text/tab-separated-values" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = "corrections.tsv";
  link.click();
});
for (const field of document.querySelectorAll("input.new")) {
  field.addEventListener("input", () => (field.closest("tr").querySelector("[type=checkbox]").checked = true));
}
"""


def draw(
    title: str,
    summary: Mapping[str, Any],
    rows: Sequence[tuple[int, LineResult, float]],
    images: Mapping[int, bytes],
) -> str:
    """Returns the HTML of an audit.

    Args:
      title: of the page.
      summary: see `audit.write`.
      rows: number, result and probability of a wrong label of each line to show; those with corrections come first.
      images: by line number, PNG files of these lines.
    """
    header = ("Line", "Label; <ins>read</ins>; new text", "Wrong", "Correct")
    cells = [
        (
            f"{report_html.line_image(number, images[number])}<small>{_escape(line.filename)}</small>",
            f"<span class=text>{report_html.compared(line.text, line.truth)}</span><br>"
            f'<input class=new name="{_escape(line.filename)}" value="{html.escape(line.text)}" aria-label="new text">',
            f"{wrong:.0%}",
            f'<input type=checkbox aria-label="correct"{" checked" * (place < summary["corrections"])}>',
        )
        for place, (number, line, wrong) in enumerate(rows)
    ]
    share = "" if summary["wrong_share"] is None else f", an estimated {summary['wrong_share']:.1%} of them with a wrong label"
    left = f" {summary['not_judged']:,} have labels that this model can never read, and are not judged."
    more = summary["corrections"] - len(rows)
    beyond = f"; it has {more:,} more lines, which are not on this page and not in the file saved here"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{summary['lines']:,} lines{share}.{left if summary['not_judged'] else ''}"
        f" Below are {len(rows)} that were read differently from their labels, the most doubtful first."
        f"</p><p>Those in <code>corrections.tsv</code> are checked{beyond if more > 0 else ''}. "
        "Check the labels that are wrong, correct the new text, or leave none to drop the line, and "
        "<button id=save>save another corrections.tsv</button></p>",
        report_html.table(header, cells),
        f"<script>{_SCRIPT}</script>",
    ]
    return report_html.page(title, parts)


def _escape(name: str) -> str:
    return html.escape(files.escape_cell(name))
