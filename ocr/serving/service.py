"""What a server does with a request, whichever way it came: check it, have it read, count it."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import numpy as np
import prometheus_client
import tensorflow as tf

from ocr.images import header
from ocr.serving import wire
from ocr.serving.batcher import Batcher, Overloaded
from ocr.serving.versions import Version, Versions

_LONGEST = 300  # characters of a message: a client's own words may be in it, and gRPC sends no more than a few thousand bytes


class RequestError(Exception):
    """A request that gets no answer.

    Attributes:
      code: why, in gRPC's terms.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_LONGEST]} …")
        self.code = code


class ModelRequest(NamedTuple):
    """Which model a request asks, and how.

    Attributes:
      name: of the model.
      version: of it, or None for the newest.
      label: of the version, or nothing.
      signature: or nothing for `serving_default`.
    """

    name: str
    version: int | None = None
    label: str = ""
    signature: str = ""


class Service:
    """Answers requests.

    Args:
      versions: of the model.
      max_batch: lines read together.
      max_waiting: lines that may wait; others are refused.
      max_bytes: likewise.
      max_lines: of a request.

    Attributes:
      versions: as given.
      registry: of the metrics.
      draining: whether no new request is taken, for the server is about to end.
    """

    def __init__(self, versions: Versions, max_batch: int, max_waiting: int, max_bytes: int, max_lines: int):
        self.versions = versions
        self.draining = False
        self._batcher = Batcher(versions, max_batch, max_waiting, max_bytes)
        self._max_lines = max_lines
        self.registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter("ocr_requests", "Requests.", ["code"], registry=self.registry)
        self._lines = prometheus_client.Counter("ocr_lines", "Lines read, by their status.", ["status"], registry=self.registry)
        self._seconds = prometheus_client.Histogram(
            "ocr_request_seconds", "From a request to its answer.", registry=self.registry
        )
        waiting = prometheus_client.Gauge("ocr_waiting_lines", "Lines that wait to be read.", registry=self.registry)
        waiting.set_function(lambda: self._batcher.waiting)
        version = prometheus_client.Gauge("ocr_version", "The version that is served.", registry=self.registry)
        version.set_function(lambda: versions.newest.number)

    async def run(self, every_s: float) -> None:
        """Reads what comes, and looks for new versions, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._batcher.run())
            tasks.create_task(self.versions.watch(every_s))

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Counts and times a request, which is answered within, by how it ends."""
        begun = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            yield
        except RequestError as refused:
            code = refused.code
            raise
        except BaseException:
            code = grpc.StatusCode.UNKNOWN
            raise
        finally:
            self._requests.labels(code.name).inc()
            self._seconds.observe(time.perf_counter() - begun)

    def find(self, asked: ModelRequest) -> Version:
        """Returns the version that is asked for.

        Raises:
          Refused: it is not served.
        """
        newest = self.versions.newest
        if asked.name != wire.MODEL or asked.label or asked.version not in (None, newest.number):
            what = f"model {asked.name!r}"
            what += f", version {asked.version}," if asked.version is not None else ""
            what += f", label {asked.label!r}," if asked.label else ""
            served = f"version {newest.number} of {wire.MODEL!r} is"
            raise RequestError(grpc.StatusCode.NOT_FOUND, f"{what} is not served; {served}")
        return newest

    def signature(self, asked: ModelRequest) -> dict[str, tf.TensorSpec]:
        """Returns the inputs that a signature takes, by name.

        Raises:
          Refused: there is no such signature, or the version is not served.
        """
        signatures = self.find(asked).export.signatures
        if (name := asked.signature or "serving_default") not in signatures:
            has = ", ".join(signatures)
            raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, f"signature {name!r}: the model has {has}")
        return signatures[name].structured_input_signature[1]

    def check_sizes(self, asked: ModelRequest, shapes: dict[str, tuple[int, ...]]) -> None:
        """Makes sure that inputs are those of the signature, and neither too many nor too large, before they are unfolded.

        Raises:
          Refused: they are not.
        """
        wanted = self.signature(asked)
        if shapes.keys() != wanted.keys():
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the inputs are {', '.join(shapes) or 'none'}; they must be {', '.join(wanted)}",
            )
        for name, shape in shapes.items():
            if min(shape, default=0) < 0 or not wanted[name].shape.is_compatible_with(shape):
                raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: shape {list(shape)} is not {wanted[name].shape}")
            if name == "pixels" and shape[2] > header.MAX_WIDTH:
                raise RequestError(
                    grpc.StatusCode.INVALID_ARGUMENT, f"pixels: lines are at most {header.MAX_WIDTH} pixels wide"
                )
        lines = {shape[0] for shape in shapes.values()}
        if len(lines) > 1:
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT, f"the inputs have {' and '.join(map(str, sorted(lines)))} rows"
            )
        self.check_lines(max(lines))

    def check_lines(self, count: int) -> None:
        """Makes sure that a request has no more lines than are taken.

        Raises:
          Refused: it has.
        """
        if count > self._max_lines:
            told = f"{count} lines in a request; at most {self._max_lines} are taken"
            raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, told)

    async def predict(
        self, asked: ModelRequest, inputs: dict[str, np.ndarray], timeout_s: float | None
    ) -> tuple[Version, dict[str, np.ndarray]]:
        """Reads lines.

        Args:
          asked: the model and its signature.
          inputs: that `check_sizes` has passed.
          timeout_s: how long the client waits, if it says so.

        Returns:
          The version that read them, and the signature's outputs by name.

        Raises:
          Refused: it was not read.
        """
        version, outputs = await self._read(asked, inputs, timeout_s)
        for status, count in zip(*np.unique(outputs["status"], return_counts=True), strict=True):
            self._lines.labels(str(status)).inc(count)
        return version, outputs

    async def _read(
        self, asked: ModelRequest, inputs: dict[str, np.ndarray], timeout_s: float | None
    ) -> tuple[Version, dict[str, np.ndarray]]:
        wanted = self.signature(asked)
        for name, value in inputs.items():
            if value.dtype != wanted[name].dtype.as_numpy_dtype:
                raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: {value.dtype} is not {wanted[name].dtype.name}")
        if self.draining:
            raise RequestError(grpc.StatusCode.UNAVAILABLE, "the server is about to end")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._batcher.read(asked.signature or "serving_default", inputs)
        except TimeoutError:
            raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "not read before the deadline") from None
        except Overloaded as error:
            raise RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from None
        except (tf.errors.OpError, ValueError, LookupError, MemoryError) as error:
            raise RequestError(grpc.StatusCode.INTERNAL, (str(error) or "out of memory").splitlines()[0]) from error
