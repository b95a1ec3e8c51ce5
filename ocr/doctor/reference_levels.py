"""Where a CTC loss can stand: levels that are known before a step is trained, each the mark of one state of things."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

EPSILON = 1e-7  # of Keras's logarithm of a softmax
_LINES = 500  # that the double softmax's floor is computed over


class Shape(NamedTuple):
    """What decides a line's levels: its frames, its label's length, and how many characters equal the one before."""

    frames: int
    length: int
    repeats: int


def levels(
    shapes: Sequence[Shape], num_classes: int, characters: Mapping[str, int], dummy: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Computes the mean losses, in nats a line, that tell states of a training apart.

    Args:
      shapes: of lines that can be aligned, a sample of the training data.
      num_classes: C, the blank included.
      characters: how often each occurs in the data.
      dummy: how random labels were drawn, as the manifest has it, where they were.

    Returns:
      `uniform`: every class of every frame as likely as any other, the untrained network's;
      `double_softmax`: the least that a softmax fed into a softmax can reach, which gives no class more than
      e / (e + C - 1);
      `log_epsilon`: the plateau of log(p + 1e-7) fed as logits, where each label's gradient has gone;
      `blank`: the plateau of a network that sees nothing of the image, gives every frame the same blank and shares the rest
      out as the characters occur;
      `entropy`: of the labels, when their characters are drawn one by one: the least for images that say nothing.
    """
    characters_nats = _entropy(characters.values())
    lengths_nats = _entropy(np.unique([shape.length for shape in shapes], return_counts=True)[1])
    if dummy:  # known exactly
        characters_nats, lengths_nats = math.log(dummy["num_classes"] - 1), math.log(dummy["max_label_length"])
    frames, lengths, repeats = (np.array(column, np.float64) for column in zip(*shapes, strict=True))
    mean_length = lengths.mean()
    # How often a label is met, at the best: one frame a label, the frames chosen freely.
    rho = min(mean_length / frames.mean(), 1 - 1e-6)
    in_frames = lengths * math.log(max(rho, 1e-9)) + (frames - lengths) * math.log(1 - rho)
    found = {
        "uniform": np.mean(frames * math.log(num_classes) - _log_choose(frames + lengths - repeats, 2 * lengths)),
        "double_softmax": np.mean([_double_softmax_floor(s.frames, s.length, num_classes) for s in shapes[:_LINES]]),
        "log_epsilon": np.mean(-lengths * math.log(EPSILON) - _log_choose(frames - repeats, lengths)),
        "blank": mean_length * characters_nats - np.mean(in_frames + _log_choose(frames - repeats, lengths)),
        "entropy": mean_length * characters_nats + lengths_nats,
    }
    return {name: round(float(value), 3) for name, value in found.items()}


def standing(loss: float, references: Mapping[str, float]) -> str:
    """Says in words between which levels a loss stands."""
    above = [name for name in references if references[name] > loss]
    below = [name for name in references if references[name] <= loss]
    parts = [f"loss {loss:.1f}"]
    if below:
        name = max(below, key=references.__getitem__)
        parts.append(f"above {name} {references[name]:.1f}")
    if above:
        name = min(above, key=references.__getitem__)
        parts.append(f"below {name} {references[name]:.1f}")
    return ", ".join(parts)


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the binomial coefficient."""
    lgamma = np.vectorize(math.lgamma)
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _entropy(counts) -> float:
    """Returns the entropy of what was counted, in nats, with the mean of what a sample lacks (Miller, 1955, "Note on the bias
    of information estimates")."""
    share = np.array([count for count in counts if count > 0], np.float64)
    total = share.sum()
    share /= total
    return float(-(share * np.log(share)).sum() + (len(share) - 1) / (2 * total))


@functools.cache
def _double_softmax_floor(frames: int, length: int, num_classes: int) -> float:
    """Returns the least loss of a network that is certain of one class in each frame: of each label for as many frames as is
    best, and of the blank in those between."""
    begins = np.arange(length) * frames // length
    times = np.arange(frames)
    label = np.searchsorted(begins, times, side="right") - 1
    best = -math.inf
    for held in sorted({*range(1, min(frames // length, 8) + 1), frames // length}):
        first = begins[label] + (frames // length - held) // 2
        state = 2 * label + np.where(times < first, 0, np.where(times < first + held, 1, 2))
        best = max(best, _log_sum_of_matches(state, length))
    return frames * math.log(math.e + num_classes - 1) - best


def _log_sum_of_matches(target: np.ndarray, length: int) -> float:
    """Returns log(sum over all alignments of exp(frames in which they emit what the target does))."""
    states = np.arange(2 * length + 1)
    may_skip = np.where(states % 2 == 1, 0.0, -np.inf)
    log_sum = np.full(len(states) + 2, -np.inf)  # two states before the first, never entered
    log_sum[2] = 0.0
    for state in target:
        entered = np.logaddexp(np.logaddexp(log_sum[2:], log_sum[1:-1]), log_sum[:-2] + may_skip)
        log_sum[2:] = entered + (states == state if state % 2 else states % 2 == 0)
    return float(np.logaddexp(log_sum[-1], log_sum[-2]))
