"""Levels at which a CTC loss stalls, known before the first step: each is the sign of one state of a training."""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

_EPSILON = 1e-7  # that Keras adds before it takes the logarithm of a softmax
_MAX_LINES = 500  # over which the floor of the double softmax is computed


class Shape(NamedTuple):
    """What determines a line's levels.

    Attributes:
      frames: that the network outputs for it.
      length: of its label.
      repeats: how many characters of the label equal the one before.
    """

    frames: int
    length: int
    repeats: int


def levels(
    shapes: Sequence[Shape], num_classes: int, characters: Mapping[str, int], dummy: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Computes reference levels of the mean loss, in nats a line.

    Args:
      shapes: of a sample of training lines that can be aligned.
      num_classes: C, including the blank.
      characters: how often each occurs in the data.
      dummy: how the labels of dummy data were drawn, as its manifest says.

    Returns:
      `uniform`: all classes equally likely in every frame, as in an untrained network;
      `double_softmax`: the floor where a softmax is fed into a softmax, in which no class can exceed e / (e + C - 1);
      `log_epsilon`: the plateau where log(p + 1e-7) is fed as logits, and the labels' gradients have vanished;
      `blank`: the plateau of a network that ignores the image, and gives every frame the same mixture of the blank and the
      characters by their frequency;
      `entropy`: of labels whose characters are drawn independently, the floor for images that carry no information.
    """
    character_entropy = _entropy(characters.values())
    length_entropy = _entropy(np.unique([shape.length for shape in shapes], return_counts=True)[1])
    if dummy:  # known exactly
        character_entropy, length_entropy = math.log(dummy["num_classes"] - 1), math.log(dummy["max_label_length"])
    frames, lengths, repeats = (np.array(column, np.float64) for column in zip(*shapes, strict=True))
    mean_length = lengths.mean()
    # The best share of frames that show a character: one frame a character, at any place.
    rho = min(mean_length / frames.mean(), 1 - 1e-6)
    in_frames = lengths * math.log(max(rho, 1e-9)) + (frames - lengths) * math.log(1 - rho)
    nats = {
        "uniform": np.mean(frames * math.log(num_classes) - _log_choose(frames + lengths - repeats, 2 * lengths)),
        "double_softmax": np.mean([_double_softmax_floor(s.frames, s.length, num_classes) for s in shapes[:_MAX_LINES]]),
        "log_epsilon": np.mean(-lengths * math.log(_EPSILON) - _log_choose(frames - repeats, lengths)),
        "blank": mean_length * character_entropy - np.mean(in_frames + _log_choose(frames - repeats, lengths)),
        "entropy": mean_length * character_entropy + length_entropy,
    }
    return {name: round(float(value), 3) for name, value in nats.items()}


def standing(loss: float, levels: Mapping[str, float]) -> str:
    """Describes between which two reference levels a loss is."""
    above = [name for name in levels if levels[name] > loss]
    below = [name for name in levels if levels[name] <= loss]
    parts = [f"loss {loss:.1f}"]
    if below:
        name = max(below, key=levels.__getitem__)
        parts.append(f"above {name} {levels[name]:.1f}")
    if above:
        name = min(above, key=levels.__getitem__)
        parts.append(f"below {name} {levels[name]:.1f}")
    return ", ".join(parts)


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the binomial coefficient."""
    lgamma = np.vectorize(math.lgamma)
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _entropy(counts: Iterable[int]) -> float:
    """Returns the entropy, in nats, of the distribution from which a sample has these counts.

    A sample's own entropy is too low on average; the correction is that of Miller, 1955, "Note on the bias of information
    estimates".
    """
    share = np.array([count for count in counts if count > 0], np.float64)
    total = share.sum()
    share /= total
    return float(-(share * np.log(share)).sum() + (len(share) - 1) / (2 * total))


@functools.cache
def _double_softmax_floor(frames: int, length: int, num_classes: int) -> float:
    """Returns the lowest loss, in nats, of outputs that are probabilities and certain of one class in each frame.

    Each character is shown for the number of frames that is best, with blanks between.
    """
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
    """Returns the log of the sum, over all alignments, of exp(number of frames in which they agree with the target).

    Args:
      target: int[T], the state shown in each frame: blanks are even, the characters 1, 3, ... odd.
      length: of the label.
    """
    states = np.arange(2 * length + 1)
    may_skip = np.where(states % 2 == 1, 0.0, -np.inf)
    log_sum = np.full(len(states) + 2, -np.inf)  # two states before the first, never entered
    log_sum[2] = 0.0
    for state in target:
        entered = np.logaddexp(np.logaddexp(log_sum[2:], log_sum[1:-1]), log_sum[:-2] + may_skip)
        log_sum[2:] = entered + (states == state if state % 2 else states % 2 == 0)
    return float(np.logaddexp(log_sum[-1], log_sum[-2]))
