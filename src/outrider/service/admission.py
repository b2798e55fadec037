"""Admission control: how busy the service is with check-ins, by what was measured and not by a number of requests that
fits one machine.

A request that finds no thread free waits in line. How long it really waited decides what becomes of it when a thread
takes it up; at the door, how long it would wait at least: ``waiting x service time / threads``, where service time is
how long requests kept their threads lately, etcd's answers included. That is a lower bound (threads hinder each other),
so nobody is refused wrongly at the door, and whoever was let in by it too lightly is refused quickly later.

Check-ins have threads of their own: a fleet that asks all at once doesn't keep an operator from the API.
"""

import random
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

import anyio
import anyio.to_thread

from outrider.core.errors import Throttled

T = TypeVar("T")

THREADS = 32
"""Threads mostly wait, for etcd and for each other: ``make bench-omaha`` answered as many with 16 and with 64."""
BUSY_S = 1.0
"""From this wait on, who polls is asked to come later."""
FULL_S = 5.0
"""From this wait on a request is refused: half of the time that a sidekick waits, so it still hears the answer."""
COME_BACK_S = (30, 90)
"""Between these, at random: all at once again would be the same again."""
_LATELY = 0.05
"""Weight of the newest request in the average: about the last twenty count."""


class AdmissionControl:
    """Runs check-ins on threads and knows how long they wait. Belongs to one event loop."""

    def __init__(self, threads: int = THREADS, clock: Callable[[], float] = monotonic) -> None:
        """Start with nothing measured: nobody waits."""
        self._limiter = anyio.CapacityLimiter(threads)
        self._threads = threads
        self._clock = clock
        self._inside = 0
        self._service_time_s = 0.0

    @property
    def least_wait_s(self) -> float:
        """Seconds that the next request would wait at least."""
        return max(self._inside - self._threads, 0) * self._service_time_s / self._threads

    def let_in(self) -> None:
        """Refuse a request that would wait too long.

        Raises:
            Throttled: with the time after which to come back.
        """
        if self.least_wait_s > FULL_S:
            raise _too_busy(self.least_wait_s)

    async def run(self, work: Callable[[bool], T]) -> T:
        """Run ``work`` on a thread, after those that came before; it is told whether the service is busy.

        Raises:
            Throttled: it would wait, or has waited, too long; nothing was done.
        """
        self.let_in()
        came = self._clock()

        def timed() -> tuple[T, float]:
            begun = self._clock()
            if begun - came > FULL_S:
                raise _too_busy(begun - came)
            return work(begun - came > BUSY_S), self._clock() - begun

        self._inside += 1
        try:
            outcome, service_time_s = await anyio.to_thread.run_sync(timed, limiter=self._limiter)
        finally:
            self._inside -= 1
        self._service_time_s += (service_time_s - self._service_time_s) * (_LATELY if self._service_time_s else 1.0)
        return outcome


def come_back_s() -> int:
    """When a client shall come back, in seconds: another time for each."""
    return random.randint(*COME_BACK_S)  # noqa: S311 - spreads them, keeps nothing secret


def _too_busy(wait_s: float) -> Throttled:
    seconds = come_back_s()
    return Throttled(f"too busy: {wait_s:.0f} s until an answer; come back in {seconds} s", retry_after_s=seconds)
