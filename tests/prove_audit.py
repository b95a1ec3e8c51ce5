"""Proves what cleaning labels is worth: what `make audit-proof` runs, in about four minutes of a core.

It replaces one or two digits in 3% of the labels of drawn lines; audits them by cross-fitting, with networks that have not seen
the labels; and corrects them as the audit proposes. Networks are trained on the right labels, on the wrong ones and on the
corrected ones, and their error rates on other lines are compared. The last line on stdout is a JSON object.
"""

import collections
import json
import pathlib
import sys
import tempfile

from tools.cli import tensorflow_import

LINES, HELD_OUT, STEPS, SHARE = 2000, 2000, 400, 0.03
PRECISION = 0.8  # down to which the ranking is followed
DRAWING = {"charset": "digits", "width": 112, "min_chars": 2, "max_chars": 6, "degrade": "scan", "workers": 1}


def main() -> None:
    seed = int(sys.argv[1]) if sys.argv[1:] else 1
    tensorflow_import.import_tensorflow()
    from ocr.data import dataset
    from ocr.evaluation import audit
    from ocr.synthesis import render
    from ocr.training import cross_fit

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for split, count, own_seed in (("train", LINES, seed), ("eval", HELD_OUT, 1000 + seed)):
            render.render(render.RenderConfig(output=str(folder / split), count=count, seed=own_seed, **DRAWING))
        pack(folder / "eval", folder / "eval" / "labels.txt", folder / "held_out", "eval")
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
    for name, (cer, (low, high)) in figures.items():
        print(f"CER after training on {name} labels: {cer:.2%} ({low:.2%} to {high:.2%})")
    ratio = round(figures["corrected"][0] / figures["right"][0], 3)
    print(f"corrected over right: {ratio}")
    print(json.dumps({"recall": found, "recall_unseen": found_unseen, "left": left, "ratio": ratio, "cer": figures}))


def pack(images: pathlib.Path, labels: pathlib.Path, records: pathlib.Path, split: str, corrections: str = "") -> None:
    from ocr.data import convert
    from ocr.data.convert_config import ConvertConfig

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


def train(folder: pathlib.Path, name: str, labels: dict[str, str], corrections: str = "") -> tuple[float, tuple[float, float]]:
    """Trains on labels in the workdir `folder/name`; returns the error rate on the other lines, with its 95% interval."""
    from ocr.config import TrainConfig
    from ocr.evaluation import evaluate
    from ocr.training import train

    listed, records = folder / f"{name}.txt", folder / f"{name}.records"
    listed.write_text("".join(f"{file}\t{text}\n" for file, text in labels.items()), "utf-8")
    pack(folder / "train", listed, records, "train", corrections)
    data = {"train_data": str(records), "eval_data": str(folder / "held_out"), "workdir": str(folder / name)}
    schedule = {"steps": STEPS, "schedule": "cosine", "batch_size": 16, "eval_every": STEPS, "checkpoint_every": STEPS}
    train.train(TrainConfig(**data, **schedule, override=True))
    report = evaluate.evaluate(folder / name, str(folder / "held_out"))
    return report["cer"], tuple(report["cer_interval"])


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
