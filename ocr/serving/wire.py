"""TensorFlow Serving's Predict messages in Protocol Buffers' encoding.

Written out here because clients use it without TensorFlow, whose import takes seconds, and exports are written without
`tensorflow-serving-api`. The field numbers are those of `predict.proto`, `model.proto` and `prediction_log.proto` of TensorFlow
Serving, and of TensorFlow's `tensor.proto` and `tensor_shape.proto`; the encoding is described at
https://protobuf.dev/programming-guides/encoding.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

MODEL = "ocr"  # the default name of the model on a server

_MODEL_SPEC, _INPUTS, _OUTPUTS = 1, 2, 1  # of PredictRequest; of PredictResponse
_NAME, _SIGNATURE_NAME = 1, 3  # of ModelSpec
_KEY, _VALUE = 1, 2  # of a map's entries
_DTYPE, _SHAPE, _CONTENT, _FLOATS, _INTS, _STRINGS = 1, 2, 4, 5, 7, 8  # of TensorProto
_DIM, _SIZE = 2, 1  # of TensorShapeProto; of its Dim
_PREDICT_LOG, _REQUEST = 6, 1  # of PredictionLog; of PredictLog
_FLOAT, _INT32, _UINT8, _STRING = 1, 3, 4, 7  # of DataType
_NUMPY: dict[int, Any] = {_FLOAT: np.dtype("<f4"), _INT32: np.dtype("<i4"), _UINT8: np.dtype("u1")}
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types


def encode_request(model: str, signature: str, inputs: Mapping[str, "np.ndarray | Sequence[bytes]"]) -> bytes:
    """Encodes a PredictRequest.

    Args:
      model: Name of the model.
      signature: Name of the signature to run.
      inputs: By name: arrays of int32, uint8 or, as objects, bytes; or lists of bytes.

    Returns:
      The message.
    """
    spec = bytes_field(_NAME, model.encode()) + bytes_field(_SIGNATURE_NAME, signature.encode())
    entries = (bytes_field(_KEY, name.encode()) + bytes_field(_VALUE, _encode_tensor(value)) for name, value in inputs.items())
    return bytes_field(_MODEL_SPEC, spec) + b"".join(bytes_field(_INPUTS, entry) for entry in entries)


def encode_log(request: bytes) -> bytes:
    """Encodes a PredictionLog that holds an encoded PredictRequest."""
    return bytes_field(_PREDICT_LOG, bytes_field(_REQUEST, request))


def decode_log(message: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """Decodes a PredictionLog.

    Returns:
      The signature to run, and its inputs by name; those of strings as arrays of bytes.

    Raises:
      ValueError: The message is damaged or not a PredictionLog.
    """
    with _raising_value_error():
        request = _decode_fields(_decode_fields(_decode_fields(message)[_PREDICT_LOG][0])[_REQUEST][0])
        signature = _decode_fields(request[_MODEL_SPEC][0])[_SIGNATURE_NAME][0].decode()
        return signature, _decode_tensors(request[_INPUTS])


def decode_response(message: bytes) -> dict[str, np.ndarray]:
    """Decodes a PredictResponse.

    Returns:
      The outputs by name; those of strings as arrays of bytes.

    Raises:
      ValueError: The message is damaged or not a PredictResponse.
    """
    with _raising_value_error():
        return _decode_tensors(_decode_fields(message)[_OUTPUTS])


def bytes_field(number: int, content: bytes) -> bytes:
    """Encodes a field of bytes, of text or of a message."""
    return _encode_varint(number << 3 | _LENGTH_DELIMITED) + _encode_varint(len(content)) + content


def int_field(number: int, value: int) -> bytes:
    """Encodes a field of an integer that is not negative."""
    return _encode_varint(number << 3 | _VARINT) + _encode_varint(value)


@contextlib.contextmanager
def _raising_value_error() -> Iterator[None]:
    """Turns every error that damaged bytes, or fields of another type, lead to into ValueError."""
    try:
        yield
    except (LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"not a valid message: {error}") from error


def _encode_tensor(value: "np.ndarray | Sequence[bytes]") -> bytes:
    if isinstance(value, np.ndarray) and value.dtype != object:
        (dtype,) = (number for number, dtype in _NUMPY.items() if dtype == value.dtype)
        content = bytes_field(_CONTENT, value.tobytes())
    else:
        items = value.ravel() if isinstance(value, np.ndarray) else value
        dtype, content = _STRING, b"".join(bytes_field(_STRINGS, item) for item in items)
    shape = value.shape if isinstance(value, np.ndarray) else (len(value),)
    dims = b"".join(bytes_field(_DIM, int_field(_SIZE, size)) for size in shape)
    return int_field(_DTYPE, dtype) + bytes_field(_SHAPE, dims) + content


def _decode_tensors(entries: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Decodes the entries of a map from names to tensors."""
    tensors = {}
    for entry in entries:
        fields = _decode_fields(entry)
        tensors[fields[_KEY][0].decode()] = _decode_tensor(fields[_VALUE][0])
    return tensors


