"""Builds a language model from text: a character n-gram, for ocr_export --lm.

For example:

  ocr_lm --corpus=news.txt,poems.txt --output=zh.lm
  ocr_export --workdir=run --export_dir=export --calibrate=records --decoder=beam --lm=zh.lm

The text should be like that of the lines to read, but not that of the lines to calibrate or to measure with. The file has at
most 4 MB; of a larger corpus the n-grams that say most about it are kept. A character of text takes about 100 bytes of memory.
"""

import pathlib
from typing import Any

from absl import flags

from ocr import options
from ocr.model import ngram, ngram_estimate
from tfrecords import files
from tfrecords.errors import InputError

from .cli import command

FLAGS = flags.FlagValues()
flags.DEFINE_string("corpus", "", "UTF-8 text files, separated by commas.", flag_values=FLAGS)
flags.DEFINE_string("output", "", "File to write.", flag_values=FLAGS)
flags.DEFINE_integer("order", 3, "Length of the longest n-grams, 2 to 5.", flag_values=FLAGS)
_MAX_BYTES = 2**40  # of a text file


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Builds a language model."""
    options.check_given(corpus=values["corpus"], output=values["output"])
    options.check_range(values, order=ngram.ORDERS)
    output = pathlib.Path(values["output"])
    if output.is_dir():
        raise InputError(f"--output={output}: a folder, must be a file")
    lines = [line for path in options.join_paths(values["corpus"].split(",")) for line in _lines(path)]
    model = ngram_estimate.estimate(lines, values["order"])
    files.make_folder(output.parent)
    model.save(output)
    sizes = {"characters": len(model.characters), "ngrams": len(model.keys), "bytes": output.stat().st_size}
    return {"output": str(output), "order": model.order, "lines": len(lines), **sizes}


def _lines(path: str) -> list[str]:
    """Reads the lines of a text file."""
    try:
        return files.read_at_most(path, _MAX_BYTES).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"--corpus={path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--corpus={path}: not UTF-8 at byte {error.start}") from error


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
