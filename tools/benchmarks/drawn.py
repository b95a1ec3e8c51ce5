"""Draws lines for a model, and takes them from records."""

import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ocr.charset import Charset
from ocr.data import dataset, pipeline
from ocr.options import join_paths
from ocr.synthesis import render

_CHARS = (4, 20)  # of a line of text, at least and at most
_BATCH = 100


class Drawing:
    """Draws lines of natural width as records.

    Args:
      folder: for the records.
      charset: the model's alphabet.
      fonts: to draw with, as `render_lines` takes them; without any, Pillow's built-in one.
    """

    def __init__(self, folder: pathlib.Path, charset: Charset, fonts: Sequence[str]):
        self._folder, self._fonts, self._drawn = folder, tuple(fonts), 0
        self._charset = folder / "charset.txt"
        self._charset.write_text(charset.file_text(), "utf-8", newline="\n")

    def records(self, count: int, degrade: str, corpus: Sequence[str] = (), numbers: float = 0.0) -> str:
        """Draws lines, others with each call, and returns the folder of their records.

        Args:
          count: the number of lines.
          degrade: how they look, as in `render_lines`.
          corpus: files of running text.
          numbers: 1 for numbers, dates and codes. Without either, texts are random characters.

        Raises:
          InputError: a font or a file cannot be used.
        """
        self._drawn += 1
        output = str(self._folder / str(self._drawn))
        shortest, longest = _CHARS
        config = render.RenderConfig(
            output,
            count,
            str(self._charset),
            tuple(corpus),
            numbers=numbers,
            fonts=self._fonts,
            width=0,
            min_chars=shortest,
            max_chars=longest,
            degrade=degrade,
            tfrecords=True,
            seed=self._drawn,
        )
        render.render(config)
        return output


@contextmanager
def drawing(charset: Charset, fonts: Sequence[str]) -> Iterator[Drawing]:
    """Opens a `Drawing` in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        yield Drawing(pathlib.Path(folder), charset, fonts)


def load(data: str, most: int) -> tuple[list[bytes], list[str]]:
    """Returns the image files and texts of at most so many lines of records, from everywhere in them.

    Args:
      data: `DIR` or `DIR@split`, several separated by commas.
      most: the number of lines.

    Raises:
      InputError: there are no such records.
      IntegrityError: a shard is missing.
    """
    files: list[bytes] = []
    texts: list[str] = []
    for name in join_paths(data.split(",")):
        for batch in pipeline.image_files(dataset.find(name, "eval"), _BATCH):
            files += batch["encoded"].numpy().tolist()
            texts += [text.decode() for text in batch["text"].numpy()]
    most = min(most, len(files))
    numbers = [number * len(files) // most for number in range(most)]
    return [files[number] for number in numbers], [texts[number] for number in numbers]
