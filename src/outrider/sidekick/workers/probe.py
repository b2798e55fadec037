"""The probe's worker: one probe at a time, in a thread of its own; a new one ends the one before."""

from collections.abc import Callable
from typing import assert_never

from outrider.core.sidekick.effects import ConfirmProbe, ProbeEffect, StartProbe, StopProbe, WatchProbe
from outrider.core.sidekick.events import ProbeFailed, ProbePassed
from outrider.sidekick.prober import Failed, Kind, Probe, Prober, Verdict
from outrider.sidekick.workers.worker import Post, now


class ProbeWork:
    """Performs ``probe.*``."""

    def __init__(
        self,
        prober: Prober,
        post: Post,
        *,
        note: Callable[[str], None] = lambda text: None,
        trouble: Callable[[], str] = lambda: "",
    ) -> None:
        """``note`` shows the bad answers so far while a probe runs; it gets an empty text when there are none.

        ``trouble``: what ails the runtime itself: then bad health is no verdict on the release.
        """
        self._prober, self._post, self._note, self._trouble = prober, post, note, trouble
        self._probe: Probe | None = None

    def interrupt(self, effect: ProbeEffect) -> None:
        """Probes are ended in order, and at once."""

    def perform(self, effect: ProbeEffect, request: int | None) -> None:
        match effect:
            case StartProbe() | ConfirmProbe():
                self._start(effect.url, "prove", request)
            case WatchProbe():
                self._start(effect.url, "watch", request)
            case StopProbe():
                self.close()
            case _:
                assert_never(effect)

    def close(self) -> None:
        if self._probe is not None:
            self._probe.stop()
            self._probe = None
            self._note("")

    def _start(self, url: str, kind: Kind, request: int | None) -> None:
        self.close()

        def deliver(verdict: Verdict) -> None:
            if isinstance(verdict, Failed):
                cause, evidence = verdict.reason, verdict.evidence
                if trouble := self._trouble():
                    cause, evidence = f"{cause}; {trouble}", "no-answer"
                self._post(ProbeFailed(at=now(), request=request, cause=cause, evidence=evidence))
            else:
                self._post(ProbePassed(at=now(), request=request, url=url))

        self._probe = self._prober.start(url, kind=kind, deliver=deliver, tell=self._note)
