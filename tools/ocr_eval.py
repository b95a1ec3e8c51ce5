"""Evaluates a trained or exported model on a folder of records, counting every line once.

For example:

  ocr_eval --model=run --data=records
  ocr_eval --model=export --data=records@eval --report=report
"""

import pathlib
from typing import Any

from absl import flags

from .cli import command, tensorflow_import

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "model", None, "Workdir of a training, or an export; pretrained: the shipped model.", required=True, flag_values=FLAGS
)
flags.DEFINE_string(
    "data",
    None,
    "Folder of records, of which the split eval is used, or the only split there is; or DIR@split.",
    required=True,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "report",
    "",
    "New folder for report.html, a page with the errors and their images, and report.json.",
    flag_values=FLAGS,
)
tensorflow_import.define_memory_growth(FLAGS, default=True)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Evaluates a model."""
    tensorflow_import.import_tensorflow(values["gpu_memory_growth"])
    from ocr.evaluation import evaluate

    return evaluate.evaluate(pathlib.Path(values["model"]), values["data"], report_to=values["report"])


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
