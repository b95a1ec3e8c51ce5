"""Runs the whole pipeline once, from rendering lines to reading them, in the folder `demo`: what `make demo` runs."""

import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

FOLDER = pathlib.Path("demo")
TRAINED, HELD_OUT, SHOWN = 6000, 500, 10  # lines
# Lines of natural width are less than half as wide as those of 280 pixels, and take less than half the time.
DRAWING = ("--charset=alnum", "--width=0")
# Small batches get past the slow start of a CTC training with the fewest lines.
RECIPE = ("--steps=1000", "--batch_size=16", "--eval_every=250")


def stage(title: str, *line: str) -> str:
    """Runs a command line, showing its output; returns what it printed on stdout."""
    print(f"\n== {title}\n$ {shlex.join(line)}", flush=True)
    module = [sys.executable, "-m", f"{__package__}.{line[0]}", *line[1:]]
    with subprocess.Popen(module, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        printed = []
        for text in process.stdout:
            print(text, end="", flush=True)
            printed.append(text)
    if process.returncode:
        sys.exit(process.returncode)
    return "".join(printed)


def main() -> None:
    """Runs all stages; the last line on stdout is a JSON object."""
    if sys.argv[1:]:
        sys.exit((__doc__ or "") + "It takes no arguments, and starts from scratch each time.")
    begun = time.monotonic()
    for name in ("lines", "records", "run", "export"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    splits = (("train", TRAINED, 1), ("eval", HELD_OUT, 2))
    for split, count, seed in splits:
        target = (f"--output=demo/lines/{split}", f"--count={count}", f"--seed={seed}")
        stage(f"Render {count} lines of text", "render_lines", *target, *DRAWING)
    for split, _, _ in splits:
        source = (f"--images=demo/lines/{split}", f"--labels=demo/lines/{split}/labels.txt", "--charset=alnum")
        stage(f"Pack them into records: {split}", "make_tfrecords", *source, "--output=demo/records", f"--split={split}")
    data = ("--train_data=demo/records", "--eval_data=demo/records")
    stage("Train", "ocr_train", *data, "--workdir=demo/run", *RECIPE)
    stage("Export", "ocr_export", "--workdir=demo/run", "--export_dir=demo/export")
    evaluation = stage("Evaluate the export on lines it never saw", "ocr_eval", "--model=demo/export", "--data=demo/records")
    files = [str(FOLDER / "lines" / "eval" / f"{number:06d}.png") for number in range(SHOWN)]
    stage("Read image files", "ocr_predict", "--saved_model=demo/export", "--picture=demo/read.png", *files)
    figures = json.loads(evaluation.splitlines()[-1])
    summary = {name: figures[name] for name in ("cer", "line_accuracy")}
    print(f"\n{json.dumps({**summary, 'seconds': round(time.monotonic() - begun, 1)})}")


if __name__ == "__main__":
    main()
