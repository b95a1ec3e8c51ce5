"""Averages the weights of trainings, which reads better than each of them: see retrain.sh.

usage: average_weights.py TRAINING... OUTPUT RECORDS

The trainings are workdirs, or exports but for the last one; they have the same network and alphabet, and one started from
another. OUTPUT is a new workdir with the average of their best weights, to be exported or started from; its figures are those
of RECORDS.
"""

import pathlib
import shutil
import sys

import tensorflow as tf

from ocr.evaluation import evaluate
from ocr.saving import warm_start
from ocr.saving.workdir import Workdir


def main(trainings: list[str], output: str, records: str) -> None:
    """Writes the average."""
    models = [warm_start.load(path).model for path in trainings]
    for weight, *others in zip(*(model.weights for model in models), strict=True):
        if tf.as_dtype(weight.dtype).is_floating:
            weight.assign(tf.add_n([tf.convert_to_tensor(one) for one in (weight, *others)]) / len(models))
    target = pathlib.Path(output)
    (target / "best").mkdir(parents=True)
    for name in ("config.json", "charset.txt"):
        shutil.copy(pathlib.Path(trainings[-1], name), target)
    workdir = Workdir(target)
    workdir.keep_best(models[0], 1, {"cer": 1.0, "line_accuracy": 0.0})
    figures = evaluate.evaluate(target, records)
    workdir.keep_best(models[0], 1, {name: figures[name] for name in ("cer", "line_accuracy", "eval_loss")})
    print(figures)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(sys.argv[1:-2], *sys.argv[-2:])
