import itertools
import os
import pathlib
import statistics
import time

import pytest

from ocr.config import TrainConfig
from ocr.training import train

STEPS = 10_000


def resident() -> int:
    """Returns the memory of this process in bytes."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.proof("train-proof")
def test_a_long_training_gets_neither_slower_nor_larger(trained, tmp_path: pathlib.Path):
    measured: list[tuple[float, int]] = []  # after every ten steps

    def measure() -> bool:
        measured.append((time.monotonic(), resident()))
        return False

    # No evaluation, no checkpoint: the steps alone.
    data = {"train_data": str(trained.records), "eval_data": str(trained.records), "workdir": str(tmp_path / "run")}
    rare = dict.fromkeys(("eval_every", "checkpoint_every"), STEPS)
    train.train(TrainConfig(**data, steps=STEPS, batch_size=8, log_every=100, **rare), measure)
    measured = measured[: STEPS // 10]  # the evaluation after the last step does not count
    durations = [after - before for (before, _), (after, _) in itertools.pairwise(measured)]
    early, late = statistics.median(durations[10:110]), statistics.median(durations[-100:])
    # Where machines are slower at times for reasons of their own, the fastest tenth of a third says more; it is only printed.
    third = len(durations) // 3
    fast, still = (statistics.quantiles(some, n=10)[0] for some in (durations[10:third], durations[-third:]))
    print(f"\nten steps: {early:.4f} s early, {late:.4f} s late, {late / early:.3f}x; fastest {still / fast:.3f}x; "
          f"memory: {measured[10][1]} early, {measured[-1][1]} late, {measured[-1][1] / measured[10][1]:.3f}x")  # fmt: skip
    assert late < 1.02 * early
    assert measured[-1][1] < 1.05 * measured[10][1]
