"""What `ocr_bench` times: the CTC and the decoders; of the data see `bench_data`, of training `bench_train`."""

import importlib.util
import sys
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from ocr import ctc
from ocr.model import decode
from tools.benchmarks import data, read, train
from tools.benchmarks.timing import against


def bench_ctc(batch: int = 32, frames: int = 70, classes: int = 6800, length: int = 10) -> dict[str, dict[str, float]]:
    """Times the CTC loss with its gradient against TensorFlow's, Keras's and, where installed, PyTorch's, and against
    log-softmax alone. Shapes: B, T, C, N."""
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(size=(batch, frames, classes)), tf.float32)
    labels = tf.constant(rng.integers(0, classes - 1, (batch, length)), tf.int32)
    own, lengths = tf.fill([batch], frames), tf.fill([batch], length)
    sparse = tf.sparse.from_dense(labels + 1)
    sparse = tf.SparseTensor(sparse.indices, sparse.values - 1, sparse.dense_shape)

    def with_gradient(loss: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[], object]:
        @tf.function(autograph=False)
        def run(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(logits)
                nats = loss(logits)
            return nats, tape.gradient(nats, logits)

        return lambda: run(logits)

    def stock(labels: tf.Tensor | tf.SparseTensor) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda x: tf.nn.ctc_loss(labels, x, lengths, own, logits_time_major=False, blank_index=classes - 1)

    # Keras fixes the blank at 0, so that its labels count from 1.
    keras_labels = tf.where(labels == 0, 1, labels)
    others = {
        "tf.nn.ctc_loss, dense": with_gradient(stock(labels)),
        "tf.nn.ctc_loss, sparse": with_gradient(stock(sparse)),
        "tf.compat.v1.nn.ctc_loss": with_gradient(lambda x: tf.compat.v1.nn.ctc_loss(sparse, x, own, time_major=False)),
        "tf.nn.log_softmax alone": _compiled(lambda x: tf.nn.log_softmax(x), logits),
    }
    if hasattr(keras.losses, "CTC"):
        others["keras.losses.CTC"] = with_gradient(lambda x: keras.losses.CTC(reduction=None)(keras_labels, x))
    if importlib.util.find_spec("torch"):
        others["torch log_softmax and ctc_loss"] = _torch_ctc(logits.numpy(), labels.numpy())
    return against(with_gradient(lambda x: ctc.loss(x, own, labels, lengths)), others, "ctc")


def _compiled(work: Callable[[tf.Tensor], object], given: tf.Tensor) -> Callable[[], object]:
    compiled = tf.function(work, autograph=False)
    return lambda: compiled(given)


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


def bench_decode(
    batch: int = 32, frames: int = 70, classes: int = 6800, length: int = 10, width: int = 10
) -> dict[str, dict[str, float]]:
    """Times the decoders against TensorFlow's, on logits such as a trained network's: a character here and there, blanks in
    between. Shapes: B, T, C, N."""
    rng = np.random.default_rng(0)
    path = np.full((batch, frames), classes - 1)
    path[:, frames // (2 * length) :: frames // length] = rng.integers(0, classes - 1, (batch, length))
    logits = tf.constant(rng.normal(size=(batch, frames, classes)) + 12 * np.eye(classes)[path], tf.float32)
    own = tf.fill([batch], frames)

    def time_major(x: tf.Tensor) -> tf.Tensor:
        return tf.transpose(x, [1, 0, 2])

    greedy = {
        "tf.nn.ctc_greedy_decoder": _compiled(
            lambda x: tf.nn.ctc_greedy_decoder(time_major(x), own, blank_index=classes - 1), logits
        )
    }
    beam = {
        "tf.nn.ctc_beam_search_decoder": _compiled(
            lambda x: tf.nn.ctc_beam_search_decoder(time_major(x), own, beam_width=width, top_paths=1), logits
        )
    }
    results = against(_compiled(lambda x: decode.greedy(x, own), logits), greedy, "greedy")
    print("TensorFlow's beam search takes a minute or two", file=sys.stderr)
    return results | against(_compiled(lambda x: decode.beam(x, own, width), logits), beam, "beam")


BENCHES = {
    "ctc": bench_ctc,
    "decode": bench_decode,
    "input": data.bench_input,
    "convert": data.bench_convert,
    "train": train.bench_train,
    "read": read.bench_read,
}
