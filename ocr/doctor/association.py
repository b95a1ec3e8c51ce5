"""Tests without training whether texts belong to their images: features of random filters must predict some of the text."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

_MAX_TARGETS = 32  # characters whose counts are predicted, the most frequent ones, besides the length
_MIN_LINES, _MIN_COUNT = 500, 40  # lines, and mean occurrences of these characters: with fewer the test has no power
_PERMUTATIONS = 200
_RIDGE = 0.3  # penalty, relative to the number of lines


def z_score(batches: Sequence[dict[str, tf.Tensor]], seed: int = 0) -> float | None:
    """Measures how much better a line's text is predicted by its own image than by another line's: a permutation test.

    Features are the sums, over each line, of two layers of random filters. A ridge regression from them to the length and to
    the counts of the most frequent characters is fitted on one half of the lines, and its predictions are correlated with the
    truth on the other half.

    Args:
      batches: each line once, with `pixels` uint8[B, H, W], `width` int32[B] and `text` string[B].
      seed: of filters, halves and permutations.

    Returns:
      The mean correlation, in standard deviations of that of shuffled pairs: about a standard normal draw for images and texts
      that do not belong together, usually 10 or more for those that do. None if there is too little data.
    """
    texts = [text.decode("utf-8") for batch in batches for text in batch["text"].numpy()]
    common = Counter("".join(texts)).most_common(_MAX_TARGETS)
    if len(texts) < _MIN_LINES or np.mean([count for _, count in common]) < _MIN_COUNT:
        return None
    rng = np.random.default_rng(seed)
    filters = rng.normal(size=(5, 5, 1, 32)) / 5, rng.normal(size=(3, 3, 32, 128)) / 12
    features = np.concatenate([_features(batch, [tf.constant(f, tf.float32) for f in filters]) for batch in batches])
    counts = np.array([[text.count(character) for character, _ in common] + [len(text)] for text in texts], np.float64)
    counts = counts[:, counts.std(0) > 0]
    if not counts.shape[1]:
        return None  # all lines have the same counts
    order = rng.permutation(len(texts))
    fitted, tested = order[: len(order) // 2], order[len(order) // 2 :]
    mean, std = features[fitted].mean(0), features[fitted].std(0) + 1e-6
    inputs, test_inputs = (features[fitted] - mean) / std, (features[tested] - mean) / std
    ridge = inputs.T @ inputs + _RIDGE * len(fitted) * np.eye(inputs.shape[1])
    predicted = _standardize(test_inputs @ np.linalg.solve(ridge, inputs.T @ (counts[fitted] - counts[fitted].mean(0))))
    truth = _standardize(counts[tested])
    shuffled = [(predicted * truth[rng.permutation(len(truth))]).mean() for _ in range(_PERMUTATIONS)]
    return float(((predicted * truth).mean() - np.mean(shuffled)) / max(np.std(shuffled), 1e-12))


def _features(batch: dict[str, tf.Tensor], filters: list[tf.Tensor]) -> np.ndarray:
    """Returns float64[B, 256]: the sums of the filters' outputs over the upper and over the lower half of each line."""
    values = np.zeros((*batch["pixels"].shape, 1), np.float32)
    for row, pixels, width in zip(values, batch["pixels"].numpy(), batch["width"].numpy(), strict=True):
        line = pixels[:, :width].astype(np.float32)  # relative to its own background and contrast
        row[:, :width, 0] = (line - np.median(line)) / max(float(line.std()), 1.0)
    for kernel in filters:
        values = tf.nn.relu(tf.nn.conv2d(values, kernel, 2, "SAME"))
    halves = [tf.reduce_sum(half, axis=[1, 2]) for half in tf.split(values, 2, axis=1)]
    return tf.concat(halves, axis=1).numpy().astype(np.float64)


def _standardize(columns: np.ndarray) -> np.ndarray:
    return (columns - columns.mean(0)) / (columns.std(0) + 1e-9)
