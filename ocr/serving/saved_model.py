"""An exported model, to read image files with. It needs the export and TensorFlow, and nothing else of this package's."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ocr import pretrained
from tfrecords.errors import InputError, IntegrityError

PRETRAINED = pathlib.Path("pretrained")  # stands for the export that comes with the package
_OUTPUTS = {"text", "confidence", "status"}


def newest_version(path: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the model: `path` itself, or the newest version in it; PRETRAINED is found in the package.

    Raises:
      InputError: neither is a SavedModel.
    """
    if path == PRETRAINED:
        path = pretrained.FOLDER
    if (path / "saved_model.pb").is_file():
        return path
    if not (found := versions(path)):
        raise InputError(f"{path}: no exported model in it (no <version>/saved_model.pb); ocr_export writes one")
    return path / str(found[-1])


def versions(path: pathlib.Path) -> list[int]:
    """Returns the numbers of the versions in a folder, the newest last; servers take none from 2**63."""
    names = (version.parent.name for version in path.glob("*/saved_model.pb"))
    numbers = (int(name) for name in names if name.isascii() and name.isdecimal() and len(name) < 20 and name[0] != "0")
    return sorted(number for number in numbers if number < 2**63)


class Export:
    """An export, loaded: reads image files.

    Attributes:
      signatures: what it can be asked for, by name, as a server has it.
    """

    def __init__(self, model: Any):
        self._model = model  # whose variables go when it does
        self.signatures: Mapping[str, Any] = model.signatures

    def __call__(self, encoded: list[bytes]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns the texts of encoded image files, their confidences float32[B] and statuses int32[B]."""
        outputs = self.signatures["serving_default"](image_bytes=tf.constant(encoded, tf.string, [len(encoded)]))
        texts = [text.decode("utf-8") for text in outputs["text"].numpy()]
        return texts, outputs["confidence"].numpy(), outputs["status"].numpy()


def load(path: pathlib.Path) -> Export:
    """Loads an export, or the newest version in a folder of them.

    Raises:
      InputError: there is none, or it is not one of ours.
      IntegrityError: it is damaged.
    """
    version = newest_version(path)
    try:
        model = tf.saved_model.load(str(version))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, tf.errors.OpError) as error:
        raise IntegrityError(f"{version}: damaged, cannot be loaded ({str(error).splitlines()[0]})") from error
    serve = model.signatures.get("serving_default")
    takes = list(serve.structured_input_signature[1].values()) if serve else []
    if [(t.name, t.dtype) for t in takes] != [("image_bytes", tf.string)] or not serve.structured_outputs.keys() >= _OUTPUTS:
        raise InputError(f"{version}: does not take image_bytes and give text, as what ocr_export writes does")
    return Export(model)
