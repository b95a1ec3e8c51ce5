"""Draws lines of text as image files with a labels file, to train on or to test with.

For example:

  render_lines --output=lines --count=2000 --charset=alnum
  render_lines --output=lines --count=5000 --charset=gb2312 --corpus=text.txt --fonts='/usr/share/fonts/**/*.ttc'
  render_lines --output=records --tfrecords --count=5000 --charset=gb2312 --corpus=news.txt:5,poems.txt:1 --random=2 --width=0
"""

from typing import Any

from absl import flags

from ocr.synthesis import render
from tools import command

FLAGS = flags.FlagValues()
command.define_fields(
    FLAGS,
    render.RenderConfig,
    {
        "output": "New folder for the images and labels.txt (name<TAB>text); with --tfrecords a folder of records.",
        "count": "How many lines.",
        "charset": "Alphabet: digits, alnum, ascii, gb2312, pretrained, chinese_ocr:FILE, or a file of one character a line.",
        "corpus": "UTF-8 text files to take the texts from, separated by commas, each perhaps with :WEIGHT behind it; random "
        "characters where no text is given.",
        "words": "UTF-8 files of a word a line, likewise; words are set one behind the other.",
        "numbers": "How much of numbers, dates, amounts and codes to draw, beside files that weigh 1.",
        "random": "How much of random characters of the charset to draw, likewise; every class is seen.",
        "latin": "How often, 0 to 1, letters, digits and marks of ASCII are of another font than the rest of the line.",
        "whole_lines": "Draw each stretch of the corpus once, whole and in order, instead of --count pieces of it.",
        "fonts": "TrueType and OpenType fonts, as patterns separated by commas, each perhaps with #INDEX for another than the "
        "first font of a collection and :WEIGHT behind it; Pillow's own font where none is given. A font is used for a line "
        "only if it has every character of it.",
        "height": "Height of the images in pixels.",
        "width": "Width of the images in pixels; 0 for as wide as the text is.",
        "min_chars": "Fewest characters of a line.",
        "max_chars": "Most characters of a line.",
        "degrade": "clean; screen: other greys, underlines; scan: a slight slope, blur, noise and JPEG; hard: as bad as "
        "photographs are.",
        "tfrecords": "Write records instead of files, with each character's middle and the font's name.",
        "split": "Of the records.",
        "contact_sheet": "PNG file to show the first lines on.",
        "seed": "Decides all that is random: the same seed draws the same files.",
        "workers": "Processes; 0 for one a core.",
    },
)


def main(values: dict[str, Any], _: list[str]) -> dict:
    if values["tfrecords"]:
        command.import_tensorflow()
    return render.render(render.RenderConfig(**command.fields(values, render.RenderConfig)))


def run() -> None:
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
