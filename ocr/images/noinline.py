"""Keeps a part of the graph that few images need as a call."""

from collections.abc import Callable

import tensorflow as tf


def noinline(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Makes a function of tensors a call of its own in the graph.

    In a branch that is not taken, each op costs a little time nevertheless; a call is a single one.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
