"""Draws lines of text as image files, to train on and to test with.

A line is a function of (seed, number) alone, so that the files are the same for any number of workers.
"""

import contextlib
import dataclasses
import functools
import glob
import pathlib
import re
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ocr import charset as charsets
from ocr import progress, workers
from ocr.charset import Charset
from ocr.config import check_choice, check_given, check_range
from tfrecords import files
from tfrecords.errors import InputError

DEGRADATIONS = ("clean", "scan")
_BUILT_IN = ""  # in place of a path: the font that comes with Pillow
_MOST_TEXT = 2**40  # bytes of a corpus file
_LEAST_SIZE = 4  # pixels of the em
_TRIES = 200  # texts drawn until some font has every character
_NO_CHARACTER = "\U0010ffff"  # what a font shows for this it shows for all it lacks


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """What to draw.

    Raises:
      InputError: a field's value is none that it takes.
    """

    output: str
    count: int
    charset: str = "alnum"
    corpus: tuple[str, ...] = ()
    fonts: tuple[str, ...] = ()
    height: int = 32
    width: int = 280
    min_chars: int = 5
    max_chars: int = 10
    degrade: str = "clean"
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        fields = dataclasses.asdict(self)
        check_given(output=self.output)
        check_range(fields, count=(1, 10**9), height=(8, 1000), width=(0, 100_000), min_chars=(1, 1000))
        check_range(fields, max_chars=(self.min_chars, 1000), seed=(0, 2**63 - 1), workers=(0, 1000))
        check_choice(fields, degrade=DEGRADATIONS)


