"""Proves the wheel, which is what users install: built, put into an empty environment, and used from an empty folder.

It reads an image with the model that ships in it; renders, packs and trains a few steps; and serves its page. Package data that
the wheel lacks fails here.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import venv
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ("ocr", "tfrecords", "tools", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
LINE = ROOT / "tests" / "data" / "欢迎来到北京Hello.jpg"  # named by its text
TRAINING = {"render_lines": {"train": 256, "eval": 32}, "steps": 20}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        bin_ = install(here)
        empty = here / "empty"
        empty.mkdir()
        read(bin_, empty)
        train(bin_, empty)
        serve(bin_, empty)


def install(here: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the commands of an empty environment with the wheel."""
    sources = here / "sources"  # copied, since another process may be building in the folder itself
    sources.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, sources / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={here}", str(sources))
    (wheel,) = here.glob("*.whl")
    installed = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in installed if not name.endswith(".dist-info")} == {"ocr", "ocr_tools", "tfrecords"}, installed
    venv.create(here / "env", with_pip=True)
    bin_ = here / "env" / "bin"
    run(str(bin_ / "pip"), "install", "--quiet", f"--constraint={ROOT / 'constraints.txt'}", f"{wheel}[serve]")
    print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, installed")
    return bin_


def read(bin_: pathlib.Path, folder: pathlib.Path) -> None:
    _, text, confidence = run(str(bin_ / "ocr_predict"), str(LINE), cwd=folder).strip().split("\t")
    assert text == LINE.stem, f"read {text}, not {LINE.stem}"
    print(f"read {text} with confidence {confidence}")


def train(bin_: pathlib.Path, folder: pathlib.Path) -> None:
    for seed, (split, count) in enumerate(TRAINING["render_lines"].items()):
        drawing = ("--charset=digits", "--width=112", "--min_chars=2", "--max_chars=6")
        run(str(bin_ / "render_lines"), f"--output=lines/{split}", f"--count={count}", f"--seed={seed}", *drawing, cwd=folder)
        packing = (f"--images=lines/{split}", f"--labels=lines/{split}/labels.txt", "--charset=digits", f"--split={split}")
        run(str(bin_ / "make_tfrecords"), "--output=records", *packing, cwd=folder)
    data = ("--train_data=records", "--eval_data=records", "--workdir=run", f"--steps={TRAINING['steps']}", "--batch_size=16")
    result = json.loads(run(str(bin_ / "ocr_train"), *data, cwd=folder).splitlines()[-1])
    assert result["steps"] == TRAINING["steps"], result
    print(f"trained {result['steps']} steps in {result['seconds']} s")


def serve(bin_: pathlib.Path, folder: pathlib.Path) -> None:
    line = [str(bin_ / "ocr_serve"), "--export_dir=pretrained", "--grpc_port=0", "--rest_port=0"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stderr is not None
        try:
            address = next(word for text in process.stderr for word in text.split() if word.startswith("http"))
            for name in ("", "page.css", "page.js"):
                with urllib.request.urlopen(address + name) as answer:
                    assert answer.read(), f"{address}{name}: empty"
            print(f"served the page at {address}")
        finally:
            process.terminate()
            process.stderr.read()
    assert process.returncode == 143, process.returncode


def run(*line: str, cwd: pathlib.Path | None = None) -> str:
    """Runs a command away from the sources; returns what it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(line, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(line)}: {done.stderr}"
    return done.stdout


if __name__ == "__main__":
    main()
