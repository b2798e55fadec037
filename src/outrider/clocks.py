"""Clocks beside this machine's own: one that counts only the time in which this process runs, and the service's.

A sidekick may be suspended: SIGSTOP, a frozen container, a virtual machine that moves. Deadlines of what it *observes*
must not run meanwhile: a release isn't bad because nothing probed it, nor good because nothing noticed that it became
unhealthy. (Leases are different: they end by etcd's clock, and ``etcd/lease.py`` goes by that.)
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from loguru import logger

TICK_S = 0.5
LATE_S = 2.0
"""A busy machine may be late by this much; what is longer was a standstill. Taking one for the other only adds time."""


class SuspendAwareClock:
    """Seconds that never go back, without standstills. Any thread may read it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds that go on whatever happens to the process."""
        self._clock = clock
        self._reading = threading.Lock()
        self._seen_s = clock()
        self._stood_s = 0.0
        self._closed = threading.Event()

    def __call__(self) -> float:
        with self._reading:
            now_s = self._clock()
            gap_s = now_s - self._seen_s
            if gap_s > LATE_S:
                self._stood_s += gap_s - TICK_S
            self._seen_s = now_s
            return now_s - self._stood_s

    def start(self) -> "SuspendAwareClock":
        """Have a thread look at it often enough; without that the time between two readings is taken for standstill."""
        threading.Thread(target=self._tick, name="suspend-aware-clock", daemon=True).start()
        return self

    def _tick(self) -> None:
        # not time.sleep, which libfaketime 0.9.10 has the kernel refuse: a clock that nobody reads would stand still
        while not self._closed.wait(TICK_S):
            self()

    def close(self) -> None:
        """End that thread."""
        self._closed.set()


WRONG_S = 30.0
"""A clock that is off by more than this is said in the log."""


def seconds_since_boot() -> float:
    """A clock that nobody can set and that goes on while the machine sleeps, where the system has one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class ServiceClock:
    """The update service's time of day, which it also goes by: a machine whose own clock is wrong must compare with it.

    Each answer over HTTP has its ``Date``; from then on the time is counted by a clock that nobody sets. Until there
    was an answer it is this machine's own time. Any thread may read it.

    Args:
        machine: This machine's time, aware UTC.
        clock: Seconds that only move forward, also while the machine is suspended.
    """

    def __init__(
        self,
        machine: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = seconds_since_boot,
    ) -> None:
        self._machine, self._clock = machine, clock
        self._reading = threading.Lock()
        self._told: tuple[datetime, float] | None = None
        self._said_s = 0.0

    def tell(self, date: str) -> None:
        """Take over what an answer's ``Date`` says, to the second; what isn't a date is ignored."""
        try:
            told = parsedate_to_datetime(date)
        except ValueError:
            return
        told = told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
        off_s = (self._machine() - told).total_seconds()
        with self._reading:
            self._told = told, self._clock()
            says = abs(off_s - self._said_s) > WRONG_S
            if says:
                self._said_s = off_s if abs(off_s) > WRONG_S else 0.0
        if says and abs(off_s) > WRONG_S:
            way = "ahead of" if off_s > 0 else "behind"
            logger.warning("this machine's clock is {:.0f} s {} the update service's; set it", abs(off_s), way)

    def __call__(self) -> datetime:
        """Now, aware UTC."""
        with self._reading:
            told = self._told
            if told is None:
                return self._machine()
            return told[0] + timedelta(seconds=self._clock() - told[1])
