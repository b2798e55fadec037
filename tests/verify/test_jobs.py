"""Work in several processes: all results, in order, and nothing left behind."""

import multiprocessing
import os
import signal
from collections.abc import Iterator

import pytest

from outrider.verify.jobs import in_processes
from tests.support.waiting import eventually


def doubled(task: int) -> Iterator[int]:
    yield task
    yield task * 2


def failing(task: int) -> Iterator[int]:
    yield task
    if task == 2:
        raise ValueError("two")


def killed(task: int) -> Iterator[int]:
    yield task
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)


def endless(task: int) -> Iterator[int]:
    while True:
        yield task


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    assert [1, 2, 2, 4, 3, 6] == list(in_processes(doubled, [1, 2, 3], jobs))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_is_raised_behind_the_results_that_came_before_it(jobs: int) -> None:
    results = in_processes(failing, [1, 2, 3], jobs)
    assert [1, 2] == [next(results), next(results)]

    with pytest.raises(ValueError, match="two"):
        next(results)


def test_a_process_that_is_killed_is_an_error_and_no_end() -> None:
    with pytest.raises(RuntimeError, match="exit status -9"):
        list(in_processes(killed, [1, 2], 2))


def test_whoever_stops_asking_ends_the_processes() -> None:
    results = in_processes(endless, [1, 2], 2)
    assert 1 == next(results)

    results.close()  # type: ignore[attr-defined]

    eventually(lambda: not multiprocessing.active_children())
