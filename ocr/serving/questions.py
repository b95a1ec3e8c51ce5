"""What can be asked about an image beside its text, of an export or through a server. Importing it loads no TensorFlow."""

import codecs
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfrecords.errors import InputError, IntegrityError

MAX_TEXTS = 1000  # of an image; an export refuses more, too, but has to read them first

# A signature and its inputs by name -> its outputs by name: of an export, or of a client.
PredictFunction = Callable[[str, Mapping[str, "np.ndarray | Sequence[bytes]"]], dict[str, np.ndarray]]
# Splits images into those of a request each.
BatchFunction = Callable[[Sequence[bytes]], Iterable[list[bytes]]]


class Score(NamedTuple):
    """How well texts fit an image.

    Attributes:
      best: Number of the most probable text, from 0; -1 if none is possible or the image was not read.
      log_probability: float32[K], the natural logarithm of each text's probability; minus infinity if it is not possible.
      agreement: For each text float32[its length], from 0 to 1: the probability of each character, given the image and the
        text's other characters.
      missing: The characters that the image shows and the first text lacks.
      status: As the exported model has it: 0 if the image was read.
    """

    best: int
    log_probability: np.ndarray
    agreement: list[np.ndarray]
    missing: str
    status: int


def read_texts(path: str) -> dict[str, list[str]]:
    """Reads a file of lines `image<TAB>text`, as labels files have them; an image may be on several.

    Returns:
      The texts of each image, in the order of their first lines.

    Raises:
      InputError: It cannot be read or has no lines, or one of them is not of this form, or an image has too many texts.
    """
    try:
        lines = pathlib.Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not lines[-1]:
        lines.pop()
    texts: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        name, tab, text = line.removesuffix(b"\r").partition(b"\t")
        if not name or not tab:
            raise InputError(
                f"{path}: line {number} is {line[:40].decode('utf-8', 'replace')!r}; it must be an image, a tab and a text"
            )
        try:
            own = texts.setdefault(os.fsdecode(name), [])
            own.append(text.decode())
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: line {number} is not UTF-8") from error
        if len(own) > MAX_TEXTS:
            raise InputError(f"{path}: line {number}: more than {MAX_TEXTS} texts for {os.fsdecode(name)}")
    if not texts:
        raise InputError(f"{path}: no lines in it")
    return texts


def score(
    predict: PredictFunction, batches: BatchFunction, encoded: Sequence[bytes], texts: Sequence[Sequence[str]]
) -> list[Score]:
    """Tells how probable given texts are.

    Args:
      predict: An export's or a client's.
      batches: Splits images into those of a request each.
      encoded: B image files as they are on disk.
      texts: The texts of each of them, at most 1,000.

    Returns:
      B scores.

    Raises:
      InputError: There are not B lists of texts, or too many or too long texts.
      IntegrityError: The response is invalid.
    """
    if len(texts) != len(encoded):
        raise InputError(f"texts: lists for {len(texts)} images instead of {len(encoded)}")
    scores: list[Score] = []
    # Only images with as many texts share a request, so that none is filled up.
    for _, numbers in itertools.groupby(range(len(encoded)), lambda number: len(texts[number])):
        alike = list(numbers)
        for images in batches([encoded[number] for number in alike]):
            asked = [texts[number] for number in alike[: len(images)]]
            del alike[: len(images)]
            array = np.empty((len(asked), len(asked[0])), object)
            array.ravel()[:] = [text.encode("utf-8", "surrogatepass") for row in asked for text in row]
            count = np.full(len(asked), len(asked[0]), np.int32)
            outputs = predict("score", {"image_bytes": images, "text": array, "count": count})
            shape = array.shape
            kinds = {"best": ("i", shape[:1]), "log_probability": ("f", shape), "missing": ("O", shape[:1])}
            _check(outputs, kinds | _common(len(images)))
            if outputs.get("agreement", count).ndim != 1 + len(shape):
                raise IntegrityError("the response has no agreement of characters")
            for row, own in enumerate(asked):
                if error := outputs["error"][row].decode():
                    raise InputError(f"texts[{len(scores)}]: {error}")
                agreement = outputs["agreement"][row]
                scores.append(
                    Score(
                        int(outputs["best"][row]),
                        outputs["log_probability"][row],
                        [values[: len(text)] for values, text in zip(agreement, own, strict=True)],
                        outputs["missing"][row].decode(),
                        int(outputs["status"][row]),
                    )
                )
    return scores


def constrained(
    predict: PredictFunction, batches: BatchFunction, encoded: Sequence[bytes], allowed: str, pattern: str
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Reads image files of which something is known.

    Args:
      predict: An export's or a client's.
      batches: Splits images into those of a request each.
      encoded: B image files as they are on disk.
      allowed: The characters that may occur; empty for all.
      pattern: Which texts are possible, such as `9999-99-99` or `date`; empty for all.

    Returns:
      B texts; their confidences float32[B], given that they are possible; those without that knowledge, float32[B]; and
      statuses int32[B].

    Raises:
      InputError: `allowed` or `pattern` breaks a rule.
      IntegrityError: The response is invalid.
    """
    given = {"allowed": allowed, "pattern": pattern}
    texts: list[str] = []
    numbers = {"confidence": [np.zeros(0, "f")], "unconstrained_confidence": [np.zeros(0, "f")], "status": [np.zeros(0, "i")]}
    for images in batches(encoded):
        known = {name: [value.encode("utf-8", "surrogatepass")] * len(images) for name, value in given.items()}
        outputs = predict("constrained", {"image_bytes": images, **known})
        shape = (len(images),)
        kinds = {"text": ("O", shape), "confidence": ("f", shape), "unconstrained_confidence": ("f", shape)}
        _check(outputs, kinds | _common(len(images)))
        for error in outputs["error"]:
            if error:
                raise InputError(error.decode())
        texts += [text.decode() for text in outputs["text"]]
        for name, values in numbers.items():
            values.append(outputs[name])
    confidences, unconstrained, statuses = (np.concatenate(values) for values in numbers.values())
    return texts, confidences, unconstrained, statuses


def _common(count: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {"status": ("i", (count,)), "error": ("O", (count,))}


def _check(outputs: Mapping[str, np.ndarray], kinds: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Makes sure that outputs have the kinds and shapes that they should have."""
    for name, (kind, shape) in kinds.items():
        if name not in outputs or (outputs[name].dtype.kind, outputs[name].shape) != (kind, shape):
            raise IntegrityError(f"the response has no {name} of shape {list(shape)}")
