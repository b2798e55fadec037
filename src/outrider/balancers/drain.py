"""Draining: the wait from the balancer's change until the old instance gets no more requests (P4).

Two questions, one after the other: does the balancer still send new requests to the old address, and has the old
instance requests open? Each is answered by asking where that is possible, and by time where it isn't.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from outrider.balancers import Observer
from outrider.config.sections import DrainSettings
from outrider.failpoints import failpoint
from outrider.http import ask

POLL_S = 0.1
INFLIGHT_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """The old address gets nothing any more; ``how`` says how we know, for people."""

    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmoved:
    """The balancer surely still sends to the old address, or not to the new one: the old instance must not stop."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """``max_s`` passed with requests open, or with nothing known: whatever is open will be cut."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """``stop`` was set; nothing is decided."""


DrainVerdict = Drained | Unmoved | Expired | Interrupted


class Drain:
    """Waits for one swap at a time, as ``settings`` say."""

    def __init__(
        self, observer: Observer, settings: DrainSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``clock`` gives seconds that never go back."""
        self._observer, self._settings, self._clock = observer, settings, clock
        self._behind_s = 0.0
        """How long the last change was waited for in vain: the balancer is at least so far behind."""

    def wait(
        self,
        present: frozenset[str],
        absent: frozenset[str],
        *,
        inflight_url: str | None,
        stop: threading.Event,
        undoing: bool = False,
    ) -> DrainVerdict:
        """Wait until the balancer sends to ``present`` and not to ``absent``, and ``absent`` has finished.

        ``Observer.confirm`` is asked every 100 ms. While it can't tell, time decides: ``propagation_s`` without a
        "no". A "no" that lasts for ``confirm_timeout_s`` is the verdict ``Unmoved``. No time replaces the word of an
        observer that is ``exact``: then ``max_s`` must pass. Then requests under way: what the app says at
        ``inflight_url`` and what the balancer counts, until both are 0 twice in a row, or ``wait_s`` where neither
        counts. With nothing in ``absent`` there are none.

        Args:
            present: Addresses that must serve now.
            absent: Addresses that must get nothing any more.
            inflight_url: Where the old instance tells its number of open requests as plain text; None without it.
            stop: Ends the wait at once, with ``Interrupted``.
            undoing: The change takes back another one, which may be on its way to the balancer still: one that says
                "as you wish" may not have begun yet. So its word counts only after ``propagation_s``, and after as long
                as the change before was waited for in vain: a balancer that is late will still make it.
        """
        started = self._clock()
        end = started + self._settings.max_s
        doubted_s = max(self._observer.propagation_s, self._behind_s)
        heed_from = started + (doubted_s if undoing and not self._observer.exact else 0.0)
        propagated = self._propagated(present, absent, started, heed_from, end, stop)
        waited_s = self._clock() - started
        still_s = self._behind_s if undoing else 0.0
        self._behind_s = 0.0 if isinstance(propagated, Drained) else max(waited_s, still_s)
        if not isinstance(propagated, Drained) or not absent:
            return propagated
        finished = self._finished(absent, inflight_url, end, stop)
        if isinstance(finished, Drained):
            return Drained(how=f"{propagated.how}; {finished.how}")
        return finished

    def _propagated(
        self,
        present: frozenset[str],
        absent: frozenset[str],
        started: float,
        heed_from: float,
        end: float,
        stop: threading.Event,
    ) -> DrainVerdict:
        # a "no" ends in Unmoved, never in Expired: what surely still gets traffic isn't stopped, whatever max_s says
        give_up = min(started + self._settings.confirm_timeout_s, end)
        unsure_since, said_no = started, False
        while not stop.is_set():
            with failpoint("balancer.ask"):
                confirmed = self._observer.confirm(present=present, absent=absent)
            now = self._clock()
            if confirmed and now >= heed_from:
                return Drained(how=f"confirmed by {self._observer.name} after {now - started:.1f} s")
            if confirmed is False:
                unsure_since, said_no = now, True
            elif confirmed is None and self._observer.exact:
                said_no = False  # it was about to follow, and isn't heard any more
            elif confirmed is None and now - unsure_since >= self._observer.propagation_s:
                return Drained(how=f"not confirmed, waited {self._observer.propagation_s:g} s for it to reach all")
            if said_no and now >= give_up:
                return Unmoved(
                    why=f"{self._observer.name} did not follow within {now - started:.1f} s: it doesn't send to"
                    f" {_list(present)} or still sends to {_list(absent)}{self._doubt()}"
                )
            if now >= end:
                return Expired(
                    why=f"{self._settings.max_s:g} s passed before the change could have reached all{self._doubt()}"
                )
            stop.wait(POLL_S)
        return Interrupted()

    def _doubt(self) -> str:
        doubt = self._observer.doubt()
        return f"; {doubt}" if doubt else ""

    def _finished(
        self, absent: frozenset[str], inflight_url: str | None, end: float, stop: threading.Event
    ) -> DrainVerdict:
        started = self._clock()
        zeros = 0
        while not stop.is_set():
            counts = self._open(absent, inflight_url, end)
            open_requests = max(counts) if counts else None
            zeros = zeros + 1 if open_requests == 0 else 0
            now = self._clock()
            # twice: a request that the balancer had routed just before may have been on its way at the first look
            if zeros == 2:
                return Drained(how=f"no request open after {now - started:.1f} s")
            # whose word alone counts isn't replaced by time: it may have died with requests open
            unheard = self._observer.exact and self._doubt()
            if open_requests is None and not unheard and now - started >= self._settings.wait_s:
                unasked = "" if inflight_url is None else f", as {inflight_url} doesn't answer a number"
                return Drained(how=f"waited {self._settings.wait_s:g} s for open requests{unasked}")
            if now >= end:
                return Expired(
                    why=f"{self._settings.max_s:g} s passed with "
                    + ("requests perhaps open" if open_requests is None else f"{open_requests} requests open")
                    + self._doubt()
                )
            stop.wait(POLL_S)
        return Interrupted()

    def _open(self, absent: frozenset[str], inflight_url: str | None, end: float) -> list[int]:
        """What the app and the balancer count, as far as they do: one request may be counted by both."""
        told: list[int | None] = []
        if inflight_url is not None:
            with failpoint("app.ask"):
                told.append(_inflight(inflight_url, min(INFLIGHT_TIMEOUT_S, max(POLL_S, end - self._clock()))))
        with failpoint("balancer.ask"):
            told.append(self._observer.open_requests(absent))
        return [count for count in told if count is not None]


def _inflight(url: str, timeout_s: float) -> int | None:
    """The number that the app answers, None when it doesn't answer one."""
    answer = ask(url, timeout_s=timeout_s)
    if answer is None or answer.status != 200:
        return None
    text = answer.body.strip()
    return int(text) if text.isdigit() and len(text) < 10 else None


def _list(urls: frozenset[str]) -> str:
    return ", ".join(sorted(urls)) or "no server"
