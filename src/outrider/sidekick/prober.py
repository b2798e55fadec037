"""Asks an instance for its health: does a new version prove itself, and does it stay healthy under traffic?

Each probe runs on a thread of its own and delivers at most one verdict. Answers that don't come count against the
instance; no answer is never a pass. But where this machine can't send to the address at all, as when its network is
unplugged, the release has not been heard: that fails too, and the world is to blame.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from outrider.config.sections import ProbeSettings
from outrider.core.blame import Evidence
from outrider.failpoints import failpoint, with_current_effect
from outrider.sidekick.probes import Health, ask, hint, name_of, says_nothing_of_the_app

TELL_EVERY_S = 5.0
"""Seconds between two accounts of a probe that fails: each is a write to etcd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """Enough healthy answers in a row. ``took_s`` is the time from the start of the probe."""

    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Not healthy; ``reason`` is ``/health: 503 (7 of 9 answers), last: connection refused``.

    Attributes:
        evidence: ``unreachable`` when one of the last bad answers in a row wasn't an answer: the address couldn't be
            reached.
    """

    reason: str
    evidence: Evidence = "unhealthy"


Verdict = Passed | Failed
Kind = Literal["prove", "watch"]


class _Tally:
    """Counts answers; an empty one is healthy, any other says what was wrong."""

    def __init__(self) -> None:
        self.total = self.good_run = self.bad_run = 0
        self.bad: Counter[str] = Counter()
        self._last_bad = ""
        self._unheard = False

    def add(self, answer: str) -> None:
        self.total += 1
        self.good_run, self.bad_run = (0, self.bad_run + 1) if answer else (self.good_run + 1, 0)
        self._unheard = bool(answer) and (self._unheard or says_nothing_of_the_app(answer))
        if answer:
            self.bad[answer] += 1
            self._last_bad = answer

    @property
    def commonest(self) -> str:
        """The bad answer that came most often; there is one."""
        return self.bad.most_common(1)[0][0]

    def so_far(self, name: str) -> str:
        """``47 of 47 answers were 500 (/health)``: for a person, while it goes on."""
        commonest, count = self.bad.most_common(1)[0]
        return f"{count} of {self.total} answers were {commonest} ({name}){hint(commonest)}"

    def failed(self, name: str) -> Failed:
        commonest, count = self.bad.most_common(1)[0]
        last = f", last: {self._last_bad}" if self._last_bad != commonest else ""
        return Failed(
            reason=f"{name}: {commonest} ({count} of {self.total} answers){last}{hint(commonest)}",
            evidence="unreachable" if self._unheard else "unhealthy",
        )


class Probe:
    """A running probe; made by ``Prober.start``."""

    def __init__(
        self,
        url: str,
        kind: Kind,
        settings: ProbeSettings,
        deliver: Callable[[Verdict], None],
        clock: Callable[[], float],
        tell: Callable[[str], None],
        health: Health | None,
    ) -> None:
        self._tell, self._told, self._health = tell, ("", float("-inf")), health
        self._url, self._kind, self._settings, self._deliver, self._clock = url, kind, settings, deliver, clock
        self._stopped = threading.Event()
        self._answers: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        self._delivering = threading.RLock()
        threading.Thread(target=with_current_effect(self._run), name=f"probe-{kind}", daemon=True).start()

    def stop(self) -> None:
        """End it; nothing is delivered after this returns. Safe to call twice, and from ``deliver``."""
        with self._delivering:
            self._stopped.set()
        self._answers.put(None)

    def _run(self) -> None:
        started = self._clock()
        deadline = started + self._settings.deadline_s if self._kind == "prove" else None
        tally = _Tally()
        while not self._stopped.is_set():
            asked = self._clock()
            answer = self._ask(tally.total, deadline)
            if answer is not None:
                tally.add(answer)
                self._show(tally, bad=bool(answer))
            now = self._clock()
            verdict = self._verdict(tally, now - started)
            if verdict is not None:
                self._end(verdict)
                return
            pause = asked + self._settings.interval_s - now
            self._stopped.wait(max(0.0, pause if deadline is None else min(pause, deadline - now)))

    def _show(self, tally: "_Tally", *, bad: bool) -> None:
        """Tell the bad answers so far while it fails: at once when it begins, then now and then."""
        commonest = tally.commonest if bad else ""
        if commonest == self._told[0] and (not bad or self._clock() - self._told[1] < TELL_EVERY_S):
            return
        with self._delivering:
            if not self._stopped.is_set():
                self._tell(tally.so_far(name_of(self._settings)) if bad else "")
                self._told = (commonest, self._clock())

    def _verdict(self, tally: "_Tally", took_s: float) -> Verdict | None:
        wanted = self._settings
        if self._kind == "watch":
            return tally.failed(name_of(wanted)) if tally.bad_run >= wanted.failures else None
        if tally.good_run >= wanted.successes:
            return Passed(took_s=took_s)
        if took_s < wanted.deadline_s:
            return None
        if tally.bad:
            return tally.failed(name_of(wanted))
        count = f"{tally.good_run} of {wanted.successes} healthy answers"
        return Failed(reason=f"{name_of(wanted)}: {count} in {wanted.deadline_s:g} s")

    def _ask(self, number: int, deadline: float | None) -> str | None:
        """Empty for a healthy answer, else what was wrong; None when the deadline came before the answer.

        A question has its own thread, so that it holds up neither deadline nor ``stop``: a server that sends one byte a
        second resets every time limit of a socket. Such a thread ends with the server's connection.
        """
        limit = self._settings.timeout_s
        patience = limit if deadline is None else min(limit, max(0.0, deadline - self._clock()))
        if patience <= 0:
            return None
        request = with_current_effect(lambda: self._request(number))
        threading.Thread(target=request, name="probe-request", daemon=True).start()
        until = time.monotonic() + patience
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return f"no answer in {limit:g} s" if patience == limit else None
            if answer is None:
                return None
            if answer[0] == number:
                return answer[1]

    def _request(self, number: int) -> None:
        with failpoint("probe.ask"):
            answer = ask(self._url, self._settings, self._health)
        self._answers.put((number, answer))

    def _end(self, verdict: Verdict) -> None:
        with self._delivering:
            if not self._stopped.is_set():
                self._stopped.set()
                self._deliver(verdict)


class Prober:
    """Starts probes with the settings of ``[probe]``."""

    def __init__(
        self, settings: ProbeSettings, *, clock: Callable[[], float] = time.monotonic, health: Health | None = None
    ) -> None:
        """``clock`` gives seconds that never go back; ``SuspendAwareClock`` leaves standstills out.

        ``health``: the runtime's own word, for ``probe.kind`` healthcheck.
        """
        self._settings, self._clock, self._health = settings, clock, health

    def start(
        self,
        url: str,
        *,
        kind: Kind,
        deliver: Callable[[Verdict], None],
        tell: Callable[[str], None] = lambda text: None,
    ) -> Probe:
        """Probe ``url`` as ``[probe]`` says, every interval until a verdict or ``stop``.

        Args:
            url: Address of the instance, ``http://host:port`` without a slash at the end.
            kind: ``prove`` delivers ``Passed`` after ``successes`` healthy answers in a row, and ``Failed`` at the
                deadline; ``watch`` delivers ``Failed`` after ``failures`` bad answers in a row, and is else silent.
            deliver: Called at most once, from the probe's thread; it should only pass the verdict on.
            tell: Called while it fails, with the bad answers so far in words, and with an empty text when an answer is
                good again.
        """
        return Probe(url, kind, self._settings, deliver, self._clock, tell, self._health)
