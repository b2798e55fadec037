"""The clock that leaves standstills out, and a probe's deadline by it."""

import os
import queue
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from loguru import logger

from outrider.clocks import LATE_S, TICK_S, ServiceClock, SuspendAwareClock
from outrider.sidekick.prober import Failed, Prober, Verdict
from tests.sidekick.test_prober import SETTINGS, App
from tests.support.waiting import eventually


class Hand:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_time_goes_on_while_somebody_looks() -> None:
    hand = Hand()
    clock = SuspendAwareClock(hand)
    begun_s = clock()

    for _ in range(60):
        hand.now_s += LATE_S / 2
        clock()

    assert 60 * LATE_S / 2 == clock() - begun_s


def test_a_standstill_is_a_tick_long() -> None:
    hand = Hand()
    clock = SuspendAwareClock(hand)
    begun_s = clock()

    hand.now_s += 3600.0

    assert TICK_S == clock() - begun_s
    hand.now_s += 1.0
    assert TICK_S + 1.0 == clock() - begun_s


def test_a_stopped_process_does_not_count_the_time() -> None:
    script = (
        "import sys, time; from outrider.clocks import SuspendAwareClock\n"
        "clock = SuspendAwareClock().start(); begun, real = clock(), time.monotonic()\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(clock() - begun, time.monotonic() - real, flush=True)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert "ready\n" == child.stdout.readline()
        os.kill(child.pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        eventually(lambda: time.monotonic() - stopped_s > 2 * LATE_S)
        os.kill(child.pid, signal.SIGCONT)
        child.stdin.write("\n")
        child.stdin.flush()

        unsuspended_s, real_s = map(float, child.stdout.readline().split())

    assert real_s - unsuspended_s > LATE_S


def test_a_probe_does_not_fail_for_a_deadline_that_passed_while_nobody_asked() -> None:
    app, hand, verdicts = App(503), Hand(), queue.Queue[Verdict]()
    prober = Prober(replace(SETTINGS, deadline_s=1.0), clock=hand)
    try:
        prober.start(app.url, kind="prove", deliver=verdicts.put)
        eventually(lambda: len(app.seen) >= 10)
        assert verdicts.empty()

        hand.now_s += 1.0

        assert isinstance(verdicts.get(timeout=60), Failed)
    finally:
        app.close()


NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
TOLD = "Mon, 30 Nov 2026 12:00:00 GMT"


def test_before_any_answer_the_services_time_is_this_machines() -> None:
    assert NOON == ServiceClock(machine=lambda: NOON)()


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=400)])
def test_after_an_answer_it_goes_on_by_itself_whatever_this_machines_clock_says(off: timedelta) -> None:
    """A machine whose clock was an hour ahead took each of its grants for overdue, and asked again without a pause."""
    hand, machine = Hand(), [NOON + off]
    clock = ServiceClock(machine=lambda: machine[0], clock=hand)
    clock.tell(TOLD)

    hand.now_s += 90.0
    machine[0] -= timedelta(days=3)

    assert NOON + timedelta(seconds=90) == clock()
    clock.tell("Mon, 30 Nov 2026 12:01:31 GMT")
    assert NOON + timedelta(seconds=91) == clock()


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Nov 2026 12:00:00 GMT", "\ud800"])
def test_what_is_no_date_changes_nothing(date: str) -> None:
    clock = ServiceClock(machine=lambda: NOON + timedelta(hours=1), clock=Hand())
    clock.tell(TOLD)

    clock.tell(date)

    assert NOON == clock()


def test_a_wrong_clock_is_said_once_in_the_log() -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}", filter=ServiceClock.__module__)
    machine = [NOON + timedelta(hours=1)]
    clock = ServiceClock(machine=lambda: machine[0], clock=Hand())
    try:
        clock.tell(TOLD)
        clock.tell(TOLD)
        machine[0] = NOON
        clock.tell(TOLD)
        machine[0] = NOON - timedelta(minutes=2)
        clock.tell(TOLD)
    finally:
        logger.remove(sink)

    assert [
        "this machine's clock is 3600 s ahead of the update service's; set it\n",
        "this machine's clock is 120 s behind the update service's; set it\n",
    ] == lines
