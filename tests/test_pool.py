"""Threads that are borrowed: at once, in order within a queue, and gone afterwards."""

import contextvars
import threading
import time
from collections.abc import Iterator

import pytest

from outrider.pool import ElasticPool, Rounds, SerialQueue
from tests.support.waiting import eventually

word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


@pytest.fixture
def pool(no_thread_left: None) -> Iterator[ElasticPool]:
    made = ElasticPool("outrider-test")
    yield made
    made.close()


def test_tasks_of_a_queue_run_in_order_and_never_two_at_once(pool: ElasticPool) -> None:
    queues = [SerialQueue(pool) for _ in range(5)]
    told: list[list[int]] = [[] for _ in queues]
    inside = [0] * len(queues)

    def work(queue: int, number: int) -> None:
        inside[queue] += 1
        assert inside[queue] == 1, "two of one queue at once"
        told[queue].append(number)
        inside[queue] -= 1

    for number in range(200):
        for queue, one in enumerate(queues):
            one.put(lambda queue=queue, number=number: work(queue, number))  # type: ignore[misc]

    assert all(one.join(60) for one in queues)
    assert [list(range(200))] * 5 == told


def test_a_queue_that_hangs_delays_no_other(pool: ElasticPool) -> None:
    let_go = threading.Event()
    hung = [SerialQueue(pool) for _ in range(20)]
    for one in hung:
        one.put(lambda: let_go.wait(60))
    done = threading.Event()

    SerialQueue(pool).put(done.set)

    assert done.wait(60)
    assert not hung[0].join(0.0)
    let_go.set()
    assert all(one.join(60) for one in hung)


def test_threads_are_borrowed_and_end_when_there_is_no_work(no_thread_left: None) -> None:
    pool = ElasticPool("outrider-test", idle_s=0.1)
    queue = SerialQueue(pool)
    seen: set[int] = set()
    for _ in range(50):
        queue.put(lambda: seen.add(threading.get_ident()))
        assert queue.join(60)

    assert 1 <= len(seen) <= 50
    eventually(lambda: pool.threads == 0)
    again = threading.Event()
    queue.put(again.set)
    assert again.wait(60)
    eventually(lambda: pool.threads == 0)


def test_no_more_threads_than_work(pool: ElasticPool) -> None:
    gate = threading.Barrier(4)
    for _ in range(3):
        pool.run(lambda: gate.wait(60))

    eventually(lambda: pool.threads == 3)
    gate.wait(60)
    for _ in range(30):
        eventually(lambda: pool._idle == pool.threads)
        done = threading.Event()
        pool.run(done.set)
        assert done.wait(60)
    assert pool.threads == 3


def test_what_a_task_notes_for_its_context_the_next_one_of_the_queue_finds_and_no_other(pool: ElasticPool) -> None:
    first, second = SerialQueue(pool), SerialQueue(pool)
    found: list[str] = []
    word.set("the caller's")

    first.put(lambda: word.set("first"))
    first.put(lambda: found.append(word.get()))
    assert first.join(60)
    second.put(lambda: found.append(word.get()))
    assert second.join(60)

    assert ["first", "none"] == found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_task_that_fails_costs_none_of_those_behind_it(pool: ElasticPool, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: told.append(failed.exc_type))
    queue, done, gate = SerialQueue(pool), threading.Event(), threading.Event()

    def fail() -> None:
        gate.wait(60)
        raise KeyError("a bug")

    queue.put(fail)
    queue.put(done.set)
    gate.set()

    assert done.wait(60)
    assert queue.join(60)
    eventually(lambda: told == [KeyError])


def test_a_task_may_wait_for_its_own_queue(pool: ElasticPool) -> None:
    queue, answer = SerialQueue(pool), []

    queue.put(lambda: answer.append(queue.join(60)))

    eventually(lambda: answer == [True])
    assert not queue.is_own_thread


def test_what_is_cleared_is_not_run(pool: ElasticPool) -> None:
    queue, gate, told = SerialQueue(pool), threading.Event(), []
    queue.put(lambda: gate.wait(60))
    queue.put(lambda: told.append("late"))

    queue.clear()
    gate.set()

    assert queue.join(60)
    assert [] == told


def test_without_a_thread_the_caller_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = ElasticPool("outrider-test")
    monkeypatch.setattr(threading.Thread, "start", cannot)

    with pytest.raises(RuntimeError, match="can't start"):
        pool.run(lambda: None)

    assert 0 == pool.threads


def test_rounds_come_when_asked_for_and_when_a_round_says_so(pool: ElasticPool) -> None:
    gate, began, waits = threading.Semaphore(0), [0], iter([0.0, 0.01, None, None])

    def work() -> float | None:
        began[0] += 1
        gate.acquire(timeout=60)
        return next(waits)

    rounds = Rounds(pool, work)
    rounds.ask()
    eventually(lambda: began == [1])
    gate.release(3)
    eventually(lambda: began == [3])
    for _ in range(5):
        rounds.ask()
    gate.release()

    eventually(lambda: began == [4])
    assert rounds.close(60)
    rounds.ask()
    assert [4] == began


def test_a_round_that_failed_holds_back_the_next_whoever_asks(pool: ElasticPool) -> None:
    times: list[float] = []

    def work() -> float | None:
        times.append(time.monotonic())
        return rounds.hold(0.3) if len(times) == 1 else None

    rounds = Rounds(pool, work)
    rounds.ask()
    eventually(lambda: times)
    rounds.ask()

    eventually(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.3
    rounds.close(60)


def test_timers_run_in_their_order_and_those_that_were_cancelled_never(pool: ElasticPool) -> None:
    told: list[str] = []
    never = pool.run_later(0.05, lambda: told.append("never"))
    pool.run_later(0.4, lambda: told.append("late"))
    pool.run_later(0.1, lambda: told.append("soon"))

    pool.cancel(never)

    eventually(lambda: told == ["soon", "late"])


def test_a_closed_pool_runs_no_timer_and_what_is_asked_for_at_once(no_thread_left: None) -> None:
    pool, told, done = ElasticPool("outrider-test"), [], threading.Event()
    pool.run_later(0.05, lambda: told.append("timer"))

    pool.close()
    pool.run_later(0.01, lambda: told.append("later"))
    pool.run(done.set)

    assert done.wait(60)
    assert [] == told


def test_rounds_with_threads_of_their_own_take_them_along(no_thread_left: None) -> None:
    rounds = Rounds(None, lambda: 60.0, "outrider-rounds")
    rounds.ask()
    eventually(lambda: any(thread.name == "outrider-rounds-timer" for thread in threading.enumerate()))

    assert rounds.close(60)
