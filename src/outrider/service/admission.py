"""Admission control: it measures how busy the service is with check-ins, instead of counting requests.

A request that finds no free thread waits in a queue. The time that it really waited decides its fate when a thread
takes it. On arrival, the least waiting time decides: ``waiting x service time / threads``. The service time is the time
for which recent requests kept their threads, including etcd's answers. This is a lower bound, because threads hinder
each other: no request is refused wrongly on arrival, and a request that was admitted too lightly is refused quickly
later.

Check-ins have threads of their own, so a fleet that checks in at once does not keep an operator from the API.
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
"""Threads mostly wait, for etcd and for each other: ``make bench-omaha`` had the same result with 16 and with 64."""
BUSY_S = 1.0
"""From this waiting time on, polling clients are asked to come later."""
FULL_S = 5.0
"""From this waiting time on, a request is refused: half of a sidekick's timeout, so it still hears the answer."""
COME_BACK_S = (30, 90)
"""A random time between these, so that the clients do not return all at once."""
_LATELY = 0.05
"""Weight of the newest request in the average, which covers about the last twenty."""


class AdmissionControl:
    """Runs check-ins on threads and measures how long they wait. Belongs to one event loop."""

    def __init__(self, threads: int = THREADS, clock: Callable[[], float] = monotonic) -> None:
        """Start without measurements: the waiting time is 0."""
        self._limiter = anyio.CapacityLimiter(threads)
        self._threads = threads
        self._clock = clock
        self._inside = 0
        self.runs = 0
        """Check-ins that a thread has begun or will begin."""
        self._service_time_s = 0.0

    @property
    def least_wait_s(self) -> float:
        """The least waiting time of the next request, in seconds."""
        return max(self._inside - self._threads, 0) * self._service_time_s / self._threads

    def let_in(self) -> None:
        """Refuse a request that would wait too long.

        Raises:
            Throttled: with the time after which to try again.
        """
        if self.least_wait_s > FULL_S:
            raise _too_busy(self.least_wait_s)

    async def run(self, work: Callable[[bool], T]) -> T:
        """Run ``work`` on a thread, after earlier requests; its argument says whether the service is busy.

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
        self.runs += 1
        try:
            outcome, service_time_s = await anyio.to_thread.run_sync(timed, limiter=self._limiter)
        finally:
            self._inside -= 1
        self._service_time_s += (service_time_s - self._service_time_s) * (_LATELY if self._service_time_s else 1.0)
        return outcome


def come_back_s() -> int:
    """Seconds after which a client comes back: a random time for each client."""
    return random.randint(*COME_BACK_S)  # noqa: S311 - spreads the clients, keeps nothing secret


def _too_busy(wait_s: float) -> Throttled:
    seconds = come_back_s()
    return Throttled(f"too busy: an answer would take {wait_s:.0f} s; try again in {seconds} s", retry_after_s=seconds)
