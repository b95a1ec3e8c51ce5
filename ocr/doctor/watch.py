"""Looks on while a network is trained: faults of the learning rate, and a network that has stopped seeing its images."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ocr.charset import Charset
from ocr.doctor import findings
from ocr.doctor.findings import Finding
from ocr.evaluation.metrics import Reading, edits
from ocr.model.objective import Objective

_GROWN = 5.0  # times their size that weights change by in a few steps: nothing of what they were is left
_STILL = 1e-5  # of their size, a step: they would take a day
_BLOWN, _UNMOVED = 1.5, 0.9  # shares of an untrained network's loss
_FIRST = 20  # steps that are given to a training to begin with


class Watch:
    """Collects what is found while training.

    Args:
      learner: what is evaluated.
      levels: its reference lines.
      peak_rate: highest learning rate of the schedule.
      found: before; what is found is added, each code once, and told on stderr.
      keep: takes what `doctor.json` holds, now and whenever something is found.
    """

    def __init__(
        self,
        objective: Objective,
        levels: Mapping[str, float],
        peak_rate: float,
        found: list[Finding],
        keep: Callable[[dict[str, Any]], None],
    ):
        self._objective, self._levels, self._peak_rate, self.findings = objective, levels, peak_rate, found
        self._before: list[tf.Tensor] = []
        self._untrained = 0.0
        self._keep = keep
        keep(self.report())

    def before_steps(self, weights: Sequence[tf.Variable]) -> None:
        """Remembers the weights that are trained."""
        self._before = [tf.identity(weight) for weight in _kernels(weights)]

    def after_steps(self, step: int, count: int, loss: float, rate: float, weights: Sequence[tf.Variable]) -> None:
        """Compares with the weights of `count` steps ago. `loss` is the mean of late in nats, `rate` the learning rate."""
        if not self._before:
            return
        after, before = _kernels(weights), self._before
        self._before = []
        moved = tf.linalg.global_norm([new - old for new, old in zip(after, before, strict=True)])
        change = float(moved / tf.maximum(tf.linalg.global_norm(before), 1e-12))
        uniform = self._levels["uniform"]
        self._untrained = self._untrained or max(loss, uniform)  # first weights may be worse than none
        if not change <= _GROWN or (loss > _BLOWN * self._untrained and step >= _FIRST):
            sentence = (
                f"{count} steps changed the weights by {change:.2g} of their size, and the loss is {loss:.1f} where a network "
            )
            self._found("rate_high", sentence + f"that knows nothing has {uniform:.1f}.")
        elif change < _STILL * count and rate > 0.5 * self._peak_rate and loss > _UNMOVED * uniform and step >= _FIRST:
            sentence = (
                f"{count} steps changed the weights by {change:.1g} of their size: at a rate of {rate:.2g} nothing is learnt."
            )
            self._found("rate_low", sentence)

    def after_evaluation(self, readings: Sequence[Reading], charset: Charset, batch: dict[str, tf.Tensor]) -> None:
        """Looks at what was read, and at the logits of a batch."""
        if not any(reading.text for reading in readings):
            values, frames = self._objective.logits(batch, training=False)
            own = tf.boolean_mask(values, tf.sequence_mask(frames, tf.shape(values)[1]))
            spread = float(tf.reduce_max(tf.reduce_max(own, axis=0) - tf.reduce_min(own, axis=0)))
            if spread < 1e-3 * float(tf.reduce_max(tf.abs(own))) + 1e-6:
                self._found("collapsed_blank", "Every frame of every line has the same logits, blank the highest of them.")
            return
        if len(set("".join(reading.text for reading in readings))) < 3:
            return  # it gives the commonest characters, whatever it sees
        truths = [reading.truth for reading in readings]
        wrong = edits(truths, [reading.text for reading in readings]).sum()
        for step in (1, -1):
            moved = [_moved(reading.text, step, charset) for reading in readings]
            if wrong > 0.5 * sum(map(len, truths)) and edits(truths, moved).sum() < 0.3 * wrong:
                sentence = f"Read well, but for each character its neighbour in the alphabet: labels here differ by {step:+d}."
                self._found("labels_shifted", sentence)

    def report(self) -> dict[str, Any]:
        """Returns what `doctor.json` holds."""
        return findings.report(self._levels, self.findings)

    def _found(self, code: str, sentence: str) -> None:
        if all(finding.code != code for finding in self.findings):
            self.findings.append(Finding(code, sentence, definite=False))
            print(f"doctor: {self.findings[-1]}", file=sys.stderr)
            self._keep(self.report())


def _kernels(weights: Sequence[tf.Variable]) -> list[tf.Variable]:
    return [weight for weight in weights if len(weight.shape) > 1]


def _moved(text: str, step: int, charset: Charset) -> str:
    """Returns each character's neighbour in the alphabet."""
    return charset.decode((label + step) % charset.blank for label in charset.encode(text))
