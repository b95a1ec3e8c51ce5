"""Times our way against the stock way: in one process, in turn, so that the ratio holds while the machine's speed drifts."""

import statistics
import time
from collections.abc import Callable, Mapping

from ocr.progress import Progress

_ROUNDS = ((2.0, 10), (20.0, 4), (float("inf"), 1))  # what takes longer, in seconds, is timed less often


def against(
    ours: Callable[[], object],
    others: Mapping[str, Callable[[], object]],
    what: str,
    before: Callable[[], object] = lambda: None,
) -> dict[str, dict[str, float]]:
    """Times one way against others.

    Args:
      ours: does the work once.
      others: the same by name.
      what: one word for the work.
      before: called before each timing of ours, and not timed.

    Returns:
      By name: milliseconds of both (medians), and `ratio`, how many times our time the other takes: the median over rounds
      of one call each, with the `lowest` and `highest` of a round.
    """
    results = {}
    with Progress(f"timing {what}", len(others), "ways") as bar:
        for done, (name, other) in enumerate(others.items(), 1):
            ours()
            first = _seconds(other)
            rounds = next(rounds for most, rounds in _ROUNDS if first <= most)
            pairs = []
            for _ in range(rounds):
                before()
                pairs.append((_seconds(ours), _seconds(other)))
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


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
