"""Warm-up requests in an export's `assets.extra`, which TensorFlow Serving runs before it answers anybody.

A model's first predictions take seconds. See https://www.tensorflow.org/tfx/serving/saved_model_warmup.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ocr.serving import wire

NAME = "tf_serving_warmup_requests"  # TensorFlow Serving looks for this file
_BATCH_SIZE = 32
_WIDTH = 280  # pixels


def write(path: pathlib.Path, line_height: int) -> None:
    """Writes requests for each signature: a line of strokes, and for those that read image files also a batch of them.

    One line of the batch is on its side, as which it is doubtful: an export that reads such lines turned or in other sizes,
    too, does so.

    Args:
      path: of the file.
      line_height: of the network, in pixels.
    """
    line = np.full([1, line_height, _WIDTH], 255, np.uint8)
    line[:, 8:24, 20:-20:10] = 0
    image, on_side = (tf.io.encode_png(shown[:, :, np.newaxis]).numpy() for shown in (line[0], line[0].T))
    requests = [wire.encode_request(wire.MODEL, "lines", {"pixels": line, "width": np.array([_WIDTH], np.int32)})]
    for signature in ("serving_default", "detailed"):
        for files in ([image], [image] * (_BATCH_SIZE - 1) + [on_side]):
            requests.append(wire.encode_request(wire.MODEL, signature, {"image_bytes": files}))
    text = np.array([[b"1", b""]], object)
    texts: dict[str, Any] = {"image_bytes": [image], "text": text, "count": np.array([1], np.int32)}
    requests.append(wire.encode_request(wire.MODEL, "score", texts))
    known: dict[str, Any] = {"image_bytes": [image], "allowed": [b""], "pattern": [b"digits"]}
    requests.append(wire.encode_request(wire.MODEL, "constrained", known))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            writer.write(wire.encode_log(request))


def read(path: pathlib.Path) -> Iterator[tuple[str, dict[str, tf.Tensor]]]:
    """Yields the requests in a file that `write` wrote: the signature, and its inputs by name.

    Raises:
      tf.errors.OpError, ValueError, LookupError: The file is damaged.
    """
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        signature, inputs = wire.decode_log(record)
        yield signature, to_tensors(inputs)


def to_tensors(inputs: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Returns arrays as tensors; arrays of objects hold bytes, which TensorFlow does not recognise if there are none."""
    return {name: tf.constant(value, tf.string if value.dtype == object else None) for name, value in inputs.items()}
