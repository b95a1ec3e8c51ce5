"""Draws lines of text, to train on and to test with: as image files with their labels, or straight as records.

A line is a function of (seed, number) alone, so that what is drawn is the same for any number of workers.
"""

import contextlib
import dataclasses
import io
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ocr import charset as charsets
from ocr import parallel, progress
from ocr.config import CHARSET_HELP
from ocr.images import header
from ocr.options import check_choice, check_given, check_names, check_range, option, required
from ocr.synthesis import drawing, fonts
from ocr.synthesis.drawing import Line
from ocr.synthesis.texts import Texts
from tfrecords import files, schema
from tfrecords.errors import InputError

_PIXELS_PER_FRAME = 4  # every record fits a network with frames so wide, as those that `make_tfrecords` packs
_TRIES = 100  # lines drawn until one does
_CHUNK = 100  # lines a worker draws at a time
_SHOWN = 60  # lines of a contact sheet
_SPACE, _TABLE = 6, "#50608a"  # between its pictures in pixels, and behind them


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """What to draw. The flags of `render_lines` have the names of these fields.

    Raises:
      InputError: a value is not allowed.
    """

    output: str = required("New folder for the images and labels.txt (name<TAB>text); with --tfrecords a folder of records.")
    count: int = option(0, "Number of lines.")
    charset: str = option("alnum", CHARSET_HELP)
    corpus: tuple[str, ...] = option(
        (),
        "UTF-8 text files to sample texts from, separated by commas, each optionally followed by :WEIGHT. Without any source "
        "of texts, characters are drawn at random.",
    )
    words: tuple[str, ...] = option(
        (), "UTF-8 files with one word on each line, likewise; words are concatenated to the length of a line."
    )
    numbers: float = option(
        0.0, "Weight of numbers, dates, amounts and codes, relative to files, whose weight is 1 by default."
    )
    random: float = option(0.0, "Weight of random characters of the charset, likewise; they cover every class.")
    latin: float = option(0.0, "Probability, 0 to 1, that ASCII characters have a different font than the rest of the line.")
    whole_lines: bool = option(
        False, "Draw each line of the corpus once, entire and in order, instead of --count samples of it."
    )
    fonts: tuple[str, ...] = option(
        (),
        "TrueType and OpenType fonts, as glob patterns separated by commas, each optionally followed by #INDEX, to select a "
        "font of a collection, and :WEIGHT. Without any, Pillow's built-in font. A line is drawn with a font that has all of "
        "its characters.",
    )
    height: int = option(32, "Height of the images in pixels.")
    width: int = option(280, "Width of the images in pixels; 0 for the natural width of the text.")
    min_chars: int = option(5, "Minimum length of a line in characters.")
    max_chars: int = option(10, "Maximum length of a line in characters.")
    degrade: str = option(
        "clean",
        "clean; screen: other grey levels, underlines; scan: a slight slope, blur, noise and JPEG artefacts; hard: like poor "
        "photographs.",
    )
    tfrecords: bool = option(
        False, "Write records instead of files, with the position of each character and the name of the font."
    )
    split: str = option("train", "With --tfrecords: name of the split.")
    contact_sheet: str = option("", "PNG file to write with a preview of the first lines.")
    seed: int = option(0, "Random seed; the same seed gives the same files.")
    workers: int = option(0, "Number of processes; 0 for one per core.")

    def __post_init__(self) -> None:
        fields = dataclasses.asdict(self)
        check_given(output=self.output)
        check_names("lines", self.split)
        check_range(fields, height=(8, 1000), width=(0, 100_000), min_chars=(1, 1000))
        check_range(fields, max_chars=(self.min_chars, 1000), seed=(0, 2**63 - 1), workers=(0, 1000))
        check_range(fields, numbers=(0, 1e6), random=(0, 1e6), latin=(0, 1))
        check_choice(fields, degrade=drawing.DEGRADATIONS)
        if not self.whole_lines:
            check_given(count=self.count)
            check_range(fields, count=(1, 10**9))
        elif self.count or self.words or self.numbers or self.random or not self.corpus:
            raise InputError("--whole_lines: needs --corpus, and excludes --count, --words, --numbers and --random")


class Drawn(NamedTuple):
    """A line, drawn and stored.

    Attributes:
      name: of its file.
      text: of it.
      width: of the image 32 pixels high.
      content: the image file, or the record.
    """

    name: str
    text: str
    width: int
    content: bytes


