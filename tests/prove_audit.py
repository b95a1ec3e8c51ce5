"""Proves what cleaning labels is worth: what `make audit-proof` runs, in about four minutes of a core.

It replaces one or two digits in 3% of the labels of drawn lines; audits them by cross-fitting, with networks that have not seen
the labels; and corrects them as the audit proposes. Networks are trained on the right labels, on the wrong ones and on the
corrected ones, and their error rates are compared: on other lines like these, and on harder ones, where there are enough errors
to tell networks apart. The last line on stdout is a JSON object.
"""

import collections
import json
import pathlib
import sys
import tempfile

from tools.cli import tensorflow_import

LINES, HELD_OUT, STEPS, SHARE = 2000, 2000, 400, 0.03
PRECISION = 0.8  # down to which the ranking is followed
STYLES = ("scan", "hard")  # of the lines to train on, and of the harder ones
DRAWING = {"charset": "digits", "width": 112, "min_chars": 2, "max_chars": 6, "workers": 1}


def main() -> None:
    seed = int(sys.argv[1]) if sys.argv[1:] else 1
    tensorflow_import.import_tensorflow()
    from ocr.data import dataset
    from ocr.evaluation import audit
    from ocr.training import cross_fit

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        draw(folder / "train", LINES, seed, STYLES[0])
        for number, style in enumerate(STYLES, 1):
            draw(folder / style, HELD_OUT, 1000 * number + seed, style)
            pack(folder / style, folder / style / "labels.txt", folder / "held_out", style)
        right = labels_in(folder / "train" / "labels.txt")
        wrong = with_errors(right, seed)
        figures = {"right": train(folder, "right", right), "wrong": train(folder, "wrong", right | wrong)}
        split = dataset.find(str(folder / "wrong.records"), "train")
        lines = cross_fit.read(folder / "wrong", split, 2, folder / "folds", lambda: False)
        (folder / "audit").mkdir()
        summary = audit.write(folder / "audit", "", lines, split)
        ranked = [row.split("\t")[0] for row in (folder / "audit" / "audit.tsv").read_text("utf-8").splitlines()[1:]]
        corrections = labels_in(folder / "audit" / "corrections.tsv")
        corrected = right | wrong | corrections
        figures["corrected"] = train(folder, "corrected", right | wrong, str(folder / "audit" / "corrections.tsv"))
    times = collections.Counter(right.values())
    unseen = [name for name in ranked if times[right[name]] == 1]  # no network has been trained on their texts
    found, found_unseen = recall(ranked, {*wrong}), recall(unseen, {*wrong} & {*unseen})
    left = sum(corrected[name] != text for name, text in right.items())
    print(f"{len(wrong)} of {LINES} labels are wrong, an estimated {summary['wrong_share']:.1%}")
    print(f"of them the audit finds {found:.1%} at a precision of {PRECISION:.0%}")
    print(f"of the {len({*wrong} & {*unseen})} in the {len(unseen)} lines with a text that no other has: {found_unseen:.1%}")
    print(f"{len(corrections)} corrections leave {left} labels wrong")
    ratios = {}
    for style in STYLES:
        for name, row in figures.items():
            cer, (low, high) = row[style]
            print(f"CER after training on {name} labels, {style} lines: {cer:.2%} ({low:.2%} to {high:.2%})")
        ratios[style] = round(figures["corrected"][style][0] / figures["right"][style][0], 3)
        print(f"corrected over right: {ratios[style]}")
    print(json.dumps({"recall": found, "recall_unseen": found_unseen, "left": left, "ratios": ratios, "cer": figures}))


def draw(folder: pathlib.Path, count: int, seed: int, style: str) -> None:
    from ocr.synthesis import render

    render.render(render.RenderConfig(output=str(folder), count=count, seed=seed, degrade=style, **DRAWING))


def pack(images: pathlib.Path, labels: pathlib.Path, records: pathlib.Path, split: str, corrections: str = "") -> None:
    from ocr.config import ConvertConfig
    from ocr.data import convert

    paths = {"images": str(images), "labels": str(labels), "output": str(records), "corrections": corrections}
    convert.convert(ConvertConfig(**paths, split=split, charset="digits", check="header", workers=1))


def labels_in(path: pathlib.Path) -> dict[str, str]:
    return dict(row.split("\t") for row in path.read_text("utf-8").splitlines())


def with_errors(labels: dict[str, str], seed: int) -> dict[str, str]:
    """Replaces one or two digits in each of some labels; returns these."""
    import numpy as np

    rng = np.random.default_rng(seed)
    wrong = {}
    for name in rng.choice([*labels], round(SHARE * len(labels)), replace=False):
        digits = [*labels[name]]
        for place in rng.choice(len(digits), rng.integers(1, 3), replace=False):
            digits[place] = str((int(digits[place]) + rng.integers(1, 10)) % 10)
        wrong[str(name)] = "".join(digits)
    return wrong


def train(
    folder: pathlib.Path, name: str, labels: dict[str, str], corrections: str = ""
) -> dict[str, tuple[float, tuple[float, float]]]:
    """Trains on labels in the workdir `folder/name`; returns the error rate of each style, with its 95% interval."""
    from ocr.config import TrainConfig
    from ocr.training import train

    listed, records = folder / f"{name}.txt", folder / f"{name}.records"
    listed.write_text("".join(f"{file}\t{text}\n" for file, text in labels.items()), "utf-8")
    pack(folder / "train", listed, records, "train", corrections)
    data = {"train_data": str(records), "eval_data": f"{folder / 'held_out'}@{STYLES[0]}", "workdir": str(folder / name)}
    schedule = {"steps": STEPS, "schedule": "cosine", "batch_size": 16, "eval_every": STEPS, "checkpoint_every": STEPS}
    train.train(TrainConfig(**data, **schedule, override=True))
    return error_rates(folder / name, folder / "held_out")


def error_rates(workdir: pathlib.Path, records: pathlib.Path) -> dict[str, tuple[float, tuple[float, float]]]:
    from ocr.evaluation import evaluate

    reports = {style: evaluate.evaluate(workdir, f"{records}@{style}") for style in STYLES}
    return {style: (report["cer"], tuple(report["cer_interval"])) for style, report in reports.items()}


def recall(ranked: list[str], wrong: set[str]) -> float:
    """Returns the share of the wrong labels among the longest first part of the ranking that is wrong to `PRECISION`."""
    best = hits = 0
    for number, name in enumerate(ranked, 1):
        hits += name in wrong
        if hits >= PRECISION * number:
            best = hits
    return round(best / len(wrong), 4)


if __name__ == "__main__":
    main()
