"""Where a training runs: on one device, on several of a machine, or on several machines."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

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
    def here(self) -> int:
        """How many devices this process has."""
        return self.replicas // self.workers

    def run(self, work: Callable[..., tuple[tf.Tensor, ...]], *given: Any) -> tuple[tf.Tensor, ...]:
        """Has all devices do the same; returns what the first one here gives."""
        if self.replicas == 1:
            return work(*given)
        results = self.strategy.run(work, args=given)
        return tuple(self.strategy.experimental_local_results(result)[0] for result in results)

    @property
    def writes(self) -> bool:
        """Whether this process writes for all."""
        return self.worker == 0

    def total(self, number: float) -> float:
        """Adds up a number over all workers; each has to ask."""
        return number if self.workers == 1 else float(self._total(tf.constant(number, tf.float64))) / self.here

    @functools.cached_property
    def _total(self) -> Callable[[tf.Tensor], tf.Tensor]:
        def add(number: tf.Tensor) -> tuple[tf.Tensor]:
            number = tf.identity(number)  # on a device of this worker's
            return (tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, number),)

        return tf.function(lambda number: self.run(add, number)[0])


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
        worker, workers = cluster
        return Devices(tf.distribute.MultiWorkerMirroredStrategy(), worker, workers)
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
        worker = int(task["index"])
        if kinds != {"worker"} or task["type"] != "worker" or not 0 <= worker < len(workers):
            raise ValueError("it must name workers alone, and which of them this is")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"TF_CONFIG={told}: {type(error).__name__}: {error}") from error
    return (worker, len(workers)) if len(workers) > 1 else None
