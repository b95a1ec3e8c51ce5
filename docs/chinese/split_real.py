"""Splits real lines by kind and repository into labels files for make_tfrecords: see retrain.sh.

usage: split_real.py LINES CHARSET FOLDER

LINES is a folder of images with labels.tsv (`file<TAB>text`) and meta.tsv (file, repository, licence, source, kind, ...), one
row a line, CHARSET the alphabet. Writes FOLDER/KIND-train.tsv and FOLDER/KIND-eval.tsv, with kinds `pdf`, `screen`, `scan` and
`photo`; a tenth of the repositories is for evaluation, whatever else changes.
"""

import collections
import csv
import hashlib
import pathlib
import re
import sys

from ocr import charset

EVAL_SHARE = 10  # one repository in so many
KINDS = {"pdf": "pdf", "screen": "screen", "scan": "scan"}  # all others are photographs
# Where hanzi touch Latin letters, a transcription by a reader does not tell whether there is a space.
UNSURE_SPACE = re.compile(r"[\u3400-\u9fff] ?[A-Za-z]|[A-Za-z] ?[\u3400-\u9fff]")


def held_out_repositories(meta: list[dict[str, str]]) -> set[str]:
    """Returns a tenth of the repositories of each kind, at least one: those with the smallest hashes."""
    kinds: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for row in meta:
        kinds[row["repository"]][KINDS.get(row["kind"], "photo")] += 1
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for repository, counts in kinds.items():
        groups[counts.most_common(1)[0][0]].append(repository)
    held_out: set[str] = set()
    for repositories in groups.values():
        repositories.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        held_out.update(repositories[: -(-len(repositories) // EVAL_SHARE)])
    return held_out


def main(lines: str, charset_file: str, folder: str) -> None:
    """Writes the labels files."""
    source, out = pathlib.Path(lines), pathlib.Path(folder)
    known = charset.charset_by_name(charset_file)
    texts = dict(row.split("\t", 1) for row in (source / "labels.tsv").read_text("utf-8").splitlines())
    with open(source / "meta.tsv", encoding="utf-8", newline="") as file:
        meta = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    held_out = held_out_repositories(meta)
    rows: dict[str, list[str]] = collections.defaultdict(list)
    for row in meta:
        kind, text, split = KINDS.get(row["kind"], "photo"), texts[row["file"]], "train"
        if row["repository"] in held_out:
            split = "eval"
        elif kind != "pdf" and UNSURE_SPACE.search(text):
            continue
        if not known.missing(text):
            rows[f"{kind}-{split}"].append(f"{row['file']}\t{text}\n")
    out.mkdir(parents=True, exist_ok=True)
    for name, labels in rows.items():
        (out / f"{name}.tsv").write_text("".join(labels), "utf-8")
        print(name, len(labels))


if __name__ == "__main__":
    main(*sys.argv[1:])
