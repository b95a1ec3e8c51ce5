import itertools
import multiprocessing
import os
import signal
import time

import pytest

from ocr import parallel
from tfrecords.errors import InputError

_PREPARED: list[int] = []


def prepare(number: int) -> None:
    _PREPARED.append(number)


def work(item: int) -> tuple[int, list[int]]:
    if item == 13:
        raise ValueError("item 13")
    return item * item, _PREPARED


def much(item: int) -> bytes:
    return bytes(2**24)  # more than a pipe holds


def kill_this_process(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_each_worker_is_prepared_once(workers: int):
    _PREPARED.clear()
    results = list(parallel.in_order(work, range(12), workers, prepare, 7))
    assert [square for square, _ in results] == [item * item for item in range(12)]
    assert {tuple(prepared) for _, prepared in results} == {(7,)}


def test_few_items_are_taken_before_their_results_are():
    taken = itertools.count()
    results = parallel.in_order(work, (next(taken) for _ in range(12)), 2, prepare, 7)
    next(results)
    assert next(taken) <= 5
    results.close()


def test_an_error_of_a_worker_is_raised_in_its_turn():
    results = parallel.in_order(work, range(10, 20), 2, prepare, 7)
    assert [next(results)[0] for _ in range(3)] == [100, 121, 144]
    with pytest.raises(ValueError, match="item 13"):
        next(results)


def test_a_worker_that_is_killed_at_work_ends_the_map():
    with pytest.raises(InputError, match="--workers=2: a worker was killed"):
        list(parallel.in_order(kill_this_process, range(8), 2, prepare, 7))


def test_a_worker_that_is_killed_in_the_middle_of_its_answer_ends_the_map():
    results = parallel.in_order(much, range(8), 2, prepare, 7)
    next(results)
    time.sleep(0.5)  # now both workers wait for room in their pipes
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(InputError, match="--workers=2: a worker was killed"):
        list(results)
