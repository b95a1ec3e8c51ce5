"""Times alternatives in turn in one process, so that their ratio is valid even if the speed of the machine varies."""

import statistics
import time
from collections.abc import Callable, Mapping

import tensorflow as tf

from ocr.progress import Progress

Comparison = dict[str, dict[str, float]]  # figures by name of the alternative

_ROUNDS = ((2.0, 10), (20.0, 4), (float("inf"), 1))  # (limit in seconds, rounds): fewer rounds for slow alternatives


def compare(
    ours: Callable[[], object],
    others: Mapping[str, Callable[[], object]],
    job: str,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Times a function against alternatives.

    Args:
      ours: does the work once.
      others: the alternatives by name.
      job: one word for the work.
      before: called before each timing of `ours`, and not timed.
      clock: returns seconds.

    Returns:
      For each alternative: `ours_ms` and `theirs_ms`, the medians in milliseconds; and `ratio`, their time divided by ours: the
      median over rounds of one call each, with the `lowest` and `highest` of a round.
    """
    results = {}
    with Progress(f"timing {job}", len(others), "alternatives") as bar:
        for done, (name, other) in enumerate(others.items(), 1):
            ours()
            first = _seconds(other, clock)
            rounds = next(rounds for limit_s, rounds in _ROUNDS if first <= limit_s)
            pairs = []
            for _ in range(rounds):
                before()
                pairs.append((_seconds(ours, clock), _seconds(other, clock)))
            ratios = [theirs / own for own, theirs in pairs]
            results[name] = {
                "ours_ms": round(1e3 * statistics.median(own for own, _ in pairs), 2),
                "theirs_ms": round(1e3 * statistics.median(theirs for _, theirs in pairs), 2),
                "ratio": round(statistics.median(ratios), 2),
                "lowest": round(min(ratios), 2),
                "highest": round(max(ratios), 2),
            }
            bar.update(done, name)
    return results


def compiled(work: Callable[[tf.Tensor], object], argument: tf.Tensor) -> Callable[[], object]:
    """Returns a function that runs `work` on an argument as a `tf.function`."""
    function = tf.function(work, autograph=False)
    return lambda: function(argument)


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    work()
    return clock() - begun
