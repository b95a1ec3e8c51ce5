"""Requests that TensorFlow Serving runs through a model before it answers anybody, in `assets.extra`: its first answers take
seconds."""

import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ocr.images import preprocess
from ocr.serving import wire

NAME = "tf_serving_warmup_requests"  # which the server looks for
_BATCHES = (1, 32)
_WIDTH = 280  # pixels


def write(path: pathlib.Path) -> None:
    """Writes requests to each signature: an empty line, and a batch of files with one each."""
    line = np.full([1, preprocess.HEIGHT, _WIDTH], 255, np.uint8)
    file = tf.io.encode_png(line[0, :, :, np.newaxis]).numpy()
    asked = [wire.request(wire.MODEL, "lines", {"pixels": line, "width": np.array([_WIDTH], np.int32)})]
    for signature in ("serving_default", "detailed"):
        asked += [wire.request(wire.MODEL, signature, {"image_bytes": [file] * batch}) for batch in _BATCHES]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in asked:
            writer.write(wire.log(request))


def read(path: pathlib.Path) -> Iterator[tuple[str, dict[str, tf.Tensor]]]:
    """Yields the requests of a file as `write` makes it: the signature, and its inputs by name.

    Raises:
      tf.errors.OpError, ValueError, LookupError: it is damaged.
    """
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        signature, inputs = wire.logged(record)
        yield (
            signature,
            {name: tf.constant(value, tf.string if value.dtype == object else None) for name, value in inputs.items()},
        )
