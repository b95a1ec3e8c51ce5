"""A client of `ocr_serve` or TensorFlow Serving that reads image files over gRPC. Importing it loads no TensorFlow."""

import json
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence

import grpc
import numpy as np

from ocr.serving import questions, wire
from ocr.serving.questions import Score
from tfrecords.errors import InputError, IntegrityError

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
# Retried, since reading changes nothing: the server is briefly unreachable, or overloaded.
_RETRIED = ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
_EXAMPLE = "localhost:8500"
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)
_HOST_AND_PORT = re.compile(r"(\[[^\]\s]+\]|[^:/\[\]\s]+):([0-9]{1,5})")
_GRPC_NAME = re.compile(r"(unix|unix-abstract|vsock|dns|ipv4|ipv6|xds):.")  # gRPC's other forms of addresses
_OTHER_PROTOCOL = re.compile(r"HTTP/2|SETTINGS|http1|HTTP status|Socket closed|Connection reset|Broken pipe", re.I)
_PROXIES, _EXCEPTIONS = ("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy")  # in gRPC's order
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
      InputError: The address is not one, or the certificate file cannot be read or holds no certificate.
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
        _check_address(address)
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
        self._encrypted = bool(authority)
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

    def score(self, encoded: Sequence[bytes], texts: Sequence[Sequence[str]]) -> list[Score]:
        """Tells how probable given texts are.

        Args:
          encoded: B image files as they are on disk.
          texts: The texts of each of them, at most 1,000.

        Returns:
          B scores.

        Raises:
          InputError: Texts are too many or too long, or the server cannot be reached, refuses the request or has no such
            signature.
          IntegrityError: The server fails, or its response is invalid.
        """
        return questions.score(self.predict, self._batches, encoded, texts)

    def constrained(
        self, encoded: Sequence[bytes], allowed: str = "", pattern: str = ""
    ) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Reads image files of which something is known.

        Args:
          encoded: B image files as they are on disk.
          allowed: The characters that may occur; empty for all.
          pattern: Which texts are possible, such as `9999-99-99` or `date`; empty for all.

        Returns:
          Their B texts; the confidences, given that the text is possible, float32[B]; those without that knowledge,
          float32[B]; and statuses int32[B].

        Raises:
          InputError: `allowed` or `pattern` breaks a rule; or as in `score`.
          IntegrityError: Likewise.
        """
        return questions.constrained(self.predict, self._batches, encoded, allowed, pattern)

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
            hint = _hint(self._address, error.details() or "", self._encrypted) if error.code() in _UNREACHABLE else ""
            message = f"--server={self._address}: {error.code().name}: {error.details()}{hint}"
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


def _check_address(address: str) -> None:
    scheme, separator, rest = address.partition("://")
    if separator and scheme.lower() in ("http", "https", "grpc", "grpcs", "tcp"):
        raise InputError(
            f"--server={address}: must be HOST:PORT, without {scheme}://, such as {rest.split('/')[0] or _EXAMPLE}"
        )
    match = _HOST_AND_PORT.fullmatch(address)
    if not (_GRPC_NAME.match(address) or (match and 0 < int(match[2]) < 2**16)):
        raise InputError(f"--server={address}: must be HOST:PORT, such as {_EXAMPLE}")


def _hint(address: str, details: str, encrypted: bool) -> str:
    """Returns what may be wrong if a server cannot be reached."""
    hints = []
    if proxy := _proxy(address):
        host = address.rpartition(":")[0].strip("[]")
        hints.append(f"the connection goes through the proxy {proxy}; no_proxy={host} in the environment connects directly")
    if encrypted and re.search("ssl|tls|handshake", details, re.I):
        hints.append("does the server use TLS (else leave out --tls_ca), and is it for this host name?")
    elif not encrypted and _OTHER_PROTOCOL.search(details):
        hints.append("is this gRPC's port (8500), not that of REST (8501), and does it use no TLS (else give --tls_ca)?")
    return "".join(f"; {hint}" for hint in hints)


def _proxy(address: str) -> str:
    """Returns the proxy that gRPC takes for an address, without its password, and the variable that names it; or ""."""
    name = next((name for name in _PROXIES if os.environ.get(name)), "")
    exceptions = next((os.environ[name] for name in _EXCEPTIONS if os.environ.get(name)), "")
    host = address.rpartition(":")[0].strip("[]").lower()
    direct = any(host.endswith(suffix) for suffix in exceptions.lower().replace(" ", "").split(",") if suffix)
    if not name or direct or not _HOST_AND_PORT.fullmatch(address):
        return ""
    return (
        f"{urllib.parse.urlsplit(os.environ[name]).netloc.rpartition('@')[2] or os.environ[name].rpartition('@')[2]} of {name}"
    )


def _read_certificate(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            certificate = file.read()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if b"-----BEGIN CERTIFICATE-----" not in certificate:
        raise InputError(f"{path}: not a certificate in PEM format")
    return certificate
