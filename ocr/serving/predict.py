"""Image files in, texts out, with an export or through a server. Importing it loads no TensorFlow."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ocr.images import header
from ocr.serving import image_files

_BATCH_SIZE = 32
_REASONS = {
    1: "not an image that can be decoded",
    2: "too large: over 20 MB, 40 million pixels or 8,000 pixels of scaled width",
    3: "blank: nothing stands out from its ground",
}
_TALL = "higher than wide: only an export with --turned_lines reads text on its side; turn the image, or crop single lines"
_DOUBTFUL = 0.5  # confidence: a single character may be higher than wide, and is read all the same

# Encoded image files -> their texts, confidences float32[B] and statuses int32[B]: an export, or a client.
ReadFunction = Callable[[list[bytes]], tuple[list[str], np.ndarray, np.ndarray]]


class Prediction(NamedTuple):
    """What was read in one file; if it could not be read, `text` is empty, `confidence` 0, and `reason` says why.

    `status` is that of the exported model: 0 if the image was read.
    `warning` says why a text may be wrong, if there is something to say.
    `withheld` says why the text of an image that was read is empty: its confidence is too low.
    """

    path: str
    text: str
    confidence: float
    reason: str
    status: int
    warning: str = ""
    withheld: str = ""


def predict_files(read: ReadFunction, paths: Iterable[str]) -> Iterator[Prediction]:
    """Yields a prediction for each image file, in order.

    Args:
      read: An export or a client.
      paths: Image files.
    """
    return predict_images(read, ((path, *image_files.read_file(path)) for path in paths))


def predict_images(read: ReadFunction, images: Iterable[tuple[str, bytes, str]]) -> Iterator[Prediction]:
    """Yields a prediction for each image, in order.

    Args:
      read: An export or a client.
      images: For each its name, its encoded file, and why the file could not be read, or "".
    """
    images = iter(images)
    while batch := list(itertools.islice(images, _BATCH_SIZE)):
        texts, confidences, statuses = read([content for _, content, _ in batch])
        for (name, content, reason), text, confidence, status in zip(batch, texts, confidences, statuses, strict=True):
            reason = reason or explain(int(status), content)
            is_doubtful = not reason and (not text or confidence < _DOUBTFUL)
            warning = _TALL if is_doubtful and _is_tall(content) else ""
            yield Prediction(name, text, float(confidence), reason, int(status), warning)


def explain(status: int, content: bytes) -> str:
    """Returns why an image was not read, or "" if it was; names its format if that is one which is not decoded."""
    foreign = header.foreign_format(content) if status == 1 else ""
    return _REASONS.get(status, "") + (f": {foreign}, not PNG, JPEG, GIF or plain BMP" if foreign else "")


def withhold(prediction: Prediction, min_confidence: float) -> Prediction:
    """Returns a prediction without its text if it was read with a lower confidence than this."""
    if prediction.reason or prediction.confidence >= min_confidence:
        return prediction
    return prediction._replace(text="", withheld="below --min_confidence")


def _is_tall(content: bytes) -> bool:
    """Returns whether an image is higher than wide; False for a GIF or BMP."""
    shape = header.read(content)
    return shape is not None and shape.height > shape.width
