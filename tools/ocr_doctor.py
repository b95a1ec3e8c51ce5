"""Diagnoses why a CTC loss does not decrease, from the data and, if given, a training.

For example:

  ocr_doctor --data=records
  ocr_doctor --data=records --workdir=run
  ocr_doctor --reproduce --output=puzzle

The exit status is 2 if there is a definite finding, one with which training must fail.
"""

import json
import sys
from typing import Any

from absl import flags

from tfrecords.errors import InputError

from .cli import command, signals, tensorflow_import

FLAGS = flags.FlagValues()
flags.DEFINE_string("data", "", "Folder of records, or DIR@split; its split train is examined too.", flag_values=FLAGS)
flags.DEFINE_string("workdir", "", "Workdir of a training on this data.", flag_values=FLAGS)
flags.DEFINE_string("model", "lite", "Network that the data is for, if --workdir is not given.", flag_values=FLAGS)
flags.DEFINE_bool(
    "reproduce",
    False,
    "Train the network of confusing-ctc in five ways, and show why one of them does not learn.",
    flag_values=FLAGS,
)
flags.DEFINE_string("output", "", "With --reproduce: new folder for the data, the loss curves and a plot.", flag_values=FLAGS)
flags.DEFINE_integer("steps", 300, "With --reproduce: steps of each training, with 4 lines each.", flag_values=FLAGS)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Diagnoses data and a training, or reproduces the puzzle."""
    if values["reproduce"]:
        if not values["output"]:
            raise InputError("--output: has to be given with --reproduce")
        tensorflow_import.import_tensorflow()
        from ocr.training import puzzle

        with signals.stop_on_signal() as stop:
            result = puzzle.reproduce(values["output"], values["steps"], stop)
        for name, row in result["ways"].items():
            print(f"{name:58} {row['settles_at']:6} nats  {', '.join(row['findings']) or 'no finding'}")
        print("", *puzzle.EXPLANATION, "", sep="\n")
        return {**result, "interrupted": True} if stop() else result
    if not values["data"]:
        raise InputError("--data: has to be given, or --reproduce")
    tensorflow_import.import_tensorflow()
    from ocr.doctor import diagnose

    report = diagnose.diagnose(values["data"], values["workdir"], values["model"])
    for finding in report["findings"]:
        print(f"{finding['code']}: {finding['sentence']} {finding['mend']}", file=sys.stderr)
    if any(finding["definite"] for finding in report["findings"]):
        print(json.dumps(report, ensure_ascii=False))
        sys.exit(2)
    return report


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
