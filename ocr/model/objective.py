"""What a training step is made of: the network, the losses of each line, and the one number that is made small."""

import keras
import tensorflow as tf

from ocr import ctc
from ocr.images import preprocess
from ocr.model import networks

_SCORED = 8  # of so many lines one has a CTC loss, where the frames have a loss of their own


class Objective:
    """Both trainers take their steps with it, and the doctor examines it: so what is examined is what is trained.

    A batch is a dict as `inputs.training_batches` gives it.

    Args:
      model: that `models.build` made.
      frame_loss: weight of the frames' own loss beside CTC's, 0 to 1: see `losses`.
    """

    def __init__(self, model: keras.Model, frame_loss: float = 0.0):
        self.model = model
        self._frame_loss = frame_loss
        if frame_loss:
            self._last = model.get_layer("logits")
            self._body = keras.Model(model.inputs, self._last.input)
            self._pixels_per_frame = networks.network(model.name).pixels_per_frame

    def logits(self, batch: dict[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the network: see `models.logits`."""
        return networks.logits(self.model, batch["pixels"], batch["width"], training)

    def ctc_loss(self, logits: tf.Tensor, frames: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns each line's CTC loss, float32[B]."""
        return ctc.loss(logits, frames, batch["labels"], batch["label_lengths"])

    def reduce(self, nats: tf.Tensor) -> tf.Tensor:
        """Returns the mean loss of the lines that can be aligned, and what the layers add to it, such as weight decay: float32
        scalar."""
        possible = alignable(nats)
        mean = tf.math.divide_no_nan(tf.reduce_sum(tf.where(possible, nats, 0.0)), tf.reduce_sum(tf.cast(possible, tf.float32)))
        return tf.add_n([mean, *(tf.cast(loss, tf.float32) for loss in self.model.losses)])

    def losses(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the network for a training step.

        CTC alone takes long to find out which frame shows which character. Where the batch tells each character's middle, the
        frame there is to show it and all others are to show nothing, which is learned at once. It also takes the logits of
        few frames: those of the characters, and as many others. Then an eighth of the lines have a CTC loss as well.

        Returns:
          The CTC loss of the lines that have one, float32[b], and what is to be made small, float32 scalar.
        """
        if not self._frame_loss:
            nats = self.ctc_loss(*self.logits(batch, training=True), batch)
            return nats, self.reduce(nats)
        inputs = preprocess.to_network(batch["pixels"], batch["width"], self._pixels_per_frame)
        frames = preprocess.frames(batch["width"], self._pixels_per_frame)
        features = self._body(list(inputs), training=True)
        some = {key: value[::_SCORED] for key, value in batch.items()}
        nats = self.ctc_loss(self._last(features[::_SCORED]), frames[::_SCORED], some)
        of_frames = self._frame_nats(features, frames, batch)
        return nats, (1.0 - self._frame_loss) * self.reduce(nats) + self._frame_loss * of_frames

    def _frame_nats(self, features: tf.Tensor, frames: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the cross-entropy of all frames of a line, estimated from some, as a mean over lines: float32 scalar."""
        middles, draws = batch["middles"], batch["draws"]  # int32[B, N], -1 where unknown; float32[B, K] from 0 to 1
        known = middles >= 0
        places = tf.minimum(middles // self._pixels_per_frame, frames[:, tf.newaxis] - 1)
        blank = self._last.units - 1
        wanted = tf.fill(tf.shape(features)[:2], blank)
        wanted = tf.tensor_scatter_nd_update(
            wanted, tf.stack([tf.where(known)[:, 0], tf.cast(places[known], tf.int64)], 1), batch["labels"][known]
        )
        others = tf.cast(draws * tf.cast(frames, tf.float32)[:, tf.newaxis], tf.int32)
        told = tf.reduce_any(known, 1, keepdims=True)
        empty = told & (tf.gather(wanted, others, batch_dims=1) == blank)
        # Every character counts once, and those of the others that are drawn for all of them.
        share = tf.cast(frames, tf.float32)[:, tf.newaxis] / tf.cast(tf.shape(draws)[1], tf.float32)
        weights = tf.concat([tf.cast(known, tf.float32), tf.where(empty, share, 0.0)], 1)
        chosen = tf.where(weights > 0.0)
        at = tf.stack([chosen[:, 0], tf.cast(tf.gather_nd(tf.concat([places, others], 1), chosen), tf.int64)], 1)
        nats = cross_entropy(self._last(tf.gather_nd(features, at)), tf.gather_nd(wanted, at))
        of_lines = tf.reduce_sum(nats * tf.gather_nd(weights, chosen))
        return tf.math.divide_no_nan(of_lines, tf.reduce_sum(tf.cast(told, tf.float32)))


@tf.custom_gradient
def cross_entropy(logits: tf.Tensor, wanted: tf.Tensor):
    """Returns -log softmax(logits) of the class wanted, float32[R], of logits float32[R, C] and classes int32[R].

    Ten times as fast as TensorFlow's sparse one on a CPU; a class less likely than 1e-37 counts as that.
    """
    p = tf.nn.softmax(logits)
    at = tf.stack([tf.range(tf.shape(wanted)[0]), wanted], 1)

    def gradient(upstream: tf.Tensor):
        return tf.tensor_scatter_nd_sub(p, at, tf.ones_like(upstream)) * upstream[:, tf.newaxis], None

    return -tf.math.log(tf.maximum(tf.gather_nd(p, at), 1e-37)), gradient


def alignable(nats: tf.Tensor) -> tf.Tensor:
    """Says which lines can be aligned: bool[B]. Those that cannot have an infinite loss."""
    return nats != float("inf")
