"""Requests that TensorFlow Serving runs through a model before it answers anybody, in `assets.extra`: its first answers take
seconds."""

import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ocr import images

NAME = "tf_serving_warmup_requests"  # which the server looks for
_BATCHES = (1, 32)
_WIDTH = 280  # pixels
# Numbers of the fields on the way from a PredictionLog of tensorflow_serving/apis to what is asked of which signature.
_PREDICT_LOG, _REQUEST, _MODEL_SPEC, _INPUTS = 6, 1, 1, 2
_SIGNATURE_NAME = 3
_KEY, _VALUE = 1, 2


def write(path: pathlib.Path) -> None:
    """Writes requests to each signature: an empty line, and a batch of files with one each."""
    line = np.full([1, images.HEIGHT, _WIDTH], 255, np.uint8)
    file = tf.io.encode_png(line[0, :, :, np.newaxis])
    with tf.io.TFRecordWriter(str(path)) as writer:
        for batch in _BATCHES:
            for signature in ("serving_default", "detailed"):
                writer.write(_log(signature, {"image_bytes": tf.fill([batch], file)}))
        writer.write(_log("lines", {"pixels": tf.constant(line), "width": tf.constant([_WIDTH])}))


def read(path: pathlib.Path) -> Iterator[tuple[str, dict[str, tf.Tensor]]]:
    """Yields the requests of a file as `write` makes it: the signature, and its inputs by name.

    Raises:
      tf.errors.OpError, ValueError, LookupError: it is damaged.
    """
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        (log,) = _fields(record)[_PREDICT_LOG]
        (request,) = _fields(log)[_REQUEST]
        fields = _fields(request)
        (signature,) = _fields(fields[_MODEL_SPEC][0])[_SIGNATURE_NAME]
        inputs = (_fields(entry) for entry in fields[_INPUTS])
        yield (
            signature.decode(),
            {entry[_KEY][0].decode(): tf.io.parse_tensor(entry[_VALUE][0], _kind(entry[_VALUE][0])) for entry in inputs},
        )


def _log(signature: str, inputs: dict[str, tf.Tensor]) -> bytes:
    entries = (
        _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tf.io.serialize_tensor(value).numpy()))
        for name, value in inputs.items()
    )
    spec = _field(_MODEL_SPEC, _field(_SIGNATURE_NAME, signature.encode()))
    return _field(_PREDICT_LOG, _field(_REQUEST, spec + b"".join(entries)))


def _kind(tensor: bytes) -> tf.DType:
    """Returns the dtype of a serialized TensorProto, whose first field it is."""
    return tf.as_dtype(tensor[1])


def _field(number: int, content: bytes) -> bytes:
    """Encodes a field of Protocol Buffers that has a length."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    head, rest = number & 0x7F, number >> 7
    return bytes([head | 0x80]) + _varint(rest) if rest else bytes([head])


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """Decodes a message that has no other fields."""
    found: dict[int, list[bytes]] = {}
    place = 0

    def varint() -> int:
        nonlocal place
        number = shift = 0
        while True:
            octet = message[place]
            place, number, shift = place + 1, number | (octet & 0x7F) << shift, shift + 7
            if not octet & 0x80:
                return number

    while place < len(message):
        tag, length = varint(), varint()
        if tag & 7 != 2 or place + length > len(message):
            raise ValueError("not a message of fields that have a length")
        found.setdefault(tag >> 3, []).append(message[place : place + length])
        place += length
    return found
