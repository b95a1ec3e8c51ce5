"""Averages the weights of trainings, which reads better than each of them: see retrain.sh.

usage: average_weights.py TRAINING... OUTPUT RECORDS

The trainings are workdirs, or exports but for the last one; they have the same network and alphabet, and one started from
another. OUTPUT is a new workdir with the average of their best weights, to be exported or started from; its figures are those
of RECORDS.
"""

import pathlib
import shutil
import sys

from ocr.data import dataset
from ocr.evaluation import evaluate
from ocr.saving import warm_start
from ocr.saving.workdir import Workdir


def main(trainings: list[str], output: str, records: str) -> None:
    """Writes the average."""
    model, charset = warm_start.load(trainings[0])
    for count, path in enumerate(trainings[1:], 2):
        warm_start.average(model, charset, warm_start.load(path), 1 / count)
    figures = evaluate.evaluate_network(model, charset, dataset.find(records, "eval"))[1]
    target = pathlib.Path(output)
    (target / "best").mkdir(parents=True)
    for name in ("config.json", "charset.txt"):
        shutil.copy(pathlib.Path(trainings[-1], name), target)
    Workdir(target).keep_best(model, 1, {name: figures[name] for name in ("cer", "line_accuracy", "eval_loss")})
    print(figures)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(sys.argv[1:-2], *sys.argv[-2:])
