"""What `make gpu-proof` checks on a GPU, as far as it can be told without one: no op of the loss runs on the host."""

import gpu_placement
import pytest
import tensorflow as tf

from ocr import ctc

_OF_CUDA = pytest.mark.skipif(not tf.test.is_built_with_cuda(), reason="this TensorFlow has no kernels for GPUs")


def classic(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return tf.compat.v1.nn.ctc_loss(tf.sparse.from_dense(labels), logits, frames, time_major=False)


def with_part_on_host(logits: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    with tf.device("CPU:0"):
        logits = tf.sin(logits)
    return ctc.loss(logits, frames, labels, label_lengths)


@_OF_CUDA
def test_every_op_of_the_loss_and_its_gradient_has_a_kernel_for_gpus():
    assert gpu_placement.without_gpu_kernel(gpu_placement.trace(ctc.loss)) == set()
    assert gpu_placement.without_gpu_kernel(gpu_placement.trace(classic)) == {"CTCLoss(float32)"}


def test_every_op_of_the_loss_and_its_gradient_is_placed_on_the_device_that_is_asked_for():
    assert gpu_placement.off_device(gpu_placement.trace(ctc.loss), "CPU:1") == set()
    assert "Sin(float32)" in gpu_placement.off_device(gpu_placement.trace(with_part_on_host), "CPU:1")
