"""An exported model that reads image files. It needs the export and TensorFlow, and no network or alphabet of this package."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ocr import pretrained
from ocr.serving import questions
from tfrecords import errors, files
from tfrecords.errors import InputError, IntegrityError

PRETRAINED = pathlib.Path("pretrained")  # stands for the export that ships with the package
_OUTPUTS = {"text", "confidence", "status"}
_VERSION_LIMIT = 2**63  # TensorFlow Serving keeps version numbers in an int64


def newest_version(path: pathlib.Path) -> pathlib.Path:
    """Returns the folder of an exported model.

    Args:
      path: A version, a folder of versions, of which the newest is taken, or PRETRAINED.

    Raises:
      InputError: There is no SavedModel.
    """
    if path == PRETRAINED:
        path = pretrained.FOLDER
    if _holds_model(path):
        return path
    try:
        folders = versions(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not folders:
        raise InputError(f"{path}: no exported model in it (no <version>/saved_model.pb); ocr_export writes one")
    return folders[max(folders)]


def versions(path: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns the versions in a folder that hold a model, as their folders by number, the newest last.

    A number may have leading zeros, as TensorFlow Serving allows; of two folders for one number, the shorter name counts.

    Raises:
      OSError: The folder cannot be listed.
    """
    folders = _numbered(path)
    return {number: folders[number] for number in sorted(folders) if _holds_model(folders[number])}


def next_version(path: pathlib.Path) -> int:
    """Returns one more than the newest version in a folder, including those that hold no model yet; 1 if there is none."""
    return max(_numbered(path), default=0) + 1


def _numbered(path: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns by number the entries of a folder that are named like versions; none if there is no such folder."""
    try:
        names = [entry.name for entry in path.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    digits = sorted((name for name in names if name.isascii() and name.isdecimal()), key=len, reverse=True)
    return {int(name): path / name for name in digits if 0 < int(name) < _VERSION_LIMIT}


def _holds_model(folder: pathlib.Path) -> bool:
    """Returns whether a folder has a model in it; one that the file system fails to look into has none."""
    try:
        return (folder / "saved_model.pb").is_file()
    except OSError:
        return False


class Export:
    """A loaded export, which reads image files.

    Attributes:
      signatures: The SavedModel's signatures by name, each a function of its inputs by name.
    """

    def __init__(self, model: Any):
        self._model = model  # keeps the model's variables alive
        self.signatures: Mapping[str, Any] = model.signatures

    def __call__(self, encoded: list[bytes]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns the texts of B encoded image files, their confidences float32[B] and statuses int32[B]."""
        outputs = self.signatures["serving_default"](image_bytes=tf.constant(encoded, tf.string, [len(encoded)]))
        texts = [text.decode("utf-8") for text in outputs["text"].numpy()]
        return texts, outputs["confidence"].numpy(), outputs["status"].numpy()

    def predict(self, signature: str, inputs: Mapping[str, "np.ndarray | Sequence[bytes]"]) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
          signature: Its name.
          inputs: Its inputs by name: arrays, those of bytes as objects, or lists of bytes.

        Returns:
          Its outputs by name; texts are UTF-8 bytes.

        Raises:
          InputError: There is no such signature.
        """
        if signature not in self.signatures:
            raise InputError(f"the export has no signature {signature!r}, as older ones do; write it anew with ocr_export")
        arrays = {name: value if isinstance(value, np.ndarray) else np.array(value, object) for name, value in inputs.items()}
        tensors = {name: tf.constant(value, tf.string if value.dtype == object else None) for name, value in arrays.items()}
        outputs = self.signatures[signature](**tensors)
        return {name: value.numpy() for name, value in outputs.items()}

    def score(self, encoded: Sequence[bytes], texts: Sequence[Sequence[str]]) -> list[questions.Score]:
        """Tells how probable given texts are; see `Client.score`."""
        return questions.score(self.predict, _one_batch, encoded, texts)

    def constrained(
        self, encoded: Sequence[bytes], allowed: str = "", pattern: str = ""
    ) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Reads image files of which something is known; see `Client.constrained`."""
        return questions.constrained(self.predict, _one_batch, encoded, allowed, pattern)


def _one_batch(encoded: Sequence[bytes]) -> list[list[bytes]]:
    return [list(encoded)] if encoded else []


def load(path: pathlib.Path) -> Export:
    """Loads an export, or the newest version in a folder of exports.

    Raises:
      InputError: There is no export, or it was not written by `ocr_export`.
      IntegrityError: The export is damaged.
    """
    version = newest_version(path)
    try:
        with files.no_wildcards(version) as folder:
            model = tf.saved_model.load(str(folder))
    except errors.damage_errors() as error:
        raise IntegrityError(
            f"{version}: damaged, cannot be loaded ({files.own_path(errors.first_line(error), version)})"
        ) from error
    serve = model.signatures.get("serving_default")
    inputs = list(serve.structured_input_signature[1].values()) if serve else []
    if [(t.name, t.dtype) for t in inputs] != [("image_bytes", tf.string)] or not serve.structured_outputs.keys() >= _OUTPUTS:
        raise InputError(
            f"{version}: does not take image_bytes and give text, confidence and status, as ocr_export's models do"
        )
    return Export(model)
