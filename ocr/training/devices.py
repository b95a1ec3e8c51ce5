"""Where a training runs: on one device, on several of a machine, or on several machines."""

import dataclasses
import functools
import hashlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from ocr import keras_compat
from tfrecords.errors import InputError


@dataclasses.dataclass(frozen=True)
class Devices:
    """Those that take a training's steps together.

    Attributes:
      strategy: in whose scope networks are made.
      worker: number of this process, from 0; worker 0 writes for all of them.
      workers: how many processes there are.
    """

    strategy: tf.distribute.Strategy
    worker: int = 0
    workers: int = 1

    @property
    def replicas(self) -> int:
        """How many devices there are, in all processes."""
        return self.strategy.num_replicas_in_sync

    @property
    def local_replicas(self) -> int:
        """How many devices this process has."""
        return self.replicas // self.workers

    def run(self, work: Callable[..., tuple[tf.Tensor, ...]], *given: Any) -> tuple[tf.Tensor, ...]:
        """Has all devices do the same; returns what the first one here gives."""
        if self.replicas == 1:
            return work(*given)
        results = self.strategy.run(work, args=given)
        return tuple(self.strategy.experimental_local_results(result)[0] for result in results)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes for all."""
        return self.worker == 0

    def log_prefix(self, what: str) -> str:
        """Says whose a line of output is, where several workers write them."""
        return what if self.workers == 1 else f"worker {self.worker}: {what}"

    def total(self, *numbers: float) -> list[float]:
        """Adds up numbers over all workers, each for itself; every worker has to ask."""
        if self.workers == 1:
            return list(numbers)
        return (self._total(tf.constant(numbers, tf.float64)) / self.local_replicas).numpy().tolist()

    @functools.cached_property
    def _total(self) -> Callable[[tf.Tensor], tf.Tensor]:
        def add(numbers: tf.Tensor) -> tuple[tf.Tensor]:
            numbers = tf.identity(numbers)  # on a device of this worker's
            return (tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, numbers),)

        return tf.function(lambda numbers: self.run(add, numbers)[0])

    def differing(self, values: Mapping[str, Any]) -> list[str]:
        """Returns the names of the values that are not the same in all workers; each has to ask, for the same names."""
        digests = [hashlib.sha256(repr(value).encode()).digest()[:4] for value in values.values()]
        own = [int.from_bytes(digest, "big") for digest in digests]  # small enough for sums of them to be exact
        sums = self.total(*map(float, own))
        return [name for name, number, total in zip(values, own, sums, strict=True) if total != number * self.workers]


def find(strategy: str = "auto", replicas: int = 0) -> Devices:
    """Takes hold of devices. For several workers, or several logical CPU devices, that has to come before TensorFlow is used.

    Args:
      strategy: `one`; `mirrored`, all GPUs of the machine or as many as there are to be replicas; `multiworker`, the machines
        that the environment's TF_CONFIG names; or `auto`, the last of these that there is occasion for.
      replicas: how many devices to take; without a GPU so many logical devices are made of the CPU. 0: what there is.

    Raises:
      InputError: there are not so many, or TF_CONFIG is none.
    """
    cluster = _cluster()
    if strategy == "multiworker" and not cluster:
        raise InputError("--strategy=multiworker: the environment's TF_CONFIG has to name the workers")
    if cluster and strategy in ("auto", "multiworker"):
        if replicas:
            raise InputError(f"--replicas={replicas}: several workers take all devices that they have")
        return _join(*cluster)
    if strategy == "one" and replicas > 1:
        raise InputError(f"--replicas={replicas}: --strategy=one takes one device")
    gpus = len(tf.config.list_physical_devices("GPU"))  # without taking hold of them
    if strategy == "one" or (strategy == "auto" and (replicas or gpus) <= 1):
        return Devices(tf.distribute.get_strategy())
    if gpus and gpus < replicas:
        raise InputError(f"--replicas={replicas}: there are {gpus} GPUs")
    taken = tf.config.list_logical_devices("GPU")[: replicas or None] if gpus else _logical_cpus(replicas or 1)
    if len(taken) == 1:
        return Devices(tf.distribute.get_strategy())
    sums = None if gpus else tf.distribute.ReductionToOneDevice()  # one processor needs no communication
    return Devices(tf.distribute.MirroredStrategy([device.name for device in taken], cross_device_ops=sums))


def _logical_cpus(count: int) -> list[tf.config.LogicalDevice]:
    """Makes at least so many devices of the CPU."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) < count:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError as error:
            raise InputError(f"--replicas={count}: TensorFlow is in use already, with fewer CPU devices") from error
    return tf.config.list_logical_devices("CPU")[:count]


def _join(worker: int, workers: int) -> Devices:
    """Meets the other workers.

    Raises:
      InputError: this Keras cannot.
    """
    keras_compat.check_workers()
    print(f"worker {worker} of {workers}: waiting for the others that TF_CONFIG names", file=sys.stderr)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # TensorFlow takes SIGTERM for a sign to its own service
            signal.signal(number, handler)
    return Devices(strategy, worker, workers)


def _cluster() -> tuple[int, int] | None:
    """Returns the number of this worker and how many there are, as TF_CONFIG says; None where it names no other.

    Raises:
      InputError: TF_CONFIG is none, or names other kinds of tasks.
    """
    told = os.environ.get("TF_CONFIG", "")
    if not told:
        return None
    try:
        config = json.loads(told)
        kinds, workers, task = set(config["cluster"]), config["cluster"]["worker"], config["task"]
        worker = task["index"]
        if kinds != {"worker"} or task["type"] != "worker":
            raise ValueError("its tasks must be workers")
        if not isinstance(workers, list) or not all(re.fullmatch(r"[^\s:]+:\d+", str(address)) for address in workers):
            raise ValueError("cluster.worker must be a list of HOST:PORT")
        if len(set(workers)) < len(workers) or type(worker) is not int or not 0 <= worker < len(workers):
            raise ValueError("its workers must differ, and task.index be the place of this one among them")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"TF_CONFIG={told:.200}: {type(error).__name__}: {error}") from error
    return (worker, len(workers)) if len(workers) > 1 else None