class _Pen:
    """Draws the lines that a configuration asks for."""

    def __init__(self, config: RenderConfig):
        self._config = config
        self._charset = charsets.charset_by_name(config.charset)
        sources = (config.corpus, config.words, config.numbers, config.random, config.latin)
        self.texts = Texts(self._charset, fonts.open_fonts(config.fonts), *sources, config.min_chars, config.max_chars)
        self.lines = self.texts.lines if config.whole_lines else ()

    @property
    def count(self) -> int:
        return len(self.lines) if self._config.whole_lines else self._config.count

    def line(self, number: int) -> tuple[str, fonts.Font | fonts.Mixed, Line]:
        """Draws a line by its number."""
        config = self._config
        rng = np.random.default_rng((config.seed, number))
        for _ in range(_TRIES):
            text, font = self.texts.with_font(self.lines[number], rng) if self.lines else self.texts.draw(rng)
            line = drawing.draw(text, font, config.height, config.width, drawing.STYLES[config.degrade], rng)
            scaled = header.scaled_width(line.image.height, line.image.width)
            if not config.tfrecords or (len(text) + charsets.repeats(text)) * _PIXELS_PER_FRAME <= scaled:
                return text, font, line
        raise InputError(
            f"--width={config.width}: too narrow for lines like {text!r} to be told apart; they are not for records"
        )

    def drawn(self, number: int) -> Drawn:
        text, font, line = self.line(number)
        encoded, name = line.encoded(), f"{number:06d}.{'png' if line.quality is None else 'jpg'}"
        width, height = line.image.size
        if self._config.tfrecords:
            record = schema.Record(encoded, line.kind, height, width, 1, text, name, font.name, tuple(line.middles))
            encoded = record.serialize()
        return Drawn(name, text, header.scaled_width(height, width), encoded)


_pen: _Pen | None = None  # of a worker


def _prepare(config: RenderConfig) -> None:
    global _pen
    _pen = _Pen(config)


def _render(numbers: range) -> list[Drawn]:
    assert _pen is not None
    return [_pen.drawn(number) for number in numbers]


def render(config: RenderConfig) -> dict:
    """Draws lines to image files and `labels.txt`, a line `name<TAB>text` each; or to records.

    Returns:
      `lines`, and `characters`, how many different ones are in them.

    Raises:
      InputError: something given cannot be used, or the output is there already.
    """
    _prepare(config)  # before anything is written: most mistakes show here
    assert _pen is not None
    if _pen.texts.undrawable:
        known = len(set(charsets.charset_by_name(config.charset).characters))
        print(
            f"{_pen.texts.undrawable} of the {known} characters of the charset are in no font, and not drawn", file=sys.stderr
        )
    count = _pen.count
    if config.contact_sheet:
        shown = [_pen.line(number)[2].image for number in range(min(count, _SHOWN))]
        files.write_bytes(pathlib.Path(config.contact_sheet), contact_sheet(shown))
    chunks = (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
    processes = 1 if count <= _CHUNK else config.workers
    characters: set[str] = set()

    def counted() -> Iterator[Drawn]:
        with (
            contextlib.closing(parallel.in_order(_render, chunks, processes, _prepare, config)) as drawn,
            progress.Progress("rendering", count, "lines") as bar,
        ):
            for done, rows in enumerate(drawn):
                for row in rows:
                    characters.update(row.text)
                    yield row
                bar.update(min((done + 1) * _CHUNK, count))

    (_to_records if config.tfrecords else _to_files)(config, counted())
    return {"lines": count, "characters": len(characters)}


def _to_files(config: RenderConfig, drawn: Iterable[Drawn]) -> None:
    with (
        files.atomic_directory(pathlib.Path(config.output)) as folder,
        open(folder / "labels.txt", "w", encoding="utf-8", newline="\n") as labels,
    ):
        for row in drawn:
            (folder / row.name).write_bytes(row.content)
            labels.write(f"{row.name}\t{row.text}\n")


def _to_records(config: RenderConfig, drawn: Iterable[Drawn]) -> None:
    from tfrecords.writer import SplitWriter  # TensorFlow takes seconds to load, in each worker too

    charset = charsets.charset_by_name(config.charset)
    with SplitWriter(pathlib.Path(config.output), "lines", config.split, charset.file_text()) as writer:
        for number, row in enumerate(drawn):
            writer.add(row.content, number, row.text, row.width)
        writer.finish(charset=charset.fingerprint, image_format="keep", pixels_per_frame=_PIXELS_PER_FRAME)


def contact_sheet(images: Sequence[Image.Image]) -> bytes:
    """Puts pictures of lines together on one sheet, in two columns; returns a PNG file."""
    half = -(-len(images) // 2)
    columns = [images[:half], images[half:]]
    widths = [max((image.width for image in column), default=0) for column in columns]
    heights = [sum(image.height + _SPACE for image in column) for column in columns]
    sheet = Image.new("RGB", (sum(widths) + 3 * _SPACE, max(heights) + _SPACE), _TABLE)
    left = _SPACE
    for column, width in zip(columns, widths, strict=True):
        top = _SPACE
        for image in column:
            sheet.paste(image, (left, top))
            top += image.height + _SPACE
        left += width + _SPACE
    picture = io.BytesIO()
    sheet.save(picture, "PNG")
    return picture.getvalue()
