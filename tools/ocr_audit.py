"""Finds wrong labels: ranks the lines of a set by how much more probable the text read from the image is than the label.

For example:

  ocr_audit --model=export --data=records --output=audit
  ocr_audit --model=run --data=records --folds=2 --output=audit
  make_tfrecords --images=lines --labels=lines/labels.txt --charset=alnum --corrections=audit/corrections.tsv --output=clean

A network that was trained on the labels has learned some of the wrong ones too. With --folds=2 the training in the workdir
--model is repeated on each half of the lines, and each half is read by the network that has not seen it; the records and
trainings of the halves stay in OUTPUT.folds, so that the same command resumes.

Writes audit.html, a page of the doubtful lines where each can be corrected, kept or dropped; audit.tsv, all lines by rank but
those whose labels the model can never read; and corrections.tsv, the text read for each label that is more likely wrong than
right. Review it before make_tfrecords takes it.
"""

import pathlib
from typing import Any

from absl import flags

from ocr import options
from tfrecords import files
from tfrecords.errors import InputError

from .cli import command, signals, tensorflow_import

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model", None, "Workdir of a training, or an export; pretrained: the shipped model.", required=True, flag_values=FLAGS
)
flags.DEFINE_string(
    "data",
    None,
    "Folder of records, of which the split train is used, or the only split there is; or DIR@split.",
    required=True,
    flag_values=FLAGS,
)
flags.DEFINE_string("output", None, "New folder for the page and the two tables.", required=True, flag_values=FLAGS)
flags.DEFINE_integer(
    "folds",
    0,
    "Train anew, as in the workdir --model, on all but one of so many parts of the lines, and read that part; 0: read all with "
    "--model as it is.",
    flag_values=FLAGS,
)
tensorflow_import.define_memory_growth(FLAGS, default=True)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Audits a set of lines."""
    options.check_range(values, folds=(0, 100))
    if values["folds"] == 1:
        raise InputError("--folds=1: must be 0, or 2 to 100")
    tensorflow_import.import_tensorflow(values["gpu_memory_growth"])
    from ocr.data import dataset, verify
    from ocr.evaluation import audit
    from ocr.training import cross_fit

    model, output = pathlib.Path(values["model"]), pathlib.Path(values["output"])
    files.check_free(output)
    split = dataset.find(values["data"], "train")
    with verify.report_damage(split):
        if values["folds"]:
            folds = output.with_name(f"{output.name}.folds")
            with signals.stop_on_signal() as stop:
                lines = cross_fit.read(model, split, values["folds"], folds, stop)
            if stop():
                return {"interrupted": True}
        else:
            lines = audit.read(audit.open_model(model), split)
        with files.atomic_directory(output) as folder:
            return audit.write(folder, f"{values['data']}, read by {model}", lines, split)


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
