"""A suspend-aware clock: it counts only the time in which this process runs.

A sidekick may be suspended: SIGSTOP, a frozen container, a virtual machine that moves. Deadlines of what it *observes*
must not run meanwhile: a release isn't bad because nothing probed it, nor good because nothing noticed that it became
unhealthy. (Leases are different: they end by etcd's clock, and ``etcd/lease.py`` goes by that.)
"""

import threading
import time
from collections.abc import Callable

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
        while True:
            self()
            time.sleep(TICK_S)
