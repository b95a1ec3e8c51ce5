"""Watches a training under way for a bad learning rate, a network gone blank, and labels of another alphabet, or wrong ones."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ocr.charset import Charset
from ocr.doctor import findings
from ocr.doctor.findings import Finding
from ocr.evaluation import audit
from ocr.evaluation.metrics import LineResult, edit_distances
from ocr.model.objective import Objective

_LOG = logging.getLogger(__name__)

_MAX_CHANGE = 5.0  # of the weights in a few steps, relative to their norm: nothing is left of what they were
_MIN_CHANGE = 1e-5  # of the weights a step, relative to their norm: they would take a day to move
_BLOWN_UP, _UNMOVED = 1.5, 0.9  # losses, relative to that of an untrained network
_FIRST_STEPS = 20  # in which the loss may do anything
_MAX_CER = 0.1  # of a network whose opinion on labels counts
_MIN_DOUBTFUL, _MAX_DOUBTFUL = 5, 0.01  # labels; share of them
_FORGOTTEN, _MIN_FORGOTTEN = 0.03, 3  # share, and number, of lines that were read correctly before and no longer are


class Watch:
    """Collects findings while a network is trained.

    Args:
      objective: with the network that is evaluated.
      levels: reference levels of its loss.
      peak_rate: highest learning rate of the schedule.
      known: what was found before the first step; later findings are added to it and logged, each code once.
      write_report: called with what `doctor.json` holds, at once and after every new finding.
    """

    def __init__(
        self,
        objective: Objective,
        levels: Mapping[str, float],
        peak_rate: float,
        known: list[Finding],
        write_report: Callable[[dict[str, Any]], None],
    ):
        self._objective, self._levels, self._peak_rate, self.findings = objective, levels, peak_rate, known
        self._before: list[tf.Tensor] = []
        self._untrained_loss = 0.0
        self._read_before: Sequence[LineResult] = ()
        self._write_report = write_report
        write_report(self.report())

    def remember(self, results: Sequence[LineResult]) -> None:
        """Takes what the model that is to be kept reads of the lines of an evaluation: `after_evaluation` compares."""
        self._read_before = results

    def before_steps(self, weights: Sequence[tf.Variable]) -> None:
        """Remembers the trainable weights, for `after_steps` to compare with."""
        self._before = [tf.identity(weight) for weight in _kernels(weights)]

    def after_steps(self, step: int, count: int, loss: float, rate: float, weights: Sequence[tf.Variable]) -> None:
        """Judges the learning rate by how far it has moved the weights.

        Args:
          step: number of the last step.
          count: steps since `before_steps`.
          loss: recent mean CTC loss, in nats a line.
          rate: learning rate.
          weights: as `before_steps` was given them.
        """
        if not self._before:
            return
        after, before = _kernels(weights), self._before
        self._before = []
        moved = tf.linalg.global_norm([new - old for new, old in zip(after, before, strict=True)])
        change = float(moved / tf.maximum(tf.linalg.global_norm(before), 1e-12))
        uniform = self._levels["uniform"]
        self._untrained_loss = self._untrained_loss or max(loss, uniform)  # initial weights may be worse than uniform
        started = step >= _FIRST_STEPS
        if not change <= _MAX_CHANGE or (loss > _BLOWN_UP * self._untrained_loss and started):
            self._add(
                "rate_high",
                f"{count} steps changed the weights by {change:.2g} times their norm, and the loss is {loss:.1f}, where that "
                f"of uniform outputs is {uniform:.1f}.",
            )
        elif change < _MIN_CHANGE * count and rate > 0.5 * self._peak_rate and loss > _UNMOVED * uniform and started:
            self._add(
                "rate_low",
                f"{count} steps changed the weights by {change:.1g} times their norm: at a rate of {rate:.2g} nothing is "
                "learned.",
            )

    def after_evaluation(self, results: Sequence[LineResult], charset: Charset, batch: dict[str, tf.Tensor]) -> None:
        """Examines what was read.

        Args:
          results: of all lines of an evaluation.
          charset: of the network.
          batch: lines on which to examine the logits where nothing was read.
        """
        self._compare(results)
        texts, truths = [result.text for result in results], [result.truth for result in results]
        if not any(texts):
            logits, frames = self._objective.logits(batch, training=False)
            logits = tf.boolean_mask(logits, tf.sequence_mask(frames, tf.shape(logits)[1]))  # [all frames, C]
            spread = float(tf.reduce_max(tf.reduce_max(logits, axis=0) - tf.reduce_min(logits, axis=0)))
            if spread < 1e-3 * float(tf.reduce_max(tf.abs(logits))) + 1e-6:
                self._add("collapsed_blank", "Every frame of every line has the same logits, with the blank the highest.")
            return
        if len(set("".join(texts))) < 3:
            return  # it outputs the most frequent characters whatever the image
        wrong = edit_distances(truths, texts).sum()
        characters = sum(map(len, truths))
        if wrong <= _MAX_CER * characters:
            self._check_labels(results)
        if wrong <= 0.5 * characters:
            return
        for shift in (1, -1):
            shifted = [charset.decode((label + shift) % charset.blank for label in charset.encode(text)) for text in texts]
            if edit_distances(truths, shifted).sum() < 0.3 * wrong:
                sentence = f"Each character is read as its neighbor in the alphabet: these labels differ by {shift:+d}."
                self._add("labels_shifted", sentence)

    def _check_labels(self, results: Sequence[LineResult]) -> None:
        """Counts labels that are far less probable than what is read, by a network that reads well."""
        doubtful = int((audit.wrong_probabilities(results) >= 0.5).sum())
        if doubtful >= _MIN_DOUBTFUL and doubtful > _MAX_DOUBTFUL * len(results):
            sentence = f"{doubtful} of the {len(results)} evaluation labels are probably wrong, judging by the images."
            self._add("labels_wrong", sentence)

    def _compare(self, results: Sequence[LineResult]) -> None:
        """Finds out whether lines are misread that the model that is to be kept reads correctly."""
        pairs = zip(self._read_before, results, strict=False)
        kept = [after.text == after.truth for before, after in pairs if before.text == before.truth]
        forgotten = len(kept) - sum(kept)
        if forgotten >= max(_MIN_FORGOTTEN, _FORGOTTEN * len(kept)):
            self._add(
                "forgetting",
                f"Of {len(kept)} held-out lines that the initial weights read correctly, {forgotten} are misread now.",
            )

    def report(self) -> dict[str, Any]:
        """Returns what `doctor.json` holds."""
        return findings.report(self._levels, self.findings)

    def _add(self, code: str, sentence: str) -> None:
        if any(finding.code == code for finding in self.findings):
            return
        finding = Finding(code, sentence, definite=False)
        self.findings.append(finding)
        _LOG.warning("doctor: %s", finding)
        self._write_report(self.report())


def _kernels(weights: Sequence[tf.Variable]) -> list[tf.Variable]:
    return [weight for weight in weights if len(weight.shape) > 1]
