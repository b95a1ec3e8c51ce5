"""Where texts depart from what they should be: characters taken for others, left out, or added."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple


class Edit(NamedTuple):
    """One departure.

    Attributes:
      place: in the truth, in characters; of one that was added, where it stands before.
      truth: the character that should be there, or nothing.
      text: the one that was read, or nothing.
    """

    place: int
    truth: str
    text: str


def between(truth: str, text: str) -> list[Edit]:
    """Returns the fewest edits that make a truth of the text, in order (Wagner and Fischer, 1974, "The String-to-String
    Correction Problem"); where there are several ways, characters are exchanged rather than left out and added."""
    rows = [list(range(len(text) + 1))]
    for i, wanted in enumerate(truth):
        above, row = rows[-1], [i + 1]
        for j, found in enumerate(text):
            row.append(min(above[j] + (wanted != found), above[j + 1] + 1, row[j] + 1))
        rows.append(row)
    edits, i, j = [], len(truth), len(text)
    while i or j:
        cost = rows[i][j]
        if i and j and cost == rows[i - 1][j - 1] + (truth[i - 1] != text[j - 1]):
            i, j = i - 1, j - 1
            if truth[i] != text[j]:
                edits.append(Edit(i, truth[i], text[j]))
        elif i and cost == rows[i - 1][j] + 1:
            i -= 1
            edits.append(Edit(i, truth[i], ""))
        else:
            j -= 1
            edits.append(Edit(i, "", text[j]))
    return edits[::-1]


def count(lines: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Counts the edits of lines (truth, text).

    Returns:
      For each pair of what should be there and what was read, the numbers of its lines and its places in them; the most
      frequent pairs first.
    """
    found = defaultdict(list)
    for number, (truth, text) in enumerate(lines):
        for edit in between(truth, text) if truth != text else ():
            found[edit.truth, edit.text].append((number, edit.place))
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
