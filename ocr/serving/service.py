"""What the server does with a request from either interface: validates it, has it read, counts it."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import grpc
import numpy as np
import tensorflow as tf

from ocr.images import header
from ocr.serving import background, wire
from ocr.serving.batcher import READ_ERRORS, Batcher, OverloadedError
from ocr.serving.server_metrics import Metrics
from ocr.serving.versions import Version, Versions, list_numbers
from tfrecords import errors

# A message may quote the client's own words, and gRPC carries messages of a few thousand bytes only.
_MAX_MESSAGE_LENGTH = 300


class RequestError(Exception):
    """A request that cannot be answered.

    Attributes:
      code: Why, as a gRPC status code.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message if len(message) <= _MAX_MESSAGE_LENGTH else f"{message[:_MAX_MESSAGE_LENGTH]} …")
        self.code = code


def invalid_argument(message: str) -> RequestError:
    """Returns the error of a request that is malformed."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


class ModelRequest(NamedTuple):
    """The model, version and signature that a request names.

    Attributes:
      name: Name of the model.
      version: Version number, or None for the newest.
      label: Label of the version, or "".
      signature: Name of the signature, or "" for `serving_default`.
    """

    name: str
    version: int | None = None
    label: str = ""
    signature: str = ""


class Signature(NamedTuple):
    """A signature that a request is for.

    Attributes:
      version: The version that answers, also if it is unloaded meanwhile.
      name: Name of the signature.
      inputs: What it takes, by name.
    """

    version: Version
    name: str
    inputs: dict[str, tf.TensorSpec]


class Service:
    """Answers requests.

    Args:
      versions: Of the model.
      max_batch: Lines that are read together.
      max_waiting: Lines that may wait; requests beyond that are refused.
      max_bytes: Total size of the inputs that may wait; likewise.
      max_lines: Lines of a request.
      model_name: Name of the model.
      labels: Version numbers by their labels.

    Attributes:
      versions: As given.
      model_name: Likewise.
      metrics: Counts requests and lines.
      failures: Logs what fails unexpectedly.
      draining: Whether the server is shutting down and refuses new requests.
    """

    def __init__(
        self,
        versions: Versions,
        max_batch: int,
        max_waiting: int,
        max_bytes: int,
        max_lines: int,
        model_name: str = wire.MODEL,
        labels: Mapping[str, int] | None = None,
    ):
        self.versions, self.model_name, self._labels = versions, model_name, labels or {}
        self.draining = False
        self.failures = background.FailureLog()
        self._batcher = Batcher(max_batch, max_waiting, max_bytes)
        self._max_lines = max_lines
        self.metrics = Metrics(versions, lambda: self._batcher.waiting)

    async def run(self, poll_s: float) -> None:
        """Reads requests, and looks for new versions every `poll_s` seconds, until cancelled, whatever fails."""
        watch = functools.partial(self.versions.watch, poll_s)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(background.keep_running("reading", self._batcher.run, self.failures))
            tasks.create_task(background.keep_running("looking for new versions", watch, self.failures))

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Counts and times the request that is answered in this context, by the status it ends with."""
        begun = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            yield
        except RequestError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except BaseException:
            code = grpc.StatusCode.UNKNOWN
            raise
        finally:
            self.metrics.count_request(code.name, time.perf_counter() - begun)

    def find_version(self, model: ModelRequest) -> Version:
        """Returns the version that a request names.

        Raises:
          RequestError: It is not served.
        """
        number, served = self.version_number(model), self.versions.served
        if number is None:
            return self.versions.current
        if number not in served:
            raise self.not_served(model)
        return served[number]

    def version_number(self, model: ModelRequest) -> int | None:
        """Returns the version number that a request names itself or by a label; None for the newest.

        Raises:
          RequestError: There is no such model or label.
        """
        if model.name != self.model_name or (model.label and model.label not in self._labels):
            raise self.not_served(model)
        return self._labels[model.label] if model.label else model.version

    def not_served(self, model: ModelRequest) -> RequestError:
        """Returns the error of a request for what is not served."""
        named = f"model {model.name!r}"
        named += f", version {model.version}," if model.version is not None else ""
        named += f", label {model.label!r}," if model.label else ""
        named += f" which is version {self._labels[model.label]}," if model.label in self._labels else ""
        numbers = self.versions.served.keys()
        served = f"version{'s' * (len(numbers) > 1)} {list_numbers(numbers)} of {self.model_name!r}"
        return RequestError(grpc.StatusCode.NOT_FOUND, f"{named} is not served; {served} {'are' if len(numbers) > 1 else 'is'}")

    def find_signature(self, model: ModelRequest) -> Signature:
        """Returns the signature that a request names.

        Raises:
          RequestError: There is no such signature, or the version is not served.
        """
        version = self.find_version(model)
        signatures = version.export.signatures
        if (name := model.signature or "serving_default") not in signatures:
            raise invalid_argument(f"signature {name!r}: the model has {', '.join(signatures)}")
        return Signature(version, name, signatures[name].structured_input_signature[1])

    def check_shapes(self, signature: Signature, shapes: dict[str, tuple[int, ...]]) -> None:
        """Validates the names and shapes of inputs, and their size, before they are decoded.

        Raises:
          RequestError: They are not what the signature takes, or too large.
        """
        specs = signature.inputs
        if shapes.keys() != specs.keys():
            raise invalid_argument(f"the inputs are {', '.join(shapes) or 'none'}; they must be {', '.join(specs)}")
        for name, shape in shapes.items():
            if min(shape, default=0) < 0 or not specs[name].shape.is_compatible_with(shape):
                raise invalid_argument(f"{name}: shape {list(shape)} is not {specs[name].shape}")
            if name == "pixels" and shape[2] > (max_width := header.max_width(shape[1])):
                raise invalid_argument(f"pixels: lines are at most {max_width} pixels wide")
        lines = {shape[0] for shape in shapes.values()}
        if len(lines) > 1:
            raise invalid_argument(f"the inputs have {' and '.join(map(str, sorted(lines)))} rows")
        self.check_line_count(max(lines))

    def check_line_count(self, count: int) -> None:
        """Makes sure that a request has no more lines than allowed.

        Raises:
          RequestError: It has.
        """
        if count > self._max_lines:
            raise invalid_argument(f"{count} lines in a request; at most {self._max_lines} are allowed")

    async def predict(
        self, signature: Signature, inputs: dict[str, np.ndarray], timeout_s: float | None
    ) -> dict[str, np.ndarray]:
        """Reads lines.

        Args:
          signature: Reads them.
          inputs: By name; their shapes have passed `check_shapes`.
          timeout_s: How long the client waits; None if it does not say.

        Returns:
          The signature's outputs by name.

        Raises:
          RequestError: They were not read.
        """
        outputs = await self._read(signature, inputs, timeout_s)
        self.metrics.count_lines(signature.version.number, outputs["status"], outputs["confidence"])
        return outputs

    async def _read(
        self, signature: Signature, inputs: dict[str, np.ndarray], timeout_s: float | None
    ) -> dict[str, np.ndarray]:
        specs = signature.inputs
        for name, value in inputs.items():
            if value.dtype != specs[name].dtype.as_numpy_dtype:
                raise invalid_argument(f"{name}: {value.dtype} is not {specs[name].dtype.name}")
        if self.draining:
            raise RequestError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._batcher.read(signature.version, signature.name, inputs)
        except TimeoutError:
            raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "not read before the deadline") from None
        except OverloadedError as error:
            raise RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from None
        except Exception as error:
            if not isinstance(error, READ_ERRORS):
                self.failures.add("reading a request", error)
            raise RequestError(grpc.StatusCode.INTERNAL, errors.first_line(error)) from error
