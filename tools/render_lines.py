"""Renders synthetic lines of text as image files with a labels file, or as records.

For example:

  render_lines --output=lines --count=2000 --charset=alnum
  render_lines --output=lines --count=5000 --charset=gb2312 --corpus=text.txt --fonts='/usr/share/fonts/**/*.ttc'
  render_lines --output=records --tfrecords --count=5000 --charset=gb2312 --corpus=news.txt:5,poems.txt:1 --random=2 --width=0
"""

from typing import Any

from absl import flags

from ocr.synthesis import render

from .cli import command, command_flags, tensorflow_import

FLAGS = flags.FlagValues()
command_flags.define_fields(FLAGS, render.RenderConfig)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Renders lines."""
    if values["tfrecords"]:
        tensorflow_import.import_tensorflow()
    return render.render(render.RenderConfig(**command_flags.fields(values, render.RenderConfig)))


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
