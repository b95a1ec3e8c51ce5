"""Where a training runs: one device, several devices of a machine, or several machines."""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from ocr import keras_compat
from tfrecords.errors import InputError

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that take the steps of a training together.

    Attributes:
      strategy: networks are created in its scope.
      worker: number of this process, from 0; worker 0 writes for all.
      workers: number of processes.
    """

    strategy: tf.distribute.Strategy
    worker: int = 0
    workers: int = 1

    @property
    def replicas(self) -> int:
        """Number of devices, in all processes."""
        return self.strategy.num_replicas_in_sync

    @property
    def local_replicas(self) -> int:
        """Number of devices of this process."""
        return self.replicas // self.workers

    def run(self, work: Callable[..., tuple[tf.Tensor, ...]], *arguments: Any) -> tuple[tf.Tensor, ...]:
        """Runs a function on all devices; returns the result of the first one of this process."""
        if self.replicas == 1:
            return work(*arguments)
        results = self.strategy.run(work, args=arguments)
        return tuple(self.strategy.experimental_local_results(result)[0] for result in results)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes for all workers."""
        return self.worker == 0

    def log_prefix(self, text: str) -> str:
        """Returns a text with the number of this worker in front, if there are several."""
        return text if self.workers == 1 else f"worker {self.worker}: {text}"

    def total(self, *numbers: float) -> list[float]:
        """Returns the sum of each number over all workers; every worker has to call it."""
        if self.workers == 1:
            return list(numbers)
        return (self._total(tf.constant(numbers, tf.float64)) / self.local_replicas).numpy().tolist()

    @functools.cached_property
    def _total(self) -> Callable[[tf.Tensor], tf.Tensor]:
        def add(numbers: tf.Tensor) -> tuple[tf.Tensor]:
            numbers = tf.identity(numbers)  # on a device of this worker
            return (tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, numbers),)

        return tf.function(lambda numbers: self.run(add, numbers)[0], autograph=False)

    def differing(self, values: Mapping[str, Any]) -> list[str]:
        """Returns the names of the values that differ between workers; every worker has to call it with the same names."""
        digests = [hashlib.sha256(repr(value).encode()).digest()[:4] for value in values.values()]
        own = [int.from_bytes(digest, "big") for digest in digests]  # small enough for exact sums
        sums = self.total(*map(float, own))
        return [name for name, number, total in zip(values, own, sums, strict=True) if total != number * self.workers]


def find(strategy: str = "auto", replicas: int = 0) -> Devices:
    """Finds the devices to train on.

    For several workers, or several logical CPU devices, it has to be called before TensorFlow is used.

    Args:
      strategy: `one`: one device; `mirrored`: GPUs of this machine; `multiworker`: the machines named by the environment's
        TF_CONFIG; `auto`: `multiworker` if TF_CONFIG names several, else `mirrored` if there are several devices, else `one`.
      replicas: number of devices, 0 for all. Without a GPU the CPU is split into as many logical devices.

    Raises:
      InputError: there are fewer devices, or TF_CONFIG is invalid.
    """
    cluster = _cluster() if strategy in ("auto", "multiworker") else None
    if strategy == "multiworker" and not cluster:
        raise InputError("--strategy=multiworker: the environment's TF_CONFIG must name the workers")
    if cluster:
        if replicas:
            raise InputError(f"--replicas={replicas}: several workers always use all their devices")
        return _join(*cluster)
    if strategy == "one" and replicas > 1:
        raise InputError(f"--replicas={replicas}: --strategy=one uses one device")
    gpus = len(tf.config.list_physical_devices("GPU"))  # without initialising them
    if strategy == "one" or (strategy == "auto" and (replicas or gpus) <= 1):
        return Devices(tf.distribute.get_strategy())
    if gpus and gpus < replicas:
        raise InputError(f"--replicas={replicas}: there are {gpus} GPUs")
    used = tf.config.list_logical_devices("GPU")[: replicas or None] if gpus else _logical_cpus(replicas or 1)
    if len(used) == 1:
        return Devices(tf.distribute.get_strategy())
    reduction = None if gpus else tf.distribute.ReductionToOneDevice()  # one processor needs no communication
    return Devices(tf.distribute.MirroredStrategy([device.name for device in used], cross_device_ops=reduction))


def _logical_cpus(count: int) -> list[tf.config.LogicalDevice]:
    """Splits the CPU into at least this many logical devices; returns this many."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) < count:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError as error:
            raise InputError(f"--replicas={count}: TensorFlow is already in use, with fewer CPU devices") from error
    return tf.config.list_logical_devices("CPU")[:count]


def _join(worker: int, workers: int) -> Devices:
    """Connects to the other workers.

    Raises:
      InputError: this version of Keras cannot.
    """
    keras_compat.check_workers()
    _LOG.info("worker %d of %d: waiting for the others in TF_CONFIG", worker, workers)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # TensorFlow installs a handler of its own for SIGTERM
            signal.signal(number, handler)
    return Devices(strategy, worker, workers)


def _cluster() -> tuple[int, int] | None:
    """Returns the number of this worker and how many there are, from TF_CONFIG; None if there is only one task, of any type.

    Raises:
      InputError: TF_CONFIG is invalid, or has several tasks that are not all workers.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return None
    try:
        config = json.loads(text)
        cluster = {kind: tasks for kind, tasks in (config.get("cluster") or {}).items() if tasks}
        if not all(isinstance(tasks, list) for tasks in cluster.values()):
            raise ValueError("each type of task must be a list of HOST:PORT")
        if sum(map(len, cluster.values())) < 2:
            return None
        task = config["task"]
        if cluster.keys() != {"worker"} or task["type"] != "worker":
            raise ValueError("where there are several tasks, all must be workers")
        workers, worker = cluster["worker"], task["index"]
        if not all(re.fullmatch(r"[^\s:]+:\d+", str(address)) for address in workers):
            raise ValueError("cluster.worker must be a list of HOST:PORT")
        if len(set(workers)) < len(workers) or type(worker) is not int or not 0 <= worker < len(workers):
            raise ValueError("its workers must differ, and task.index must be the index of one of them")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"TF_CONFIG={text:.200}: {type(error).__name__}: {error}") from error
    return worker, len(workers)
