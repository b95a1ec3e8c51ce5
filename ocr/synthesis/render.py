"""Renders synthetic lines, as image files with a labels file, or directly as records.

A line depends on (seed, number) only, so the output is the same for any number of workers.
"""

import contextlib
import dataclasses
import io
import logging
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ocr import charset as charsets
from ocr import parallel, progress
from ocr.charset import CHARSET_HELP
from ocr.images import header
from ocr.options import check_choice, check_given, check_names, check_range, option, required
from ocr.synthesis import drawing, fonts
from ocr.synthesis.drawing import Line
from ocr.synthesis.styles import STYLES
from ocr.synthesis.texts import Texts
from tfrecords import files, schema
from tfrecords.errors import InputError

_LOG = logging.getLogger(__name__)
_PIXELS_PER_FRAME = 4  # the default of make_tfrecords: labels must fit into frames of this width
_TRIES = 100  # lines sampled until one does
_CHUNK = 100  # lines that a worker renders at a time
_SHOWN = 60  # lines of a contact sheet
_SPACE, _BACKGROUND = 6, "#50608a"  # between the images of a contact sheet, in pixels, and its colour


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
    random: float = option(0.0, "Weight of random characters of the charset, likewise; they cover every class that a font has.")
    latin: float = option(0.0, "Probability, 0 to 1, that ASCII characters have a different font than the rest of the line.")
    whole_lines: bool = option(
        False,
        "Draw each line of the corpus once, entire and in order, instead of --count samples. Lines are split at characters "
        "that are not in the charset.",
    )
    fonts: tuple[str, ...] = option(
        (),
        "TrueType and OpenType fonts, as glob patterns separated by commas, each optionally followed by #INDEX, to select a "
        "font of a collection, and :WEIGHT. Without any, Pillow's built-in font. A line is drawn with a font that has all of "
        "its characters. Scripts whose letters join, stack or run from right to left need Pillow with Raqm.",
    )
    height: int = option(32, "Height of the images in pixels.")
    width: int = option(280, "Width of the images in pixels; 0 for the natural width of the text.")
    min_chars: int = option(5, "Minimum length of a line in characters.")
    max_chars: int = option(10, "Maximum length of a line in characters.")
    degrade: str = option(
        "clean",
        "clean; screen: other grey levels, underlines; scan: a slight slope, blur, noise and JPEG artefacts; hard: like poor "
        "photographs; page: like crops of pages and screenshots of any resolution; photo: like crops of photographs; sign: "
        "like those of signs, posters and packaging.",
    )
    tfrecords: bool = option(
        False, "Write records instead of files, with the position of each character and the name of the font."
    )
    split: str = option("train", "With --tfrecords: name of the split.")
    contact_sheet: str = option("", "PNG file to write with a preview of the first lines.")
    seed: int = option(0, "Random seed; the same seed gives the same files.")
    workers: int = option(0, "Number of processes; 0 for one per core.")

    def __post_init__(self) -> None:
        values = dataclasses.asdict(self)
        check_given(output=self.output)
        check_names("lines", self.split)
        check_range(values, height=(8, 1000), width=(0, 100_000), min_chars=(1, 1000))
        check_range(values, max_chars=(self.min_chars, 1000), seed=(0, 2**63 - 1), workers=(0, 1000))
        check_range(values, numbers=(0, 1e6), random=(0, 1e6), latin=(0, 1))
        check_choice(values, degrade=tuple(STYLES))
        if not self.whole_lines:
            check_given(count=self.count)
            check_range(values, count=(1, 10**9))
        elif self.count or self.words or self.numbers or self.random or not self.corpus:
            raise InputError("--whole_lines: needs --corpus, and excludes --count, --words, --numbers and --random")


class RenderedLine(NamedTuple):
    """A line in its final form.

    Attributes:
      name: the file name.
      text: the text.
      width: the scaled width of the image, at a height of 32 pixels.
      content: the content of the image file, or the serialised record.
    """

    name: str
    text: str
    width: int
    content: bytes


