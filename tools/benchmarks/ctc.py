"""Times the CTC loss with its gradient."""

import importlib.util
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from ocr import ctc

from .timing import Comparison, compare, compiled

_SIZES = ((64, 35, 100, 8), (8, 500, 100, 60), (4, 2000, 64, 200), (256, 35, 5990, 10))  # B, T, C, N


def bench_ctc(batch: int = 32, frames: int = 70, classes: int = 6800, length: int = 10) -> Comparison:
    """Times the CTC loss with its gradient.

    The alternatives are the losses of TensorFlow, Keras and, if installed, PyTorch, and for scale log-softmax alone.

    Args:
      batch: batch size B.
      frames: frames T of each line.
      classes: classes C, the blank included.
      length: label length N.
    """
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(size=(batch, frames, classes)), tf.float32)
    labels = tf.constant(rng.integers(0, classes - 1, (batch, length)), tf.int32)
    counts, lengths = tf.fill([batch], frames), tf.fill([batch], length)
    sparse = tf.sparse.from_dense(labels + 1)
    sparse = tf.SparseTensor(sparse.indices, sparse.values - 1, sparse.dense_shape)

    def with_gradient(loss: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[], object]:
        @tf.function(autograph=False)
        def run(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(logits)
                losses = loss(logits)
            return losses, tape.gradient(losses, logits)

        return lambda: run(logits)

    def stock(labels: tf.Tensor | tf.SparseTensor) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda x: tf.nn.ctc_loss(labels, x, lengths, counts, logits_time_major=False, blank_index=classes - 1)

    # In Keras the blank is class 0, and 0 is the padding of labels.
    keras_labels = tf.where(labels == 0, 1, labels)
    others = {
        "tf.nn.ctc_loss, dense": with_gradient(stock(labels)),
        "tf.nn.ctc_loss, sparse": with_gradient(stock(sparse)),
        "tf.compat.v1.nn.ctc_loss": with_gradient(lambda x: tf.compat.v1.nn.ctc_loss(sparse, x, counts, time_major=False)),
        "tf.nn.log_softmax alone": compiled(lambda x: tf.nn.log_softmax(x), logits),
    }
    if hasattr(keras.losses, "CTC"):
        others["keras.losses.CTC"] = with_gradient(lambda x: keras.losses.CTC(reduction=None)(keras_labels, x))
    if importlib.util.find_spec("torch"):
        others["torch log_softmax and ctc_loss"] = _torch_ctc(logits.numpy(), labels.numpy())
    return compare(with_gradient(lambda x: ctc.loss(x, counts, labels, lengths)), others, "ctc")


def bench_sizes(sizes: tuple[tuple[int, int, int, int], ...] = _SIZES) -> Comparison:
    """Times the same with small alphabets, with long lines, and with large batches: of each size B, T, C and N."""
    results: Comparison = {}
    for batch, frames, classes, length in sizes:
        size = f"B{batch} T{frames} C{classes} N{length}"
        results |= {f"{size}: {name}": row for name, row in bench_ctc(batch, frames, classes, length).items()}
    return results


def _torch_ctc(logits: np.ndarray, labels: np.ndarray) -> Callable[[], object]:
    import torch

    batch, frames, classes = logits.shape
    leaf = torch.from_numpy(np.ascontiguousarray(logits.transpose(1, 0, 2))).requires_grad_()
    targets = torch.from_numpy(labels.astype(np.int64))
    own, lengths = torch.full((batch,), frames), torch.full((batch,), labels.shape[1])

    def run() -> None:
        leaf.grad = None
        log_p = torch.nn.functional.log_softmax(leaf, 2)
        torch.nn.functional.ctc_loss(log_p, targets, own, lengths, blank=classes - 1, reduction="sum").backward()

    return run
