"""Compares the results of `ocr_bench` with those of an earlier run, kept in a file."""

import json
from collections.abc import Iterator
from typing import Any

from tfrecords.errors import InputError


def load(path: str) -> dict[str, Any]:
    """Loads what `ocr_bench --json` wrote.

    Raises:
      InputError: it cannot be read, or is something else.
    """
    try:
        with open(path, "rb") as file:
            results = json.load(file)
        for timed in results["settings"].values():
            rows = [row for rows in timed.values() for row in rows.values()]
            assert all(row["lines" if "lines" in row else "ours_ms"] > 0 for row in rows)
        assert {"processor", "flags"} <= results.keys()
    except OSError as error:
        raise InputError(f"--compare={path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(f"--compare={path}: not a file of results that --json wrote") from error
    return results


def changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each row that both runs have.

    It has the change of our time in per cent and both ratios to the alternative, or the figures of `questions` in both.
    """
    if (before["processor"], before["flags"]) != (after["processor"], after["flags"]):
        yield f"the earlier run was on another processor ({before['processor']}): compare the ratios, not the times"
    for settings, benches in after["settings"].items():
        for bench, rows in benches.items():
            for other, row in rows.items():
                earlier = before["settings"].get(settings, {}).get(bench, {}).get(other)
                if earlier and "lines" in row:
                    counts = (f"{key} {earlier.get(key)} to {value}" for key, value in row.items())
                    yield f"{bench}, {other}: {', '.join(counts)}"
                elif earlier:
                    times = f"ours {earlier['ours_ms']} to {row['ours_ms']} ms ({row['ours_ms'] / earlier['ours_ms'] - 1:+.0%})"
                    both = "ratio" in earlier and "ratio" in row
                    ratios = f", ratio {earlier['ratio']} to {row['ratio']}" if both else ""
                    yield f"{settings}, {bench}, {other}: {times}{ratios}"
