"""A crowd of check-ins: who waits, who is asked to come later, who is refused."""

import contextlib
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from fastapi import FastAPI

from outrider.core.errors import Throttled
from outrider.core.omaha import AppRequest, NoUpdate, Offer, OmahaEvent, OmahaRequest, parse_response, render_request
from outrider.service.admission import BUSY_S, COME_BACK_S, FULL_S, AdmissionControl
from outrider.service.store.store import Store
from tests.service.api.test_http import CHECK
from tests.sim.fake_etcd import FakeCluster
from tests.support.in_process import Answer, application_over, ask
from tests.support.service_examples import APP, make_app
from tests.support.waiting import eventually


class Stopwatch:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Crowd:
    """Requests to a service with one thread, which the first of them keeps until it is told to go on."""

    def __init__(self) -> None:
        self.clock = Stopwatch()
        self.admission = AdmissionControl(threads=1, clock=self.clock)
        self.told: list[str] = []
        self.go_on = threading.Event()
        self.held = threading.Event()

    def hold(self, is_busy: bool) -> None:
        self.held.set()
        assert self.go_on.wait(60)

    async def come(self, name: str) -> None:
        try:
            await self.admission.run(lambda is_busy: self.told.append(f"{name} {'busy' if is_busy else 'served'}"))
        except Throttled:
            self.told.append(f"{name} refused")

    async def snapshot(self, waits_s: float, *after: Callable[[], Awaitable[None]]) -> None:
        """One holds the thread, another waits ``waits_s``, then it goes on."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.admission.run, self.hold)
            await anyio.to_thread.run_sync(self.held.wait)
            group.start_soon(self.come, "second")
            await anyio.wait_all_tasks_blocked()
            self.clock.now_s += waits_s
            self.go_on.set()
        for each in after:
            await each()


@pytest.mark.parametrize(
    ("waits_s", "told"),
    [
        (BUSY_S - 0.1, "second served"),
        (BUSY_S + 0.1, "second busy"),
        (FULL_S - 0.1, "second busy"),
        (FULL_S + 0.1, "second refused"),
    ],
)
def test_how_long_a_request_waited_decides_what_becomes_of_it(waits_s: float, told: str) -> None:
    crowd = Crowd()

    anyio.run(crowd.snapshot, waits_s)

    assert [told] == crowd.told


def test_a_crowd_that_is_gone_leaves_nothing_behind() -> None:
    crowd = Crowd()

    async def third() -> None:
        await crowd.come("third")

    anyio.run(crowd.snapshot, FULL_S * 10, third)

    assert ["second refused", "third served"] == crowd.told
    assert 0 == crowd.admission.waiting


def test_slow_requests_refuse_nobody_who_comes_after_them() -> None:
    """Ten took three seconds each, because etcd was away for a while; the next forty come when it is back."""
    crowd = Crowd()

    async def snapshot() -> None:
        for _ in range(10):
            await crowd.admission.run(lambda _: setattr(crowd.clock, "now_s", crowd.clock.now_s + 3.0))
        async with anyio.create_task_group() as group:
            group.start_soon(crowd.admission.run, crowd.hold)
            await anyio.to_thread.run_sync(crowd.held.wait)
            for number in range(40):
                group.start_soon(crowd.come, f"{number}")
            await anyio.wait_all_tasks_blocked()
            assert 40 == crowd.admission.waiting
            crowd.go_on.set()

    anyio.run(snapshot)

    assert [f"{number} served" for number in range(40)] == crowd.told


def test_who_has_waited_too_long_is_refused_while_every_thread_is_taken() -> None:
    admission, held, go_on = AdmissionControl(threads=1, full_s=0.05), threading.Event(), threading.Event()

    def hold(_: bool) -> None:
        held.set()
        assert go_on.wait(60)

    async def snapshot() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(admission.run, hold)
            await anyio.to_thread.run_sync(held.wait)
            with pytest.raises(Throttled, match="too busy") as refusal:
                await admission.run(lambda _: None)
            assert COME_BACK_S[0] <= refusal.value.retry_after_s <= COME_BACK_S[1]
            assert 0 == admission.waiting
            go_on.set()

    anyio.run(snapshot)


def test_an_answer_that_takes_too_long_is_not_waited_for_and_keeps_its_thread_until_it_is_there() -> None:
    """
    1. the only thread works on a request that etcd doesn't answer; its client is told so in time
    2. the thread is not free before the work has ended; then the next one has it
    """
    admission, go_on = AdmissionControl(threads=1, full_s=60, answer_s=0.05), threading.Event()
    told: list[str] = []

    def first(_: bool) -> None:
        assert go_on.wait(60)
        told.append("first")

    async def snapshot() -> None:
        with pytest.raises(Throttled, match="no answer in time"):
            await admission.run(first)
        async with anyio.create_task_group() as group:
            group.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            assert (1, []) == (admission.waiting, told)
            go_on.set()

    async def second() -> None:
        with contextlib.suppress(Throttled):  # on a busy machine its answer is late, too
            await admission.run(lambda _: told.append("second"))

    anyio.run(snapshot)

    assert ["first", "second"] == told


def test_who_goes_away_while_it_waits_leaves_the_line() -> None:
    admission, held, go_on = AdmissionControl(threads=1), threading.Event(), threading.Event()
    told: list[str] = []

    def hold(_: bool) -> None:
        held.set()
        assert go_on.wait(60)

    async def snapshot() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(admission.run, hold)
            await anyio.to_thread.run_sync(held.wait)
            async with anyio.create_task_group() as leaving:
                leaving.start_soon(admission.run, lambda _: told.append("gone"))
                await anyio.wait_all_tasks_blocked()
                leaving.cancel_scope.cancel()
            go_on.set()
            await admission.run(lambda _: told.append("served"))

    anyio.run(snapshot)

    assert ["served"] == told


def test_work_that_fails_gives_its_place_back() -> None:
    admission = AdmissionControl(threads=1)

    def fail(_: bool) -> None:
        raise ValueError("ours")

    async def snapshot() -> None:
        for _ in range(5):
            with pytest.raises(ValueError, match="ours"):
                await admission.run(fail)
        assert 0 == admission.waiting

    anyio.run(snapshot)


@pytest.fixture
def application(client: FakeCluster, store: Store, tmp_path: Path) -> FastAPI:
    make_app(store, version="2.0.0")
    return application_over(client, tmp_path)


def waited(application: FastAPI, seconds: float) -> FastAPI:
    """As if every request had waited so long for its thread."""
    clock = Stopwatch()

    def jump() -> float:
        clock.now_s += seconds
        return clock.now_s

    application.state.context = replace(application.state.context, admission=AdmissionControl(clock=jump))
    return application


def seconds_of(answer: Answer) -> int:
    seconds = int(answer.headers["x-retry-after"])
    assert COME_BACK_S[0] <= seconds <= COME_BACK_S[1]
    return seconds


def check_of(**facts: object) -> bytes:
    words = {"app_id": APP, "version": "2.0.0", "track": "beta", "machine_id": "web-1", "update_check": True} | facts
    return render_request(OmahaRequest(apps=(AppRequest(**words),)))  # type: ignore[arg-type]


def test_a_busy_service_asks_who_polls_to_come_later_in_both_words(application: FastAPI) -> None:
    """``PollInterval`` for update_engine, the header for the others."""
    answer = ask(waited(application, 2 * BUSY_S), "POST", "/v1/update", check_of())

    (app,) = parse_response(answer.body).apps
    assert isinstance(app.update_check, NoUpdate)
    assert (200, seconds_of(answer)) == (answer.status, app.update_check.poll_interval_s)


def test_a_busy_service_does_not_send_away_who_has_work_to_do(application: FastAPI) -> None:
    busy = waited(application, 2 * BUSY_S)

    granted = ask(busy, "POST", "/v1/update", CHECK)
    reported = ask(busy, "POST", "/v1/update", check_of(update_check=False, events=(OmahaEvent(type=13, result=1),)))

    assert isinstance(parse_response(granted.body).apps[0].update_check, Offer)
    assert "x-retry-after" not in granted.headers
    assert "x-retry-after" not in reported.headers


def test_a_quiet_service_asks_for_nothing(application: FastAPI) -> None:
    answer = ask(application, "POST", "/v1/update", check_of())

    assert b"PollInterval" not in answer.body
    assert "x-retry-after" not in answer.headers


def test_a_service_that_is_full_says_503_and_when_to_come_back_and_books_nothing(
    application: FastAPI, store: Store
) -> None:
    answer = ask(waited(application, 2 * FULL_S), "POST", "/v1/update", check_of())

    assert (503, str(seconds_of(answer))) == (answer.status, answer.headers["retry-after"])
    assert answer.body.startswith(b"too busy: an answer would take 10 s")
    assert () == store.fleet.instances(APP)


def test_a_crowd_of_check_ins_does_not_keep_an_operator_out(application: FastAPI, client: FakeCluster) -> None:
    """Check-ins wait in threads of their own: all of them are taken here, and the API answers."""
    admission = application.state.context.admission
    begun, go_on = threading.Semaphore(0), threading.Event()

    def hold(_: bool) -> None:
        begun.release()
        assert go_on.wait(60)

    async def snapshot() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(admission.run, hold)
            await anyio.to_thread.run_sync(lambda: [begun.acquire(timeout=60) for _ in range(32)])
            answers.append(await anyio.to_thread.run_sync(lambda: ask(application, "GET", "/api/v1/apps")))
            go_on.set()

    answers: list[Answer] = []
    anyio.run(snapshot)

    assert [200] == [answer.status for answer in answers]
    eventually(lambda: admission.waiting == 0)
