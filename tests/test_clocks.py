"""The clock that leaves standstills out, and a probe's deadline by it."""

import os
import queue
import signal
import subprocess
import sys
import time
from dataclasses import replace

from outrider.clocks import LATE_S, TICK_S, SuspendAwareClock
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
