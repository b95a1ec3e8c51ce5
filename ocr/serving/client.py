"""Asks a server to read image files: `ocr_serve`, or TensorFlow Serving. It imports no TensorFlow."""

import json
from collections.abc import Sequence

import grpc
import numpy as np

from ocr.serving import wire
from tfrecords.errors import InputError, IntegrityError

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
# What may be asked again, since reading changes nothing: a server that is not there for a moment, or has too much to do.
_RETRIED = ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
_ANSWER = {"text": "O", "confidence": "f", "status": "i"}  # kinds of arrays
_ATTEMPTS = 5  # the most that gRPC makes


class Client:
    """Reads image files over gRPC.

    Args:
      address: `HOST:PORT`.
      timeout_s: for each request, further attempts included.
      max_batch: images of a request.
      max_bytes: of a request's images, and of an answer; a server has limits too.
      model: its name.
      authority: PEM file with the certificate that the server's is signed by, or nothing to talk unencrypted.

    Raises:
      InputError: the file cannot be read.
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
            "maxAttempts": _ATTEMPTS,
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
            try:
                with open(authority, "rb") as file:
                    certificate = file.read()
            except OSError as error:
                raise InputError(f"{authority}: {error.strerror}") from error
            if b"-----BEGIN CERTIFICATE-----" not in certificate:
                raise InputError(f"{authority}: no certificate in PEM")
            credentials = grpc.ssl_channel_credentials(certificate)
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._predict = self._channel.unary_unary(_PREDICT)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def __call__(self, encoded: Sequence[bytes]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Reads image files.

        Args:
          encoded: as they are on disk; as many as there are, in requests of as many as are taken.

        Returns:
          Their texts, confidences float32[B] and statuses int32[B].

        Raises:
          InputError: the server cannot be reached, or does not take the request.
          IntegrityError: it fails, or its answer is none.
        """
        texts: list[str] = []
        confidences, statuses = [np.zeros(0, np.float32)], [np.zeros(0, np.int32)]
        for some in self._requests(encoded):
            outputs = self.ask("serving_default", {"image_bytes": some})
            kinds = {name: (value.dtype.kind, value.shape) for name, value in outputs.items()}
            if any(kinds.get(name) != (kind, (len(some),)) for name, kind in _ANSWER.items()):
                raise IntegrityError(f"--server={self._address}: no texts, confidences and statuses for {len(some)} images")
            try:
                texts += [text.decode() for text in outputs["text"]]
            except UnicodeDecodeError as error:
                raise IntegrityError(f"--server={self._address}: a text that is not UTF-8") from error
            confidences.append(outputs["confidence"])
            statuses.append(outputs["status"])
        return texts, np.concatenate(confidences), np.concatenate(statuses)

    def ask(self, signature: str, inputs: dict) -> dict[str, np.ndarray]:
        """Sends one request.

        Args:
          signature: of the model.
          inputs: of the signature, by name: lists of bytes, or arrays.

        Returns:
          The signature's outputs by name; texts are bytes, UTF-8.

        Raises:
          InputError, IntegrityError: as above.
        """
        try:
            return wire.response(self._predict(wire.request(self._model, signature, inputs), timeout=self._timeout_s))
        except grpc.RpcError as error:
            message = f"--server={self._address}: {error.code().name}: {error.details()}"
            failed = error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
            raise (IntegrityError if failed else InputError)(message) from error
        except ValueError as error:
            raise IntegrityError(f"--server={self._address}: an answer that is none ({error})") from error

    def _requests(self, encoded: Sequence[bytes]) -> list[list[bytes]]:
        """Divides images into requests, none too large."""
        requests: list[list[bytes]] = []
        size = 0
        for image in encoded:
            if not requests or len(requests[-1]) == self._max_batch or size + len(image) > self._max_bytes:
                requests.append([])
                size = 0
            requests[-1].append(image)
            size += len(image)
        return requests
