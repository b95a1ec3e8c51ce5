"""Draws lines of text as image files with a labels file, to train on or to test with.

For example:

  render_lines --output=lines --count=2000 --charset=alnum
  render_lines --output=lines --count=5000 --charset=gb2312 --corpus=text.txt --fonts='/usr/share/fonts/**/*.ttc'
"""

from typing import Any

from absl import flags

from ocr import render
from tools import command

FLAGS = flags.FlagValues()
command.define_fields(
    FLAGS,
    render.RenderConfig,
    {
        "output": "New folder for the images and labels.txt (name<TAB>text).",
        "count": "How many lines.",
        "charset": "Alphabet: digits, alnum, ascii, gb2312, chinese_ocr:FILE, or a file of one character a line.",
        "corpus": "UTF-8 text files to take the texts from, separated by commas; random characters where none is given.",
        "fonts": "TrueType and OpenType fonts, as patterns separated by commas; Pillow's own font where none is given. "
        "A font is used for a line only if it has every character of it.",
        "height": "Height of the images in pixels.",
        "width": "Width of the images in pixels; 0 for as wide as the text is.",
        "min_chars": "Fewest characters of a line.",
        "max_chars": "Most characters of a line.",
        "degrade": "clean, or scan: a slight slope, blur, noise and JPEG.",
        "seed": "Decides all that is random: the same seed draws the same files.",
        "workers": "Processes; 0 for one a core.",
    },
)


def main(values: dict[str, Any], _: list[str]) -> dict:
    return render.render(render.RenderConfig(**command.fields(values, render.RenderConfig)))


def run() -> None:
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