class Font:
    """A font file, at any size, that knows what it lacks."""

    def __init__(self, path: str):
        self.path = path
        self._lacking = self._shape(_NO_CHARACTER)

    @functools.lru_cache(maxsize=64)  # noqa: B019  # a font lives as long as the program
    def at(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """Returns the font with an em of `size` pixels."""
        if self.path == _BUILT_IN:
            return ImageFont.load_default(size)
        return ImageFont.truetype(self.path, size, layout_engine=ImageFont.Layout.BASIC)

    @functools.cache  # noqa: B019
    def has(self, character: str) -> bool:
        """Says whether the font draws this character, rather than a box or nothing."""
        shape = self._shape(character)
        return shape != self._lacking and (character.isspace() or any(shape))

    def _shape(self, character: str) -> bytes:
        mask = self.at(24).getmask(character)
        advance = str(self.at(24).getlength(character)).encode() if character.isspace() else b""
        return bytes(mask) + advance


def open_fonts(patterns: tuple[str, ...]) -> list[Font]:
    """Opens the fonts that the patterns name, in the order of their paths; without patterns Pillow's own.

    Raises:
      InputError: a pattern matches nothing, or a file is no font.
    """
    if not patterns:
        return [Font(_BUILT_IN)]
    paths: set[str] = set()
    for pattern in patterns:
        if not (matched := glob.glob(pattern, recursive=True)):
            raise InputError(f"--fonts={pattern}: matches no file")
        paths.update(matched)
    fonts = []
    for path in sorted(paths):
        try:
            if not pathlib.Path(path).is_file():
                raise ValueError("not a regular file")
            fonts.append(Font(path))
        except (OSError, ValueError) as error:
            raise InputError(f"--fonts: {path}: cannot be read as a font ({error})") from error
    return fonts


def corpus_runs(paths: tuple[str, ...], charset: Charset, min_chars: int) -> list[str]:
    """Returns the stretches of text that the alphabet can write and that are long enough.

    Raises:
      InputError: a file cannot be read, or none of them has such a stretch.
    """
    runs = []
    known = set(charset.characters)
    for path in paths:
        try:
            text = files.read_at_most(path, _MOST_TEXT).decode("utf-8-sig")
        except OSError as error:
            raise InputError(f"--corpus={path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"--corpus={path}: not UTF-8 at byte {error.start}") from error
        for line in text.splitlines():
            spaced = "".join(c if c in known else "\n" for c in line)
            runs += [run for run in map(_tidy, spaced.split("\n")) if len(run) >= min_chars]
    if paths and not runs:
        raise InputError(f"--corpus={','.join(paths)}: no stretch of {min_chars} characters of the charset in it")
    return runs


def _tidy(text: str) -> str:
    """Leaves no space at an end, nor two together."""
    return re.sub(r"(\s)\s+", r"\1", text).strip()


class Texts:
    """Draws texts to render, each with a font that has all its characters."""

    def __init__(self, config: RenderConfig):
        charset = charsets.named(config.charset)
        self._config = config
        self._fonts = open_fonts(config.fonts)
        self._runs = corpus_runs(config.corpus, charset, config.min_chars)
        self._letters = [
            [c for c in dict.fromkeys(charset.characters) if font.has(c)] if not self._runs else [] for font in self._fonts
        ]
        usable = [i for i, letters in enumerate(self._letters) if any(not c.isspace() for c in letters)]
        if not self._runs and not usable:
            raise InputError(f"--fonts: none of the fonts has a character of --charset={config.charset}")
        self._usable = usable
        self.drawable = len(set().union(*self._letters))

    def draw(self, rng: np.random.Generator) -> tuple[str, Font]:
        """Returns a text and its font.

        Raises:
          InputError: text after text came up of which no font has every character.
        """
        for _ in range(_TRIES):
            length = int(rng.integers(self._config.min_chars, self._config.max_chars, endpoint=True))
            if not self._runs:
                index = self._usable[rng.integers(len(self._usable))]
                text = self._random(rng, self._letters[index], length)
                return text, self._fonts[index]
            run = self._runs[rng.integers(len(self._runs))]
            start = int(rng.integers(max(len(run) - length, 0) + 1))
            text = run[start : start + length].strip()
            fonts = [font for font in self._fonts if all(map(font.has, text))]
            if fonts and len(text) >= self._config.min_chars:
                return text, fonts[rng.integers(len(fonts))]
        raise InputError(f"--fonts: no font has every character of {text!r}, nor of {_TRIES - 1} other texts of the corpus")

    @staticmethod
    def _random(rng: np.random.Generator, letters: list[str], length: int) -> str:
        """Returns random letters, never a space at an end, nor two together."""
        inked = [c for c in letters if not c.isspace()]
        text = ""
        while len(text) < length:
            at_an_end = len(text) in (0, length - 1)
            choice = inked if at_an_end or text[-1].isspace() else letters
            text += choice[rng.integers(len(choice))]
        return text


def draw_line(text: str, font: Font, height: int, width: int, rng: np.random.Generator) -> Image.Image:
    """Draws dark text on light paper, as large as the height, and the width where one is set, allow.

    Args:
      text: to draw.
      font: that has all its characters.
      height: of the image in pixels.
      width: of the image in pixels, or 0 for as wide as the text is.
      rng: for size, place and tones.

    Returns:
      A grey image.

    Raises:
      InputError: there is no room for it, small as it may be drawn.
    """
    margin = max(height // 16, 1)
    size = round(height * rng.uniform(0.65, 0.95))
    while True:
        face = font.at(size)
        left, top, right, bottom = (round(side) for side in face.getbbox(text, anchor="ls"))
        room_y = height - 2 * margin - (bottom - top)
        room_x = width - 2 * margin - (right - left) if width else 3 * margin
        if min(room_x, room_y) >= 0:
            break
        if size <= _LEAST_SIZE:
            raise InputError(f"--width={width} --height={height}: no room for {text!r}, even {_LEAST_SIZE} pixels high")
        size = min(size - 1, max(size * (width - 2 * margin) // (right - left), _LEAST_SIZE)) if room_x < 0 else size - 1
    x = margin + int(rng.integers(room_x + 1))
    y = margin + int(rng.integers(room_y + 1))
    paper, ink = int(rng.integers(215, 256)), int(rng.integers(0, 80))
    image = Image.new("L", (width or right - left + 2 * margin + room_x, height), paper)
    ImageDraw.Draw(image).text((x - left, y - top), text, fill=ink, font=face, anchor="ls")
    return image


def scanned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Does to a line what a fair scanner does: a slight slope, blur and noise."""
    paper = image.getpixel((0, 0))
    steepest = min(1.5, 250 / image.width)  # degrees; a long line must not leave the image
    image = image.rotate(rng.uniform(-steepest, steepest), Image.Resampling.BILINEAR, fillcolor=paper)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.8)))
    noise = rng.normal(0.0, rng.uniform(2.0, 10.0), (image.height, image.width))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


_CHUNK = 100  # lines a worker draws at a time
_texts: Texts | None = None  # of a worker


def _prepare(config: RenderConfig) -> None:
    global _texts
    _texts = Texts(config)


def _render(config: RenderConfig, folder: pathlib.Path, numbers: range) -> list[tuple[str, str]]:
    """Draws some lines to files; returns their names and texts."""
    assert _texts is not None
    rows = []
    for number in numbers:
        rng = np.random.default_rng((config.seed, number))
        text, font = _texts.draw(rng)
        image = draw_line(text, font, config.height, config.width, rng)
        if config.degrade == "scan":
            name = f"{number:06d}.jpg"
            scanned(image, rng).save(folder / name, quality=int(rng.integers(40, 90)))
        else:
            name = f"{number:06d}.png"
            image.save(folder / name, compress_level=1)
        rows.append((name, text))
    return rows


def render(config: RenderConfig) -> dict:
    """Draws image files and `labels.txt`, a line `name<TAB>text` each.

    Returns:
      `lines`, and `characters`, how many different ones are in them.

    Raises:
      InputError: something given cannot be used, or the output is there already.
    """
    _prepare(config)  # before anything is written: most mistakes show here
    assert _texts is not None
    known = len(set(charsets.named(config.charset).characters))
    if 0 < (lacking := known - _texts.drawable) < known:
        print(f"{lacking} of the {known} characters of the charset are in no font, and not drawn", file=sys.stderr)
    chunks = (range(start, min(start + _CHUNK, config.count)) for start in range(0, config.count, _CHUNK))
    processes = 1 if config.count <= _CHUNK else config.workers
    characters: set[str] = set()
    with (
        files.folder_aside(pathlib.Path(config.output)) as folder,
        open(folder / "labels.txt", "w", encoding="utf-8", newline="\n") as labels,
        contextlib.closing(
            workers.in_order(functools.partial(_render, config, folder), chunks, processes, _prepare, config)
        ) as drawn,
        progress.Progress("rendering", config.count, "lines") as bar,
    ):
        for done, rows in enumerate(drawn):
            for name, text in rows:
                labels.write(f"{name}\t{text}\n")
                characters.update(text)
            bar.update(min((done + 1) * _CHUNK, config.count))
    return {"lines": config.count, "characters": len(characters)}
