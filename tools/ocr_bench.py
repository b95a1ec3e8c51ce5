"""Times our way against the stock way, in turn in one process, and prints ratios.

For example:

  ocr_bench ctc decode
  ocr_bench input convert
  ocr_bench all
  ocr_bench read --accuracy=records

The benches: ctc, the loss with its gradient; decode; input, from records to batches; convert; train, whole steps; read, lines
with the model that comes with the package; or all. Each takes one to five minutes on two cores, on data that it makes itself.
A ratio of 3 means that the other way takes three times our time.
"""

from typing import Any

from absl import flags

from tfrecords.errors import InputError
from tools import command

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "accuracy",
    "",
    "With read: folder of records to measure on how well our model reads, and RapidOCR and Tesseract if installed.",
    flag_values=FLAGS,
)
flags.DEFINE_string("model", "pretrained", "Of --accuracy: an export; pretrained: the one of the package.", flag_values=FLAGS)


def main(values: dict[str, Any], names: list[str]) -> dict:
    command.import_tensorflow()
    from tools.benchmarks import ctc, read

    if not names or (unknown := set(names) - {*ctc.BENCHES, "all"}):
        given = f"{' '.join(sorted(unknown))}: no such bench; " if names else ""
        raise InputError(f"{given}name one of {', '.join(ctc.BENCHES)}, all")
    if values["accuracy"]:
        if names != ["read"]:
            raise InputError("--accuracy: goes with read, and no other bench")
        compared = read.accuracy(values["accuracy"], values["model"])
        for name, row in compared.items():
            print(f"{name:12} CER {row['cer_nfkc']:7.2%} after NFKC, {row['line_accuracy']:6.1%} of {row['lines']} whole, "
                  f"{row['lines_per_second']:6.1f} lines a second")  # fmt: skip
        return {"read": compared}
    results = {}
    for name in ctc.BENCHES if "all" in names else names:
        results[name] = ctc.BENCHES[name]()
        for other, row in results[name].items():
            if "ratio" not in row:
                print(f"{other:34} ours {row['ours_ms']:8.2f} ms", flush=True)
                continue
            print(f"{other:34} {row['theirs_ms']:10.1f} ms, ours {row['ours_ms']:8.1f} ms: "
                  f"ratio {row['ratio']} ({row['lowest']} to {row['highest']})", flush=True)  # fmt: skip
    return results


def run() -> None:
    command.run(main, FLAGS, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    run()
