"""TensorFlow Serving's Predict messages in Protocol Buffers' encoding, without TensorFlow, which takes seconds to import.

The numbers of the fields are those of `predict.proto`, `model.proto` and `prediction_log.proto` of TensorFlow Serving, and of
TensorFlow's `tensor.proto`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

MODEL = "ocr"  # what servers call the model, unless they are told otherwise

_MODEL_SPEC, _INPUTS, _OUTPUTS = 1, 2, 1  # of PredictRequest; of PredictResponse
_NAME, _SIGNATURE_NAME = 1, 3  # of ModelSpec
_KEY, _VALUE = 1, 2  # of a map's entries
_DTYPE, _SHAPE, _CONTENT, _FLOATS, _INTS, _STRINGS = 1, 2, 4, 5, 7, 8  # of TensorProto
_DIM, _SIZE = 2, 1  # of TensorShapeProto, and of its Dim
_PREDICT_LOG, _REQUEST = 6, 1  # of PredictionLog, and of PredictLog
_FLOAT, _INT32, _UINT8, _STRING = 1, 3, 4, 7  # of DataType
_NUMPY: dict[int, Any] = {_FLOAT: np.dtype("<f4"), _INT32: np.dtype("<i4"), _UINT8: np.dtype("u1")}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # how a field's value is encoded


def request(model: str, signature: str, inputs: Mapping[str, "np.ndarray | Sequence[bytes]"]) -> bytes:
    """Encodes a PredictRequest.

    Args:
      model: its name.
      signature: asked for.
      inputs: by name: arrays of int32 or uint8, or lists of bytes.
    """
    spec = _field(_NAME, model.encode()) + _field(_SIGNATURE_NAME, signature.encode())
    entries = (_field(_KEY, name.encode()) + _field(_VALUE, _tensor(value)) for name, value in inputs.items())
    return _field(_MODEL_SPEC, spec) + b"".join(_field(_INPUTS, entry) for entry in entries)


def log(request: bytes) -> bytes:
    """Encodes a PredictionLog of a request."""
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def logged(message: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """Decodes a PredictionLog: the signature asked for, and the inputs by name.

    Raises:
      ValueError: it is none, or damaged.
    """
    with _damage():
        fields = _fields(_fields(_fields(message)[_PREDICT_LOG][0])[_REQUEST][0])
        return _fields(fields[_MODEL_SPEC][0])[_SIGNATURE_NAME][0].decode(), _tensors(fields[_INPUTS])


def response(message: bytes) -> dict[str, np.ndarray]:
    """Decodes a PredictResponse: the outputs by name, those of strings as arrays of bytes.

    Raises:
      ValueError: it is none, or damaged.
    """
    with _damage():
        return _tensors(_fields(message)[_OUTPUTS])


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Makes one error of all that bytes which are no such message, or fields of another kind, lead to."""
    try:
        yield
    except (LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"no such message: {error}") from error


def _tensor(value: "np.ndarray | Sequence[bytes]") -> bytes:
    if isinstance(value, np.ndarray):
        (kind,) = (number for number, dtype in _NUMPY.items() if dtype == value.dtype)
        content = _field(_CONTENT, value.tobytes())
    else:
        kind, content = _STRING, b"".join(_field(_STRINGS, item) for item in value)
    shape = value.shape if isinstance(value, np.ndarray) else (len(value),)
    dims = b"".join(_field(_DIM, _number(_SIZE, size)) for size in shape)
    return _number(_DTYPE, kind) + _field(_SHAPE, dims) + content


def _tensors(entries: Sequence[bytes]) -> dict[str, np.ndarray]:
    found = {}
    for entry in entries:
        fields = _fields(entry)
        found[fields[_KEY][0].decode()] = _array(fields[_VALUE][0])
    return found


def _array(message: bytes) -> np.ndarray:
    """Decodes a TensorProto; where it has but one value for many elements, that is the value of all."""
    fields = _fields(message)
    kind = fields[_DTYPE][0]
    dims = (_fields(dim) for dim in _fields(fields[_SHAPE][0]).get(_DIM, []))
    shape = [dim.get(_SIZE, [0])[0] for dim in dims]
    values: Any
    if kind == _STRING:
        values = np.empty(len(fields.get(_STRINGS, [])), object)
        values[:] = fields.get(_STRINGS, [])
    elif _CONTENT in fields:
        values = np.frombuffer(fields[_CONTENT][0], _NUMPY[kind])
    elif kind == _FLOAT:
        values = np.concatenate([np.frombuffer(part, "<f4") for part in fields.get(_FLOATS, [b""])])
    else:
        packed = fields.get(_INTS, [])
        each = [[part] if isinstance(part, int) else list(_varints(part)) for part in packed]
        values = np.array([number for part in each for number in part], np.uint64).astype(np.int64).astype(_NUMPY[kind])
    if len(values) == 1 and shape != [1]:
        values = np.broadcast_to(values, shape)
    return values.reshape(shape)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _varint(number: int) -> bytes:
    head, rest = number & 0x7F, number >> 7
    return bytes([head | 0x80]) + _varint(rest) if rest else bytes([head])


def _varints(message: bytes) -> Iterator[int]:
    place = 0
    while place < len(message):
        number, place = _varint_at(message, place)
        yield number


def _varint_at(message: bytes, place: int) -> tuple[int, int]:
    """Returns a number, and where it ends."""
    number = shift = 0
    while True:
        octet = message[place]
        place, number, shift = place + 1, number | (octet & 0x7F) << shift, shift + 7
        if not octet & 0x80:
            return number, place


def _fields(message: bytes) -> dict[int, list]:
    """Decodes a message: its fields' values by their numbers, bytes or whole numbers."""
    found: dict[int, list] = {}
    place = 0
    while place < len(message):
        tag, place = _varint_at(message, place)
        value: int | bytes
        if tag & 7 == _VARINT:
            value, place = _varint_at(message, place)
        elif tag & 7 in (_LENGTH, _FIXED32, _FIXED64):
            size = {_FIXED32: 4, _FIXED64: 8}.get(tag & 7)
            if size is None:
                size, place = _varint_at(message, place)
            value, place = message[place : place + size], place + size
            if place > len(message):
                raise ValueError("a field ends behind its message")
        else:
            raise ValueError(f"a field of the unknown kind {tag & 7}")
        found.setdefault(tag >> 3, []).append(value)
    return found
