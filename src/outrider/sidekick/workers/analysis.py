"""The analysis' worker: one analysis at a time, in a thread of its own; a new one ends the one before."""

from collections.abc import Callable
from typing import Protocol, assert_never

from outrider.analysis.analyst import Verdict
from outrider.core.sidekick.effects import AnalysisEffect, StartAnalysis, StopAnalysis
from outrider.core.sidekick.events import AnalysisFailed, AnalysisPassed, AnalysisSampled, AnalysisUndecided
from outrider.sidekick.workers.worker import Post, now


class Running(Protocol):
    """An analysis that runs."""

    def stop(self) -> None:
        """End it; nothing is delivered or told after this returns."""


class Analyst(Protocol):
    """Starts analyses of the candidate at ``effect.url``."""

    def __call__(
        self, effect: StartAnalysis, *, deliver: Callable[[Verdict], None], tell: Callable[[str], None]
    ) -> Running: ...


class AnalysisWork:
    """Performs ``analysis.*``."""

    def __init__(self, start: Analyst, post: Post) -> None:
        self._start, self._post = start, post
        self._running: Running | None = None

    def interrupt(self, effect: AnalysisEffect) -> None:
        """Analyses are ended in order, and at once."""

    def perform(self, effect: AnalysisEffect, request: int | None) -> None:
        match effect:
            case StartAnalysis():
                self.close()
                self._running = self._start(
                    effect,
                    deliver=lambda verdict: self._deliver(verdict, request),
                    tell=lambda sample: self._post(AnalysisSampled(at=now(), request=request, sample=sample)),
                )
            case StopAnalysis():
                self.close()
            case _:
                assert_never(effect)

    def close(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _deliver(self, verdict: Verdict, request: int | None) -> None:
        match verdict.decision:
            case "pass":
                self._post(AnalysisPassed(at=now(), request=request, sample=verdict.words))
            case "fail":
                self._post(AnalysisFailed(at=now(), request=request, cause=verdict.words))
            case "undecided":
                self._post(AnalysisUndecided(at=now(), request=request, cause=verdict.words))
            case _:
                assert_never(verdict.decision)
