"""Image files in, texts out: with an export, or with a server. It imports no TensorFlow."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tfrecords import files

_BATCH = 32
_MAX_BYTES = 20_000_000  # of an image; more than that is not read
_REASONS = {
    1: "not an image that can be decoded",
    2: "too large: over 20 MB, 40 million pixels or 8,000 pixels of scaled width",
}

Read = Callable[[list[bytes]], tuple[list[str], np.ndarray, np.ndarray]]


class Prediction(NamedTuple):
    """What was read of one file; where nothing was, `text` is empty, `confidence` 0 and `reason` says why."""

    path: str
    text: str
    confidence: float
    reason: str


def predict_files(read: Read, paths: Iterable[str]) -> Iterator[Prediction]:
    """Yields what is read of image files, in their order.

    Args:
      read: an export or a client: takes encoded files, gives their texts, confidences and statuses.
      paths: of the files.
    """
    return predict_images(read, ((path, *_content(path)) for path in paths))


def predict_images(read: Read, images: Iterable[tuple[str, bytes, str]]) -> Iterator[Prediction]:
    """Yields what is read of images: each its name, its file, and why it has none, or nothing."""
    images = iter(images)
    while batch := list(itertools.islice(images, _BATCH)):
        texts, confidences, statuses = read([content for _, content, _ in batch])
        for (name, _, reason), text, confidence, status in zip(batch, texts, confidences, statuses, strict=True):
            yield Prediction(name, text, float(confidence), reason or _REASONS.get(int(status), ""))


def _content(path: str) -> tuple[bytes, str]:
    """Returns a file's bytes, or none and why."""
    try:
        return files.read_at_most(path, _MAX_BYTES + 1), ""
    except (OSError, ValueError) as error:
        return b"", getattr(error, "strerror", None) or str(error)
