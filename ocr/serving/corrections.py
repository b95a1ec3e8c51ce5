"""A folder of images with the texts that people say are right, in the format that `ocr_adapt` and `make_tfrecords` read."""

import contextlib
import hashlib
import logging
import os
import pathlib
import unicodedata

import grpc

from ocr.images import header
from ocr.serving.service import RequestError, invalid_argument
from tfrecords import files
from tfrecords.errors import InputError
from tfrecords.schema import JPEG, PNG

_MAX_CHARACTERS = 1000
_MAX_LINES, _MAX_BYTES = 10_000, 2**30  # of a folder
_EXTENSIONS = {PNG: ".png", JPEG: ".jpg"}
_UNWRITABLE = {"Cc": "a control character", "Cs": "half of a surrogate pair", "Zl": "a line end", "Zp": "a line end"}
_LOG = logging.getLogger(__name__)


class Corrections:
    """Keeps corrections: `NAME.gt.txt` beside the image file, whose name is a hash of its content.

    Args:
      folder: of the files; made if it is not there. Several servers may share it. It holds at most 10,000 lines
        and 1 GiB, and may be moved away at any time, to train on it.

    Raises:
      InputError: it cannot be made.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._sizes: dict[str, int] = {}  # by name, as each was found
        files.make_folder(folder)

    def save(self, image: bytes, text: str) -> str:
        """Keeps the text of an image, in place of an earlier one.

        Args:
          image: PNG or JPEG file.
          text: of the line.

        Returns:
          The name of the image file.

        Raises:
          RequestError: the image or the text is not usable, or the folder is full or cannot be written.
        """
        head = header.read(image)
        if head is None or head.kind not in _EXTENSIONS or not head.height or len(image) > header.MAX_BYTES:
            raise invalid_argument(f"image_bytes: not a PNG or JPEG file of at most {header.MAX_BYTES} bytes")
        if header.is_too_large(head.height, head.width):
            raise invalid_argument(f"image_bytes: {head.width} x {head.height} pixels is too large to be read")
        if not text.strip() or len(text) > _MAX_CHARACTERS:
            raise invalid_argument(f"text: must be one line of 1 to {_MAX_CHARACTERS} characters")
        if unwritable := [name for c in text if (name := _UNWRITABLE.get(unicodedata.category(c)))]:
            raise invalid_argument(f"text: has {unwritable[0]}")
        path = self._folder / (hashlib.sha256(image).hexdigest()[:32] + _EXTENSIONS[head.kind])
        try:
            files.make_folder(self._folder)
            with files.directory_lock(self._folder, wait=True):
                if not path.exists():
                    self._check_room(len(image))
                    files.write_bytes(path, image)
                files.write_bytes(path.with_suffix(".gt.txt"), f"{text}\n".encode())
        except (OSError, InputError) as error:
            _LOG.warning("--corrections_dir=%s: a correction was not kept: %s", self._folder, error)
            raise RequestError(grpc.StatusCode.UNAVAILABLE, "the server cannot keep corrections now") from error
        return path.name

    def _check_room(self, size: int) -> None:
        """Checks that there is room for another image of a size in bytes, whoever has put what else there.

        Only files that are new are asked for their size: an image keeps its own, and that of a text changes little.
        """
        with os.scandir(self._folder) as entries:
            names = {entry.name for entry in entries}
        self._sizes = {name: known for name, known in self._sizes.items() if name in names}
        for name in names - self._sizes.keys():
            with contextlib.suppress(FileNotFoundError):  # moved away just now
                self._sizes[name] = os.lstat(self._folder / name).st_size
        if len(names) // 2 >= _MAX_LINES or sum(self._sizes.values()) + size > _MAX_BYTES:
            _LOG.warning("--corrections_dir=%s: full; move it away, to train on it", self._folder)
            raise RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, "the server's folder of corrections is full")
