"""Admission control: it measures how long check-ins wait for a thread, instead of guessing how long they would.

A request that finds no free thread waits in line, first come first served. What it has really waited decides its fate,
and nothing else: requests that were slow a moment ago say nothing about those that come now. One that has waited too
long is refused without a thread. One that a thread has taken is answered within ``ANSWER_S``, whatever etcd does; its
thread finishes what it began.

Check-ins have threads of their own, so a fleet that checks in at once does not keep an operator from the API.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

import anyio
import anyio.to_thread

from outrider.core.errors import Throttled
from outrider.service.rollouts.batches import COME_BACK_S as COME_BACK_S

T = TypeVar("T")

THREADS = 32
"""Threads mostly wait, for etcd and for each other: ``make bench-omaha`` had the same result with 16 and with 64."""
BUSY_S = 1.0
"""From this waiting time on, polling clients are asked to come later."""
FULL_S = 5.0
"""After this waiting time, a request is refused: half of a sidekick's timeout, so it still hears the answer."""
ANSWER_S = 9.5
"""From its arrival to its answer, a request takes no longer: a sidekick's timeout is 10 s."""


class AdmissionControl:
    """Runs check-ins on threads and measures how long they wait. Belongs to one event loop."""

    def __init__(
        self,
        threads: int = THREADS,
        clock: Callable[[], float] = monotonic,
        *,
        full_s: float = FULL_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        """``clock``: what is measured by; ``full_s`` and ``answer_s``: as the constants, on the real clock."""
        self._free, self._clock, self._full_s, self._answer_s = threads, clock, full_s, answer_s
        self._line: deque[asyncio.Future[None]] = deque()
        self._unlimited: anyio.CapacityLimiter | None = None
        self.runs = 0
        """Check-ins that a thread has begun or will begin."""

    @property
    def waiting(self) -> int:
        """Check-ins that wait for a thread."""
        return sum(not one.done() for one in self._line)

    async def run(self, work: Callable[[bool], T]) -> T:
        """Run ``work`` on a thread, after earlier requests; its argument says whether the service is busy.

        Raises:
            Throttled: it has waited too long, and nothing was done; or its answer takes too long, and it may have been
                booked all the same.
        """
        came = self._clock()
        real = monotonic()
        self.runs += 1
        await self._enter(came)

        def on_thread() -> T:
            waited = self._clock() - came
            if waited > FULL_S:
                raise _too_busy(waited)
            return work(waited > BUSY_S)

        if self._unlimited is None:
            self._unlimited = anyio.CapacityLimiter(math.inf)
        # a task of its own: who goes away, or is answered before it has ended, leaves its thread to finish
        task = asyncio.create_task(anyio.to_thread.run_sync(on_thread, limiter=self._unlimited))
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait((task,), timeout=max(self._answer_s - (monotonic() - real), 0.0))
        if not done:
            raise no_answer_in_time()
        return task.result()

    async def _enter(self, came: float) -> None:
        """Wait for a free thread; whoever came before goes before."""
        if self._free:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        try:
            done, _ = await asyncio.wait((place,), timeout=self._full_s)
        except BaseException:
            self._give_up(place)
            raise
        if not done:
            self._give_up(place)
            raise _too_busy(max(self._clock() - came, self._full_s))

    def _give_up(self, place: "asyncio.Future[None]") -> None:
        """Leave the line; a thread that had just become free goes to the next."""
        if place.done():
            self._leave()
        else:
            place.cancel()
            self._line.remove(place)

    def _leave(self) -> None:
        if self._line:
            self._line.popleft().set_result(None)
        else:
            self._free += 1

    def _ended(self, task: "asyncio.Task[T]") -> None:
        self._leave()
        if not task.cancelled():
            task.exception()  # of one that nobody waits for any more


def come_back_s() -> int:
    """Seconds after which a client comes back: a random time for each client."""
    return random.randint(*COME_BACK_S)  # noqa: S311 - spreads the clients, keeps nothing secret


def no_answer_in_time() -> Throttled:
    """What is said to a client whose answer takes too long."""
    seconds = come_back_s()
    return Throttled(
        f"no answer in time; the request may have been booked all the same; try again in {seconds} s",
        retry_after_s=seconds,
    )


def _too_busy(wait_s: float) -> Throttled:
    seconds = come_back_s()
    return Throttled(f"too busy: an answer would take {wait_s:.0f} s; try again in {seconds} s", retry_after_s=seconds)
