"""A client of `ocr_serve` or TensorFlow Serving that reads image files over gRPC. Importing it loads no TensorFlow."""

import json
from collections.abc import Iterator, Mapping, Sequence

import grpc
import numpy as np

from ocr.serving import wire
from tfrecords.errors import InputError, IntegrityError

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
# Retried, since reading changes nothing: the server is briefly unreachable, or overloaded.
_RETRIED = ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
_MAX_ATTEMPTS = 5  # gRPC allows no more
_OUTPUTS = {"text": "O", "confidence": "f", "status": "i"}  # and NumPy's code of each array's type


class Client:
    """Reads image files over gRPC.

    Args:
      address: `HOST:PORT`.
      timeout_s: Time limit of a request, including its retries.
      max_batch: Images per request.
      max_bytes: Total size of a request's images, and size of a response; a server has limits too.
      model: Name of the model.
      authority: PEM file with the certificate that signed the server's; empty for an unencrypted connection.

    Raises:
      InputError: The certificate file cannot be read, or holds no certificate.
    """

    def __init__(
        self,
        address: str,
        timeout_s: float = 60.0,
        max_batch: int = 32,
        max_bytes: int = 48 * 2**20,
        model: str = wire.MODEL,
        authority: str = "",
    ):
        self._address, self._timeout_s, self._model = address, timeout_s, model
        self._max_batch, self._max_bytes = max_batch, max_bytes
        policy = {
            "maxAttempts": _MAX_ATTEMPTS,
            "initialBackoff": "0.2s",
            "maxBackoff": "5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": _RETRIED,
        }
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})),
        ]
        if authority:
            credentials = grpc.ssl_channel_credentials(_read_certificate(authority))
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._call = self._channel.unary_unary(_PREDICT)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def __call__(self, encoded: Sequence[bytes]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Reads image files.

        Args:
          encoded: B image files as they are on disk; sent in as many requests as the limits ask for.

        Returns:
          Their B texts, confidences float32[B] and statuses int32[B].

        Raises:
          InputError: The server cannot be reached, or refuses the request.
          IntegrityError: The server fails, or its response is invalid.
        """
        texts: list[str] = []
        confidences, statuses = [np.zeros(0, np.float32)], [np.zeros(0, np.int32)]
        for images in self._batches(encoded):
            outputs = self.predict("serving_default", {"image_bytes": images})
            kinds = {name: (value.dtype.kind, value.shape) for name, value in outputs.items()}
            if any(kinds.get(name) != (kind, (len(images),)) for name, kind in _OUTPUTS.items()):
                raise IntegrityError(
                    f"--server={self._address}: the response lacks texts, confidences and statuses of {len(images)} images"
                )
            try:
                texts += [text.decode() for text in outputs["text"]]
            except UnicodeDecodeError as error:
                raise IntegrityError(f"--server={self._address}: a text in the response is not UTF-8") from error
            confidences.append(outputs["confidence"])
            statuses.append(outputs["status"])
        return texts, np.concatenate(confidences), np.concatenate(statuses)

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray | Sequence[bytes]]) -> dict[str, np.ndarray]:
        """Sends one request.

        Args:
          signature: Name of the signature to run.
          inputs: The signature's inputs by name: lists of bytes, or arrays.

        Returns:
          The signature's outputs by name; texts are UTF-8 bytes.

        Raises:
          InputError: The server cannot be reached, or refuses the request.
          IntegrityError: The server fails, or its response is invalid.
        """
        try:
            request = wire.encode_request(self._model, signature, inputs)
            return wire.decode_response(self._call(request, timeout=self._timeout_s))
        except grpc.RpcError as error:
            message = f"--server={self._address}: {error.code().name}: {error.details()}"
            failed = error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
            raise (IntegrityError if failed else InputError)(message) from error
        except ValueError as error:
            raise IntegrityError(f"--server={self._address}: invalid response ({error})") from error

    def _batches(self, encoded: Sequence[bytes]) -> Iterator[list[bytes]]:
        """Yields the images in batches within the limits; an image over `max_bytes` is a batch of its own."""
        batch: list[bytes] = []
        size = 0
        for image in encoded:
            if batch and (len(batch) == self._max_batch or size + len(image) > self._max_bytes):
                yield batch
                batch, size = [], 0
            batch.append(image)
            size += len(image)
        if batch:
            yield batch


def _read_certificate(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            certificate = file.read()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if b"-----BEGIN CERTIFICATE-----" not in certificate:
        raise InputError(f"{path}: not a certificate in PEM format")
    return certificate
