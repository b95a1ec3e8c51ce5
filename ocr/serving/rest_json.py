"""The JSON bodies of TensorFlow Serving's Predict over REST: https://www.tensorflow.org/tfx/serving/api_rest.

A request has its inputs row by row (`instances`) or by name (`inputs`), and is answered in the same form (`predictions` or
`outputs`). Bytes are `{"b64": "…"}`.
"""

import base64
import json
from typing import Any

import numpy as np

from ocr.images import header
from ocr.serving.service import ModelRequest, Service, Signature, invalid_argument

_DATA_URL = "data:"  # how a browser begins base64
_BEGINNING = 4 * 16  # characters of base64 that tell an image's kind
_SHORTEST_IMAGE = 32  # characters of base64


def parse_request(model: ModelRequest, body: bytes, service: Service) -> tuple[Signature, dict[str, np.ndarray], bool]:
    """Parses the body of a request.

    Args:
      model: What the URL names.
      body: JSON.
      service: Knows the model's signatures, and the limits.

    Returns:
      The signature that the body names, the inputs by name, and whether they came row by row.

    Raises:
      RequestError: The body is malformed or too large, or the model is not served.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict) or ("instances" in fields) == ("inputs" in fields):
        raise invalid_argument("the body must be an object with either instances or inputs")
    name = fields.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument("signature_name must be a string")
    signature = service.find_signature(model._replace(signature=name))
    specs = signature.inputs
    if isinstance(fields.get("instances"), list):
        service.check_line_count(len(fields["instances"]))  # before anything is allocated for each
    columns = _columns(fields["instances"], list(specs)) if "instances" in fields else fields["inputs"]
    if not isinstance(columns, dict) or "b64" in columns:
        if len(specs) > 1:
            raise invalid_argument(f"inputs must be an object with {', '.join(specs)}")
        columns = dict.fromkeys(specs, columns)
    inputs = {}
    for name, values in columns.items():
        if not isinstance(values, list):
            raise invalid_argument(f"{name}: not a list")
        if name == "image_bytes":
            inputs[name] = np.empty(len(values), object)
            inputs[name][:] = [_to_bytes(value) for value in values]
        elif name in specs and specs[name].dtype.name == "string":
            inputs[name] = _to_texts(name, values, specs[name].shape.rank)
        elif name in specs:
            inputs[name] = _to_array(name, values, specs[name].dtype.as_numpy_dtype)
    service.check_shapes(signature, {name: inputs[name].shape if name in inputs else () for name in columns})
    return signature, inputs, "instances" in fields


def parse_correction(body: bytes) -> tuple[bytes, str]:
    """Returns the image file and the text of a correction: `{"image_bytes": {"b64": "…"}, "text": "…"}`.

    Raises:
      RequestError: The body is malformed.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.keys() != {"image_bytes", "text"} or not isinstance(fields["text"], str):
        raise invalid_argument("the body must be an object with image_bytes and text, a string")
    return _to_bytes(fields["image_bytes"]), fields["text"]


def format_outputs(outputs: dict[str, np.ndarray], rows: bool) -> dict[str, Any]:
    """Returns what a response's body holds.

    Args:
      outputs: By name, with the same first dimension.
      rows: Whether the answer goes row by row.
    """
    columns = {name: _to_json(value.tolist()) for name, value in outputs.items()}
    if not rows:
        return {"outputs": columns}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _columns(instances: Any, names: list[str]) -> dict[str, list]:
    """Returns by name the inputs that came row by row: as objects, or bare if there is only one input."""
    if not isinstance(instances, list):
        raise invalid_argument("instances: not a list")
    if len(names) == 1 and not all(isinstance(row, dict) and names[0] in row for row in instances):
        instances = [{names[0]: row} for row in instances]
    if not all(isinstance(row, dict) and sorted(row) == sorted(names) for row in instances):
        raise invalid_argument(f"instances: each must be an object with {', '.join(names)}")
    return {name: [row[name] for row in instances] for name in names}


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        if value.startswith(_DATA_URL) or _is_image_in_base64(value):
            raise invalid_argument(
                'image_bytes: a string is taken as it is; send base64 as {"b64": "…"}, without a data: prefix'
            )
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return _decode_base64(value["b64"])
        except ValueError as error:
            hint = "; leave out the prefix data:…;base64," if value["b64"].startswith(_DATA_URL) else ""
            raise invalid_argument(f"b64: {error}{hint}") from error
    raise invalid_argument('image_bytes: each must be {"b64": "…"}')


def _decode_base64(text: str) -> bytes:
    """Decodes base64 as TensorFlow Serving does: in lines or in one, and with or without padding.

    A space within a line, which that would skip, is refused: it is what a form makes of a plus sign.

    Raises:
      ValueError: It is not base64.
    """
    encoded = "".join(line.strip() for line in text.splitlines()).encode()
    if not encoded.endswith(b"="):
        encoded += b"=" * (-len(encoded) % 4)
    return base64.b64decode(encoded, validate=True)


def _is_image_in_base64(text: str) -> bool:
    """Returns whether a string looks like an image file in base64, by its first bytes."""
    try:
        return len(text) >= _SHORTEST_IMAGE and header.read(_decode_base64(text[:_BEGINNING])) is not None
    except ValueError:
        return False


def _to_texts(name: str, values: list, rank: int) -> np.ndarray:
    """Returns strings, or lists of as many strings each, as an array of UTF-8."""
    rows = values if rank == 2 else [[value] for value in values]
    if not all(isinstance(row, list) and all(isinstance(text, str) for text in row) for row in rows):
        raise invalid_argument(f"{name}: must be a list of {'lists of ' * (rank == 2)}strings")
    lengths = set(map(len, rows))
    if len(lengths) > 1:
        raise invalid_argument(f"{name}: rows of different lengths; fill them up with empty strings, which count leaves out")
    array = np.empty((len(rows), max(lengths, default=0)), object)
    array.ravel()[:] = [text.encode("utf-8", "surrogatepass") for row in rows for text in row]
    return array if rank == 2 else array.reshape(len(rows))


def _to_array(name: str, values: list, dtype: type) -> np.ndarray:
    """Returns integers as an array, making sure that none is out of the type's range."""
    try:
        array = np.array(values)
    except ValueError as error:
        raise invalid_argument(f"{name}: rows of different shapes") from error
    if array.size and (array.dtype.kind not in "iu" or (array.astype(dtype) != array).any()):
        raise invalid_argument(f"{name}: has values that are not {np.dtype(dtype).name}")
    return array.astype(dtype)


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
