"""Reads the same lines with two variants of a recogniser, alternating in one process."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ocr.evaluation import metrics
from ocr.evaluation.metrics import LineResult
from ocr.model.recogniser import Recogniser

_BATCH = 32
_TIMED = {1: 100, _BATCH: 320}  # lines that are timed at most, by the size of batches

_Read = Callable[[tf.Tensor], dict[str, tf.Tensor]]


class Reading(NamedTuple):
    """What one of the two read.

    Attributes:
      texts: of the lines.
      confidences: float32[lines].
    """

    texts: list[str]
    confidences: np.ndarray

    def results(self, truths: Sequence[str]) -> list[LineResult]:
        """Returns the results of lines with these labels."""
        rows = zip(truths, self.texts, self.confidences.tolist(), strict=True)
        return [LineResult("", truth, text, confidence) for truth, text, confidence in rows]


class Variants:
    """Two recognisers of image files, in graphs as an export has them.

    Args:
      plain: without what is measured.
      other: with it.
    """

    def __init__(self, plain: Recogniser, other: Recogniser):
        signature = [tf.TensorSpec([None], tf.string)]
        self._reads: list[_Read] = [tf.function(each.read_files, signature, autograph=False) for each in (plain, other)]

    def read(self, files: Sequence[bytes]) -> tuple[Reading, Reading]:
        """Reads image files with both."""
        both, _ = self._alternate(files, _BATCH)
        return both

    def compared(self, files: Sequence[bytes], truths: Sequence[str], plain: str) -> dict[str, float]:
        """Reads image files with both.

        Returns:
          The number of `lines`, the `cer` of the other, that of the plain one by its name, and how many texts `changed`.
        """
        one, other = self.read(files)
        return {
            "lines": len(files),
            "cer": error_rates(other.results(truths))["cer"],
            plain: error_rates(one.results(truths))["cer"],
            "changed": sum(text != changed for text, changed in zip(one.texts, other.texts, strict=True)),
        }

    def cpu_ratios(self, files: Sequence[bytes]) -> dict[str, float]:
        """Returns the CPU time of the other divided by that of the plain one: `cpu_1` one by one, `cpu_32` in batches."""
        self._alternate(files[:_BATCH], _BATCH)  # what runs for the first time takes longer
        ratios = {}
        for batch, most in _TIMED.items():
            _, ratio = self._alternate(files[:: -(-len(files) // most)], batch)
            ratios[f"cpu_{batch}"] = round(ratio, 2)
        return ratios

    def _alternate(self, files: Sequence[bytes], batch: int) -> tuple[tuple[Reading, Reading], float]:
        """Returns what both read, and the ratio of their CPU times."""
        outputs: tuple[list[Any], list[Any]] = ([], [])
        seconds = [0.0, 0.0]
        for number, start in enumerate(range(0, len(files), batch)):
            part = tf.constant(files[start : start + batch], tf.string)
            for which in (0, 1) if number % 2 else (1, 0):
                begun = time.process_time()
                read = self._reads[which](part)
                outputs[which].append((read["text"].numpy(), read["confidence"].numpy()))
                seconds[which] += time.process_time() - begun
        plain, other = (
            Reading([t.decode() for texts, _ in own for t in texts], np.concatenate([confidences for _, confidences in own]))
            for own in outputs
        )
        return (plain, other), seconds[1] / seconds[0]


def error_rates(results: Sequence[LineResult], name: str = "cer") -> dict[str, float]:
    """Returns the CER of lines, and its 95% interval as `low` and `high` of the same name."""
    measured = metrics.measures(results)
    low, high = measured["cer_interval"]
    return {name: round(measured["cer"], 5), f"{name}_low": round(low, 5), f"{name}_high": round(high, 5)}
