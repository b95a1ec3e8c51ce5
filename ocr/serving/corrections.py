"""A folder of images with the texts that people say are right, in the format that `ocr_adapt` and `make_tfrecords` read."""

import hashlib
import pathlib

from ocr.images import header
from ocr.serving.service import invalid_argument
from tfrecords import files
from tfrecords.schema import JPEG, PNG

_MAX_CHARACTERS = 1000
_EXTENSIONS = {PNG: ".png", JPEG: ".jpg"}


class Corrections:
    """Keeps corrections: `NAME.gt.txt` beside the image file, whose name is a hash of its content.

    Args:
      folder: of the files; made if it is not there. Several servers may share it.

    Raises:
      InputError: it cannot be made.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        files.make_folder(folder)

    def save(self, image: bytes, text: str) -> str:
        """Keeps the text of an image, in place of an earlier one.

        Args:
          image: PNG or JPEG file.
          text: of the line.

        Returns:
          The name of the image file.

        Raises:
          RequestError: the image or the text is not usable.
        """
        head = header.read(image)
        if head is None or head.kind not in _EXTENSIONS or not head.height or len(image) > header.MAX_BYTES:
            raise invalid_argument(f"image_bytes: not a PNG or JPEG file of at most {header.MAX_BYTES} bytes")
        if not text.strip() or len(text) > _MAX_CHARACTERS or text.splitlines() != [text]:
            raise invalid_argument(f"text: must be one line of 1 to {_MAX_CHARACTERS} characters")
        try:
            encoded = text.encode("utf-8")
        except UnicodeEncodeError:
            raise invalid_argument("text: has half of a surrogate pair") from None
        path = self._folder / (hashlib.sha256(image).hexdigest()[:32] + _EXTENSIONS[head.kind])
        with files.directory_lock(self._folder, wait=True):
            if not path.exists():
                files.write_bytes(path, image)
            files.write_bytes(path.with_suffix(".gt.txt"), encoded + b"\n")
        return path.name
