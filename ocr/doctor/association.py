"""Whether texts belong to their images, told without training: what random filters see must foretell some of the text."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

_TARGETS = 32  # characters whose numbers are foretold, the most frequent ones, beside the length
_LEAST_LINES, _LEAST_OFTEN = 500, 40  # of lines, and of those characters on average: with fewer nothing can be told
_SHUFFLES = 200


def association(batches: Sequence[dict[str, tf.Tensor]], seed: int = 0) -> float | None:
    """Measures how much better a line's own image foretells its characters than another line's.

    Features are sums over each line of two layers of random filters; a ridge regression from them to the numbers of the
    commonest characters and the length is fitted on one half of the lines and correlated with the truth on the other.

    Args:
      batches: of lines, each line once; `pixels`, `width` and `text`.
      seed: of filters, halves and shuffles.

    Returns:
      The mean correlation in standard deviations of what shuffled pairs give: for pairs that do not belong together a number
      such as a standard normal draw; for lines that do 10 and more as a rule. None where there is too little to tell.
    """
    texts = [text.decode("utf-8") for batch in batches for text in batch["text"].numpy()]
    common = Counter("".join(texts)).most_common(_TARGETS)
    if len(texts) < _LEAST_LINES or np.mean([count for _, count in common]) < _LEAST_OFTEN:
        return None
    rng = np.random.default_rng(seed)
    filters = rng.normal(size=(5, 5, 1, 32)) / 5, rng.normal(size=(3, 3, 32, 128)) / 12
    seen = np.concatenate([_features(batch, [tf.constant(f, tf.float32) for f in filters]) for batch in batches])
    counts = np.array([[text.count(character) for character, _ in common] + [len(text)] for text in texts], np.float64)
    counts = counts[:, counts.std(0) > 0]
    if not counts.shape[1]:
        return None  # no line has more of anything than another
    order = rng.permutation(len(texts))
    fitted, tested = order[: len(order) // 2], order[len(order) // 2 :]
    mean, spread = seen[fitted].mean(0), seen[fitted].std(0) + 1e-6
    inputs, held = (seen[fitted] - mean) / spread, (seen[tested] - mean) / spread
    ridge = inputs.T @ inputs + 0.3 * len(fitted) * np.eye(inputs.shape[1])
    foretold = _standard(held @ np.linalg.solve(ridge, inputs.T @ (counts[fitted] - counts[fitted].mean(0))))
    truth = _standard(counts[tested])
    shuffled = [(foretold * truth[rng.permutation(len(truth))]).mean() for _ in range(_SHUFFLES)]
    return float(((foretold * truth).mean() - np.mean(shuffled)) / max(np.std(shuffled), 1e-12))


def _features(batch: dict[str, tf.Tensor], filters: list[tf.Tensor]) -> np.ndarray:
    """Returns float64[B, 256]: what the filters see in the upper and in the lower half of each line."""
    seen = np.zeros((*batch["pixels"].shape, 1), np.float32)
    for row, pixels, width in zip(seen, batch["pixels"].numpy(), batch["width"].numpy(), strict=True):
        line = pixels[:, :width].astype(np.float32)  # by its own paper and contrast
        row[:, :width, 0] = (line - np.median(line)) / max(float(line.std()), 1.0)
    for kernel in filters:
        seen = tf.nn.relu(tf.nn.conv2d(seen, kernel, 2, "SAME"))
    halves = [tf.reduce_sum(half, axis=[1, 2]) for half in tf.split(seen, 2, axis=1)]
    return tf.concat(halves, axis=1).numpy().astype(np.float64)


def _standard(columns: np.ndarray) -> np.ndarray:
    return (columns - columns.mean(0)) / (columns.std(0) + 1e-9)