class _Renderer:
    """Renders the lines of a configuration."""

    def __init__(self, config: RenderConfig):
        self._config = config
        self._charset = charsets.charset_by_name(config.charset)
        sources = (config.corpus, config.words, config.numbers, config.random, config.latin)
        self.texts = Texts(self._charset, fonts.open_fonts(config.fonts), *sources, config.min_chars, config.max_chars)
        self.lines = self.texts.lines if config.whole_lines else ()

    @property
    def count(self) -> int:
        """The number of lines."""
        return len(self.lines) if self._config.whole_lines else self._config.count

    def line(self, number: int) -> tuple[str, fonts.Font | fonts.MixedFont, Line]:
        """Draws the line with a number; returns its text, its font and the image."""
        config = self._config
        rng = np.random.default_rng((config.seed, number))
        for _ in range(_TRIES):
            text, font = self.texts.with_font(self.lines[number], rng) if self.lines else self.texts.draw(rng)
            line = drawing.draw(text, font, config.height, config.width, STYLES[config.degrade], rng)
            scaled = header.scaled_width(line.image.height, line.image.width)
            if not config.tfrecords or charsets.frames_needed(text) * _PIXELS_PER_FRAME <= scaled:
                return text, font, line
        raise InputError(
            f"--width={config.width}: too narrow for lines like {text!r}, whose labels do not fit into the frames of a network"
        )

    def rendered(self, number: int) -> RenderedLine:
        text, font, line = self.line(number)
        encoded, name = line.encoded(), f"{number:06d}.{'png' if line.quality is None else 'jpg'}"
        width, height = line.image.size
        if self._config.tfrecords:
            record = schema.Record(encoded, line.kind, height, width, 1, text, name, font.name, tuple(line.middles))
            encoded = record.serialize()
        return RenderedLine(name, text, header.scaled_width(height, width), encoded)


_renderer: _Renderer | None = None  # of a worker


def _prepare(config: RenderConfig) -> None:
    global _renderer
    _renderer = _Renderer(config)


def _render(numbers: range) -> list[RenderedLine]:
    assert _renderer is not None
    return [_renderer.rendered(number) for number in numbers]


def render(config: RenderConfig) -> dict:
    """Renders lines to image files and `labels.txt`, with a line `name<TAB>text` for each image; or to records.

    Returns:
      `lines`, the number of lines, and `characters`, the number of different characters in them.

    Raises:
      InputError: an input cannot be used, or the output exists.
    """
    _prepare(config)  # before anything is written: most errors are found here
    assert _renderer is not None
    if _renderer.texts.undrawable:
        known = len(set(charsets.charset_by_name(config.charset).characters))
        _LOG.warning("%d of the %d characters of the charset are in no font, and not drawn", _renderer.texts.undrawable, known)
    count = _renderer.count
    if config.contact_sheet:
        shown = [_renderer.line(number)[2].image for number in range(min(count, _SHOWN))]
        files.write_bytes(pathlib.Path(config.contact_sheet), contact_sheet(shown))
    chunks = (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
    processes = 1 if count <= _CHUNK else config.workers
    characters: set[str] = set()

    def counted() -> Iterator[RenderedLine]:
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


def _to_files(config: RenderConfig, drawn: Iterable[RenderedLine]) -> None:
    with (
        files.atomic_directory(pathlib.Path(config.output)) as folder,
        open(folder / "labels.txt", "w", encoding="utf-8", newline="\n") as labels,
    ):
        for row in drawn:
            (folder / row.name).write_bytes(row.content)
            labels.write(f"{row.name}\t{row.text}\n")


def _to_records(config: RenderConfig, drawn: Iterable[RenderedLine]) -> None:
    from tfrecords.writer import SplitWriter  # loads TensorFlow, which takes seconds in each worker

    charset = charsets.charset_by_name(config.charset)
    with SplitWriter(pathlib.Path(config.output), "lines", config.split, charset.file_text()) as writer:
        for number, row in enumerate(drawn):
            writer.add(row.content, number, row.text, row.width)
        writer.finish(charset=charset.fingerprint, image_format="keep", pixels_per_frame=_PIXELS_PER_FRAME)


def contact_sheet(images: Sequence[Image.Image]) -> bytes:
    """Arranges images of lines in two columns; returns the content of a PNG file."""
    half = -(-len(images) // 2)
    columns = [images[:half], images[half:]]
    widths = [max((image.width for image in column), default=0) for column in columns]
    heights = [sum(image.height + _SPACE for image in column) for column in columns]
    sheet = Image.new("RGB", (sum(widths) + 3 * _SPACE, max(heights) + _SPACE), _BACKGROUND)
    left = _SPACE
    for column, width in zip(columns, widths, strict=True):
        top = _SPACE
        for image in column:
            sheet.paste(image, (left, top))
            top += image.height + _SPACE
        left += width + _SPACE
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
