"""Times our way against the stock way, in turn in one process, and prints ratios.

For example:

  ocr_bench ctc decode
  ocr_bench input convert
  ocr_bench all

The benches: ctc, the loss with its gradient; decode; input, from records to batches; convert; train, whole steps; or all.
Each takes one to five minutes on two cores, on data that it makes itself. A ratio of 3 means that the other way takes three
times our time.
"""

from typing import Any

from absl import flags

from tfrecords.errors import InputError
from tools import command

FLAGS = flags.FlagValues()


def main(_: dict[str, Any], names: list[str]) -> dict:
    command.import_tensorflow()
    from ocr import bench

    if not names or (unknown := set(names) - {*bench.BENCHES, "all"}):
        given = f"{' '.join(sorted(unknown))}: no such bench; " if names else ""
        raise InputError(f"{given}name one of {', '.join(bench.BENCHES)}, all")
    results = {}
    for name in bench.BENCHES if "all" in names else names:
        results[name] = bench.BENCHES[name]()
        for other, row in results[name].items():
            print(f"{other:34} {row['theirs_ms']:10.1f} ms, ours {row['ours_ms']:8.1f} ms: "
                  f"ratio {row['ratio']} ({row['lowest']} to {row['highest']})", flush=True)  # fmt: skip
    return results


def run() -> None:
    command.run(main, FLAGS, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    run()
