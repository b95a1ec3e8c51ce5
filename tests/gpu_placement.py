"""Tells which ops of a graph no GPU can run, and which ran elsewhere than on a device, for the CTC loss and its gradient."""

import ctypes
import functools
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, kernel_def_pb2, node_def_pb2

# What has no kernel anywhere, since TensorFlow removes it from a graph or puts the body of a function in its place.
_WITHOUT_KERNEL = {"Placeholder", "PartitionedCall", "StatefulPartitionedCall"}

# Moves arguments and results between devices, or has no argument.
_MOVED = {"_Arg", "_Retval", "_Send", "_Recv", "_HostSend", "_HostRecv", "Const", "NoOp"}
_SHAPES = {"logits": [None, None, None], "labels": [None, None], "frames": [None], "label_lengths": [None]}

Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class _Buffer(ctypes.Structure):
    """TF_Buffer of TensorFlow's C API."""

    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p))


@functools.cache
def _gpu_kernels() -> dict[str, list[kernel_def_pb2.KernelDef]]:
    """Returns the kernels for GPUs of each op, as the public C API lists them (tensorflow/c/c_api.h); no GPU is needed."""
    library = ctypes.CDLL(str(pathlib.Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"))
    library.TF_NewStatus.restype = ctypes.c_void_p
    library.TF_GetAllRegisteredKernels.restype = ctypes.POINTER(_Buffer)
    library.TF_GetAllRegisteredKernels.argtypes = [ctypes.c_void_p]
    buffer = library.TF_GetAllRegisteredKernels(library.TF_NewStatus()).contents
    kernels: dict[str, list[kernel_def_pb2.KernelDef]] = {}
    for kernel in kernel_def_pb2.KernelList.FromString(ctypes.string_at(buffer.data, buffer.length)).kernel:
        if kernel.device_type in ("GPU", "DEFAULT"):
            kernels.setdefault(kernel.op, []).append(kernel)
    return kernels


def trace(loss: Loss) -> tf.types.experimental.ConcreteFunction:
    """Traces a CTC loss with the arguments of `ctc.loss`, and its gradient."""

    @tf.function(autograph=False)
    def loss_and_gradient(
        logits: tf.Tensor, labels: tf.Tensor, frames: tf.Tensor, label_lengths: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.tanh(logits)  # stands for the network, which is on the device, where the arguments are not
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = loss(logits, frames, labels, label_lengths)
        return losses, tape.gradient(losses, logits)

    dtypes = {name: tf.float32 if name == "logits" else tf.int32 for name in _SHAPES}
    return loss_and_gradient.get_concrete_function(*(tf.TensorSpec(_SHAPES[name], dtypes[name], name) for name in _SHAPES))


def without_gpu_kernel(function: tf.types.experimental.ConcreteFunction) -> set[str]:
    """Returns the ops of a function that no GPU can run, with the dtypes they are asked for."""
    nodes = _nodes(function.graph.as_graph_def())
    return {_name(node) for node in nodes if node.op not in _WITHOUT_KERNEL and not _has_kernel(node)}


def off_device(function: tf.types.experimental.ConcreteFunction, device: str) -> set[str]:
    """Runs what `trace` returned on a device where TensorFlow lets it; returns the ops that ran elsewhere.

    Args:
      function: the loss and its gradient.
      device: GPU:0, or CPU:1 of two that are made of the processor.
    """
    definition = function.graph.as_graph_def()
    for node in (*definition.node, *(node for inner in definition.library.function for node in inner.node_def)):
        node.device = node.device or f"/device:{device}"
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(4, 30, 50)), rng.integers(0, 49, (4, 8)), np.full(4, 30), np.full(4, 8))
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    v1 = tf.compat.v1  # only a session gives away what was placed where
    config = v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True, gpu_options=v1.GPUOptions(allow_growth=True))
    placed = v1.RunMetadata()
    with v1.Session(graph=graph, config=config) as session:
        session.run(
            [output.name for output in function.outputs],
            {given.name: value for given, value in zip(function.inputs, values, strict=True)},
            v1.RunOptions(output_partition_graphs=True),
            placed,
        )
    nodes = [node for partition in placed.partition_graphs for node in partition.node]
    return {_name(node) for node in nodes if node.op not in _MOVED and not node.device.endswith(device)}


def _nodes(graph: graph_pb2.GraphDef) -> Iterator[node_def_pb2.NodeDef]:
    yield from graph.node
    for function in graph.library.function:
        if not function.attr["_XlaMustCompile"].b:  # XLA writes its own kernels
            yield from function.node_def


def _has_kernel(node: node_def_pb2.NodeDef) -> bool:
    return any(
        all(
            not node.attr[constraint.name].type or node.attr[constraint.name].type in constraint.allowed_values.list.type
            for constraint in kernel.constraint
        )
        for kernel in _gpu_kernels().get(node.op, [])
    )


def _name(node: node_def_pb2.NodeDef) -> str:
    dtypes = sorted({tf.dtypes.as_dtype(value.type).name for value in node.attr.values() if value.type})
    return f"{node.op}({', '.join(dtypes)})"
