"""A loss for each frame beside CTC's, for large alphabets on which CTC alone learns nothing for a long time."""

from collections.abc import Callable

import keras
import tensorflow as tf

from ocr.images import network_input
from ocr.model import networks
from ocr.model.objective import Objective

_CTC_STRIDE = 8  # one line in this many has a CTC loss


class FrameObjective(Objective):
    """Cross-entropy of single frames, mixed with the CTC loss of an eighth of the lines.

    CTC alone takes long to find out which frame shows which character. Where a batch has the middle of each character,
    that frame is to show the character and all others the blank, which is learned at once. It is also cheap: logits are
    computed for few frames, those of the characters and about as many others.

    Batches need `middles` and `draws`: see `pipeline.training_batches`.

    Args:
      model: network built by `networks.build`.
      weight: of the frames' loss, 0 to 1; CTC's has the rest.
    """

    def __init__(self, model: keras.Model, weight: float):
        super().__init__(model)
        self._weight = weight
        self._last = model.get_layer("logits")
        self._body = keras.Model(model.inputs, self._last.input)
        self._frame_width = networks.network(model.name).frame.width

    def losses(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the network for a training step: see `Objective.losses`."""
        inputs = network_input.to_network(batch["pixels"], batch["width"], self._frame_width)
        frames = network_input.frames(batch["width"], self._frame_width)
        features = self._body(list(inputs), training=True)  # [B, T, D]
        aligned = {key: value[::_CTC_STRIDE] for key, value in batch.items()}
        line_losses = self.ctc_loss(self._last(features[::_CTC_STRIDE]), frames[::_CTC_STRIDE], aligned)
        frame_loss = self._frame_loss(features, frames, batch)
        return line_losses, (1.0 - self._weight) * self.reduce(line_losses) + self._weight * frame_loss

    def _frame_loss(self, features: tf.Tensor, frames: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Estimates the cross-entropy of all frames of a line from some of them.

        Args:
          features: float[B, T, D], input of the last layer.
          frames: int32[B], how many of the T are a line's own.
          batch: with `middles` int32[B, N], -1 where unknown, and `draws` float32[B, K] from 0 to 1.

        Returns:
          float32 scalar, in nats: the mean over the lines whose middles are known; 0 if there are none.
        """
        middles, draws = batch["middles"], batch["draws"]
        known = middles >= 0
        character_frames = tf.minimum(middles // self._frame_width, frames[:, tf.newaxis] - 1)
        blank = self._last.units - 1
        targets = tf.fill(tf.shape(features)[:2], blank)  # [B, T]
        targets = tf.tensor_scatter_nd_update(
            targets, tf.stack([tf.where(known)[:, 0], tf.cast(character_frames[known], tf.int64)], 1), batch["labels"][known]
        )
        drawn_frames = tf.cast(draws * tf.cast(frames, tf.float32)[:, tf.newaxis], tf.int32)
        labelled = tf.reduce_any(known, 1, keepdims=True)  # [B, 1]
        between = labelled & (tf.gather(targets, drawn_frames, batch_dims=1) == blank)
        # Each character counts once; the drawn frames between them stand for all frames between them.
        share = tf.cast(frames, tf.float32)[:, tf.newaxis] / tf.cast(tf.shape(draws)[1], tf.float32)
        weights = tf.concat([tf.cast(known, tf.float32), tf.where(between, share, 0.0)], 1)  # [B, N + K]
        chosen = tf.where(weights > 0.0)
        frame = tf.gather_nd(tf.concat([character_frames, drawn_frames], 1), chosen)
        at = tf.stack([chosen[:, 0], tf.cast(frame, tf.int64)], 1)
        losses = cross_entropy(self._last(tf.gather_nd(features, at)), tf.gather_nd(targets, at))
        total = tf.reduce_sum(losses * tf.gather_nd(weights, chosen))
        return tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(labelled, tf.float32)))


@tf.custom_gradient
def cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, None]]]:
    """Computes minus the log-softmax of the target class.

    Ten times as fast on a CPU as `tf.nn.sparse_softmax_cross_entropy_with_logits`.

    Args:
      logits: float32[R, C].
      targets: int32[R], classes.

    Returns:
      float32[R], in nats; probabilities below 1e-37 count as 1e-37.
    """
    p = tf.nn.softmax(logits)
    at = tf.stack([tf.range(tf.shape(targets)[0]), targets], 1)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return tf.tensor_scatter_nd_sub(p, at, tf.ones_like(upstream)) * upstream[:, tf.newaxis], None

    return -tf.math.log(tf.maximum(tf.gather_nd(p, at), 1e-37)), gradient
