"""Texts beside their images: `NAME.gt.txt`, as OCRopus and kraken have it, and in names as `text_number.png`.

TextRecognitionDataGenerator writes the latter.
"""

import logging
import pathlib
import re
from collections.abc import Iterator

from ocr.data import entries
from ocr.data.entries import Entry
from ocr.data.folder import Folder
from ocr.data.labels import Reject

GT = ".gt.txt"
EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
    *(".jp2", ".pbm", ".pgm", ".ppm"),
)
# Of several images of one text the first is taken: the page as it is, with its greys normalised, binarised.
_SUFFIXES = (*EXTENSIONS, ".nrm.png", ".bin.png")
_NUMBERED = re.compile(r"(.*)_[0-9]+", re.DOTALL)
_LOG = logging.getLogger(__name__)


def gt(folder: Folder, names: list[str]) -> Iterator[Entry]:
    """Yields an entry for each `NAME.gt.txt`, whose image is NAME with one of the usual extensions.

    Args:
      folder: of the images.
      names: of all files in it.
    """
    present, taken, several = set(names), set(), 0
    texts = [name for name in names if name.endswith(GT)]
    for number, name in enumerate(texts, 1):
        stem = name.removesuffix(GT)
        images = [stem + suffix for suffix in _SUFFIXES if stem + suffix in present]
        taken.update(images)
        several += len(images) > 1
        try:
            if not images:
                raise Reject("missing_file", f"no image beside it: none of {stem}{', '.join(_SUFFIXES)}")
            yield Entry(number, images[0], _text(folder.read(name)), group=stem)
        except Reject as reject:
            yield entries.rejected(number, images[0] if images else name, reject, stem)
    if several:
        _LOG.warning("%d texts have several images; the first of %s is taken", several, ", ".join(_SUFFIXES))
    if left := sum(name.lower().endswith(EXTENSIONS) and name not in taken for name in names):
        _LOG.warning("%d images have no NAME%s beside them, and are left out", left, GT)


def _text(content: bytes) -> str:
    """Returns the text of a file that has one line."""
    try:
        text = content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise Reject("bad_line", f"its text is not UTF-8 at byte {error.start}") from error
    if "\n" in text:
        raise Reject("bad_line", "its text has more than one line")
    return text


def names(_: Folder, names: list[str]) -> Iterator[Entry]:
    """Yields an entry for each image, whose text is its file's name up to the last `_`, with a number after it."""
    images = [name for name in names if name.lower().endswith(EXTENSIONS)]
    for number, name in enumerate(images, 1):
        if match := _NUMBERED.fullmatch(pathlib.PurePath(name).stem):
            yield Entry(number, name, match[1])
        else:
            yield Entry(number, name, reason="bad_line", detail="its name is not text_number")
