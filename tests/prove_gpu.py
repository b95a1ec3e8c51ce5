"""Proves on a machine with CUDA what cannot be proved without a GPU: what `make gpu-proof` runs, in at most eight minutes.

It trains in mixed precision, on one GPU and on all of them; checks that no op of the CTC loss and its gradient runs on the
host; and prints the lines a second of training steps, against Keras's `fit` with TensorFlow's CTC loss.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

from tools.cli import tensorflow_import

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES, STEPS, BATCH = {"train": 4000, "eval": 200}, 400, 32
MAX_CER = 0.5  # of a network that has learned to read; it is 1 before
END = time.monotonic() + 8 * 60


def main() -> None:
    tensorflow_import.import_tensorflow(gpu_memory_growth=True)
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    if not gpus:
        sys.exit("no GPU that TensorFlow can use: needs an NVIDIA GPU, its driver, and pip install 'tensorflow[and-cuda]'")
    print(f"TensorFlow {tf.__version__}, {gpus} GPUs")
    with tempfile.TemporaryDirectory() as folder:
        render(pathlib.Path(folder))
        for precision in ("mixed_float16", "mixed_bfloat16"):
            train(pathlib.Path(folder), precision, "--strategy=one")
        train(pathlib.Path(folder), "mixed_float16", "--strategy=mirrored", f"--replicas={gpus}")
    speed()
    # Last, since this process takes GPU memory.
    check_placement("GPU:0")
    print("all proved")


def render(folder: pathlib.Path) -> None:
    """Draws lines of digits into `folder/records`."""
    for seed, (split, count) in enumerate(LINES.items()):
        drawing = ("--tfrecords", "--charset=digits", "--width=112", "--min_chars=2", "--max_chars=6", f"--seed={seed}")
        run("render_lines", f"--output={folder / 'records'}", f"--split={split}", f"--count={count}", *drawing)


def train(folder: pathlib.Path, precision: str, *devices: str) -> None:
    """Trains until a network reads digits."""
    records, workdir = folder / "records", folder / "-".join((precision, *devices))
    data = (f"--train_data={records}", f"--eval_data={records}", f"--workdir={workdir}")
    sizes = (f"--steps={STEPS}", f"--batch_size={BATCH}", f"--eval_every={STEPS}")
    result = json.loads(run("ocr_train", *data, *sizes, f"--precision={precision}", *devices).splitlines()[-1])
    what = f"{precision} {' '.join(devices)}: CER {result['cer']:.1%} after {result['steps']} steps, {result['seconds']} s"
    assert result["cer"] < MAX_CER, f"{what}: it has not learned to read"
    print(what, flush=True)


def speed() -> None:
    """Times training steps in a process of its own."""
    result = json.loads(run("ocr_bench", "train", "--settings=ours").splitlines()[-1])
    for other, row in result["settings"]["ours"]["train"].items():
        ours, theirs = row["ours_lines_per_second"], row["theirs_lines_per_second"]
        print(f"training steps: {ours} lines a second; {other}: {theirs}", flush=True)


def check_placement(device: str) -> None:
    """Checks that no op of the loss and its gradient needs, or was given, another device."""
    import gpu_placement  # imports TensorFlow

    from ocr import ctc

    function = gpu_placement.trace(ctc.loss)
    without_kernel, elsewhere = gpu_placement.without_gpu_kernel(function), gpu_placement.off_device(function, device)
    assert not without_kernel, f"CTC: no kernel for GPUs: {', '.join(sorted(without_kernel))}"
    assert not elsewhere, f"CTC: not on {device}: {', '.join(sorted(elsewhere))}"
    print(f"CTC: every op of the loss and its gradient was on {device}")


def run(name: str, *flags: str) -> str:
    """Runs a command; returns what it printed."""
    line = [sys.executable, "-m", f"tools.{name}", *flags]
    left_s = END - time.monotonic()
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=left_s)
    assert done.returncode == 0, f"{' '.join(line)}: {done.stderr}"
    return done.stdout


if __name__ == "__main__":
    main()