def _decode_tensor(message: bytes) -> np.ndarray:
    """Decodes a TensorProto; a single value for many elements is the value of all."""
    fields = _decode_fields(message)
    dtype = fields[_DTYPE][0]
    dims = (_decode_fields(dim) for dim in _decode_fields(fields[_SHAPE][0]).get(_DIM, []))
    shape = [dim.get(_SIZE, [0])[0] for dim in dims]
    values: Any
    if dtype == _STRING:
        values = np.empty(len(fields.get(_STRINGS, [])), object)
        values[:] = fields.get(_STRINGS, [])
    elif _CONTENT in fields:
        values = np.frombuffer(fields[_CONTENT][0], _NUMPY[dtype])
    elif dtype == _FLOAT:
        values = np.concatenate([np.frombuffer(part, "<f4") for part in fields.get(_FLOATS, [b""])])
    else:
        packed = fields.get(_INTS, [])  # one number a field, or many in one
        numbers = [[part] if isinstance(part, int) else list(_decode_varints(part)) for part in packed]
        flat = [number for part in numbers for number in part]
        values = np.array(flat, np.uint64).astype(np.int64).astype(_NUMPY[dtype])
    if len(values) == 1 and shape != [1]:
        values = np.broadcast_to(values, shape)
    return values.reshape(shape)


def _encode_varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _encode_varint(rest) if rest else bytes([low])


def _decode_varints(message: bytes) -> Iterator[int]:
    offset = 0
    while offset < len(message):
        number, offset = _decode_varint(message, offset)
        yield number


def _decode_varint(message: bytes, offset: int) -> tuple[int, int]:
    """Returns the number at an offset, and the offset of what follows it."""
    number = shift = 0
    while True:
        octet = message[offset]
        offset, number, shift = offset + 1, number | (octet & 0x7F) << shift, shift + 7
        if not octet & 0x80:
            return number, offset


def _decode_fields(message: bytes) -> dict[int, list]:
    """Decodes a message into the values of its fields, bytes or integers, by field number."""
    fields: dict[int, list] = {}
    offset = 0
    while offset < len(message):
        tag, offset = _decode_varint(message, offset)
        value: int | bytes
        if tag & 7 == _VARINT:
            value, offset = _decode_varint(message, offset)
        elif tag & 7 in (_LENGTH_DELIMITED, _FIXED32, _FIXED64):
            size = {_FIXED32: 4, _FIXED64: 8}.get(tag & 7)
            if size is None:
                size, offset = _decode_varint(message, offset)
            value, offset = message[offset : offset + size], offset + size
            if offset > len(message):
                raise ValueError("a field extends beyond the end of its message")
        else:
            raise ValueError(f"a field of unknown wire type {tag & 7}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields
