"""Dynamic batching: waiting requests are read together, since 32 lines at once take half the time of one by one."""

import asyncio
import collections
import concurrent.futures
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ocr.serving import warmup
from ocr.serving.versions import Version

# What running a signature may raise, all else is a bug; LookupError if a new version lacks the signature.
READ_ERRORS = (tf.errors.OpError, ValueError, LookupError, MemoryError)


class OverloadedError(Exception):
    """The queue is full."""


class _PendingRequest(NamedTuple):
    """A request in the queue.

    Attributes:
      version: Reads it.
      signature: Name of the signature to run.
      inputs: Its inputs by name.
      lines: First dimension of all inputs.
      size: Size of the inputs in bytes.
      result: The outputs by name.
    """

    version: Version
    signature: str
    inputs: dict[str, np.ndarray]
    lines: int
    size: int
    result: asyncio.Future


class Batcher:
    """Reads requests in the order of their arrival; those for the same signature of a version share a batch.

    That is if all inputs are strings, one a line; images and texts to score, or pixels, are a batch of their own.

    Args:
      max_batch: Lines of a batch; a request of more lines is a batch of its own.
      max_waiting: Lines that may wait.
      max_bytes: Total size of the inputs that may wait.

    Attributes:
      waiting: Number of lines that wait.
    """

    def __init__(self, max_batch: int, max_waiting: int, max_bytes: int):
        self._max_batch, self._max_waiting, self._max_bytes = max_batch, max_waiting, max_bytes
        self._queue: collections.deque[_PendingRequest] = collections.deque()
        self._arrival = asyncio.Event()
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "reader")
        self.waiting = self._waiting_bytes = 0

    async def read(self, version: Version, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Queues a request and waits for its outputs.

        Args:
          version: Reads it.
          signature: Name of the signature to run.
          inputs: Its inputs by name, with the same first dimension.

        Returns:
          The signature's outputs by name. They are padded to the longest text of this request, whatever else was in the batch.

        Raises:
          OverloadedError: Too many lines wait; the request is dropped.
        """
        lines = len(next(iter(inputs.values())))
        size = sum(_size_in_bytes(value) for value in inputs.values())
        full = self.waiting + lines > self._max_waiting or self._waiting_bytes + size > self._max_bytes
        if self._queue and full:
            raise OverloadedError(f"overloaded: {self.waiting} lines of {self._waiting_bytes} bytes are waiting; retry later")
        request = _PendingRequest(version, signature, inputs, lines, size, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self.waiting += lines
        self._waiting_bytes += size
        self._arrival.set()
        return await request.result

    async def run(self) -> None:
        """Reads batches until cancelled."""
        while True:
            await self._arrival.wait()
            if batch := self._next_batch():
                await self._read_batch(batch)
            else:
                self._arrival.clear()

    async def _read_batch(self, batch: list[_PendingRequest]) -> None:
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(self._executor, _read, batch)
        except Exception as error:  # noqa: BLE001 - those who wait are told, whatever it is
            for request in batch:
                if not request.result.done():
                    request.result.set_exception(error)
            return
        begin = 0
        for request in batch:
            if not request.result.done():
                request.result.set_result(_slice_rows(outputs, begin, begin + request.lines))
            begin += request.lines

    def _next_batch(self) -> list[_PendingRequest]:
        """Takes the next batch from the queue, skipping requests whose clients have left."""
        batch: list[_PendingRequest] = []
        lines = 0
        while self._queue:
            request = self._queue[0]
            cancelled = request.result.done()
            fits = not batch or (
                request.version is batch[0].version
                and request.signature == batch[0].signature
                and all(value.dtype == object and value.ndim == 1 for value in request.inputs.values())
                and lines + request.lines <= self._max_batch
            )
            if not cancelled and not fits:
                break
            self._queue.popleft()
            self.waiting -= request.lines
            self._waiting_bytes -= request.size
            if not cancelled:
                batch.append(request)
                lines += request.lines
        return batch


def _size_in_bytes(value: np.ndarray) -> int:
    return sum(map(len, value.ravel())) if value.dtype == object else value.nbytes


def _read(batch: list[_PendingRequest]) -> dict[str, np.ndarray]:
    inputs = {name: np.concatenate([request.inputs[name] for request in batch]) for name in batch[0].inputs}
    outputs = batch[0].version.export.signatures[batch[0].signature](**warmup.to_tensors(inputs))
    return {name: value.numpy() for name, value in outputs.items()}


def _slice_rows(outputs: dict[str, np.ndarray], begin: int, end: int) -> dict[str, np.ndarray]:
    """Returns one request's rows of a batch's outputs, without the padding that only other requests needed."""
    rows = {name: value[begin:end] for name, value in outputs.items()}
    if "chars" in rows:
        longest = int((rows["chars"] != b"").sum(axis=1).max(initial=0))
        rows = {name: value[:, :longest] if value.ndim == 2 else value for name, value in rows.items()}
    return rows
