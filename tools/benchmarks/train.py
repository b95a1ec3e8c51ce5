"""Times training steps, against Keras's `fit` with TensorFlow's CTC loss, and PyTorch."""

import importlib.util
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from ocr.config import TrainConfig
from ocr.images import network_input
from ocr.model import networks
from ocr.model.objective import Objective
from ocr.training import devices, optimizer
from ocr.training.steps import Steps

from .timing import Comparison, compare

_FRAME = networks.network("lite").frame


def bench_train(batch: int = 64, width: int = 280, classes: int = 6800, length: int = 10) -> Comparison:
    """Times complete steps of the network `lite` with Adam: forward pass, loss, backward pass, update.

    The alternatives are `fit` with and without XLA and, if installed, PyTorch with channels last. Each takes one step in each
    round, on the same lines.

    Args:
      batch: batch size.
      width: width of the images in pixels.
      classes: classes, the blank included.
      length: label length.
    """
    rng = np.random.default_rng(0)
    lines = {
        "pixels": rng.integers(0, 256, (batch, _FRAME.height, width), np.uint8),
        "width": np.full(batch, width, np.int32),
        "labels": rng.integers(0, classes - 1, (batch, length)).astype(np.int32),
        "label_lengths": np.full(batch, length, np.int32),
        "filename": np.full(batch, b""),
    }
    others = {
        "fit, tf.nn.ctc_loss, no XLA": _fit(lines, classes, jit_compile=False),
        "fit, tf.nn.ctc_loss, XLA": _fit(lines, classes, jit_compile=True),
    }
    if importlib.util.find_spec("torch"):
        others["PyTorch, channels last"] = _torch(lines, classes)
    results = compare(_ours(lines, classes), others, "train")
    for row in results.values():
        row["ours_lines_per_second"] = round(1e3 * batch / row["ours_ms"], 1)
        row["theirs_lines_per_second"] = round(1e3 * batch / row["theirs_ms"], 1)
    return results


def _repeated(element: object) -> Iterator:
    return iter(tf.data.Dataset.from_tensors(element).repeat())


def _ours(lines: dict[str, np.ndarray], classes: int) -> Callable[[], object]:
    config = TrainConfig("-", "-", "-", optimizer="adam", learning_rate=0.001, schedule="constant", clip_norm=0.0)
    model = networks.build("lite", classes)
    steps = Steps(Objective(model), optimizer.build(config, model, 1), devices.find("one"), len(lines["width"]))
    iterator = _repeated(lines)
    return lambda: (steps.run(iterator, tf.constant(1, tf.int64)), steps.number)


def _fit(lines: dict[str, np.ndarray], classes: int, jit_compile: bool) -> Callable[[], object]:
    model = networks.build("lite", classes)

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        lengths = tf.fill([tf.shape(labels)[0]], tf.shape(labels)[1])
        frames = tf.fill([tf.shape(logits)[0]], tf.shape(logits)[1])
        return tf.nn.ctc_loss(
            tf.cast(labels, tf.int32), logits, lengths, frames, logits_time_major=False, blank_index=classes - 1
        )

    model.compile(optimizer=keras.optimizers.Adam(0.001), loss=loss, jit_compile=jit_compile)
    image, mask = network_input.to_network(tf.constant(lines["pixels"]), tf.constant(lines["width"]), _FRAME.width)
    iterator = _repeated(((image, mask), lines["labels"]))
    model.make_train_function()  # what `fit` calls for each batch
    return lambda: tf.nest.map_structure(np.asarray, model.train_function(iterator))


def _torch(lines: dict[str, np.ndarray], classes: int) -> Callable[[], object]:
    """Returns a step of the network `lite` in PyTorch, with the number of threads of TensorFlow."""
    import torch
    from torch import nn

    torch.set_num_threads(tf.config.threading.get_intra_op_parallelism_threads() or torch.get_num_threads())

    def convolve(
        before: int, after: int, kernel: int | tuple[int, int] = 3, stride: int = 1, padding: int = 1
    ) -> list[nn.Module]:
        return [nn.Conv2d(before, after, kernel, stride, padding, bias=False), nn.BatchNorm2d(after, momentum=0.05), nn.ReLU()]

    body = nn.Sequential(
        *convolve(1, 16, stride=2), *convolve(16, 32), nn.MaxPool2d(2), *convolve(32, 64), *convolve(64, 96),
        nn.MaxPool2d((2, 1)), *convolve(96, 128), nn.MaxPool2d((2, 1)), *convolve(128, 256),
        *convolve(256, 256, (2, 1), padding=0),
    ).to(memory_format=torch.channels_last)  # fmt: skip
    last = nn.Linear(256, classes)
    optimizer = torch.optim.Adam([*body.parameters(), *last.parameters()], 0.001)
    image = (torch.from_numpy(lines["pixels"])[:, None].float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
    labels, lengths = torch.from_numpy(lines["labels"]).long(), torch.from_numpy(lines["label_lengths"]).long()
    frames = torch.full((len(image),), lines["pixels"].shape[2] // _FRAME.width)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        log_p = torch.log_softmax(last(body(image)[:, :, 0].permute(2, 0, 1)), 2)  # [T, B, C]
        loss = nn.functional.ctc_loss(log_p, labels, frames, lengths, blank=classes - 1, reduction="sum") / len(image)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
