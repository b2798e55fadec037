"""All checks and the comparison, round by round, until they have decided or the time is up.

Good: for ``duration_s`` at least, and every one of them passed when it was asked last. Bad: one that failed
``failures`` times in a row, or the comparison. Neither at the deadline: undecided. No data never passes.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from outrider.analysis import checks
from outrider.analysis.comparison import NAME as NEW_VERSUS_OLD
from outrider.analysis.comparison import Comparison
from outrider.config.analysis import AnalysisCheck, AnalysisSettings
from outrider.core.analysis.results import Finding, told, worst
from outrider.core.analysis.sequential import Decision
from outrider.failpoints import with_current_effect

TELL_EVERY_S = 5.0
"""Seconds between two accounts of how far it is: each is a line in the journal and a write to etcd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How it ended, and by what."""

    decision: Decision
    words: str


class Analysis:
    """A running analysis, on a thread of its own; it delivers one verdict at most."""

    def __init__(
        self,
        settings: AnalysisSettings,
        facts: Mapping[str, str],
        comparison: Comparison | None,
        *,
        deliver: Callable[[Verdict], None],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            facts: What replaces the placeholders of the checks.
            comparison: None where nothing is compared.
            deliver: Called at most once, from the analysis' thread; it should only pass the verdict on.
            tell: Called now and then with the sample so far, in words.
            clock: Seconds that never go back.
        """
        self._settings, self._facts, self._comparison = settings, facts, comparison
        self._deliver, self._tell, self._clock = deliver, tell, clock
        self._stopped = threading.Event()
        self._delivering = threading.RLock()
        self._asks = {check.name: self._way_to_ask(check) for check in settings.checks}
        self._limits = {check.name: check.failures for check in settings.checks}
        if comparison is not None:
            self._asks[NEW_VERSUS_OLD] = comparison.look
        self._answers: queue.SimpleQueue[tuple[str, Finding]] = queue.SimpleQueue()
        self._asked: set[str] = set()
        self._latest: dict[str, Finding] = {}
        self._failed_in_a_row: Counter[str] = Counter()
        threading.Thread(target=with_current_effect(self._run), name="analysis", daemon=True).start()

    def stop(self) -> None:
        """End it; nothing is delivered or told after this returns. Safe to call twice, and from ``deliver``."""
        with self._delivering:
            self._stopped.set()

    def _run(self) -> None:
        started = self._clock()
        deadline = started + self._settings.deadline_s
        told_at, told_words = float("-inf"), ""
        while not self._stopped.is_set():
            asked = self._clock()
            if not self._awaits_last_answers(asked - started):
                self._ask_all()
            # a question that takes longer than a round goes on meanwhile, and is asked again when it was answered
            self._take_answers(min(asked + self._settings.interval_s, deadline))
            now = self._clock()
            verdict = self._verdict(now - started)
            if verdict is not None:
                self._end(verdict)
                return
            words = "; ".join(str(finding) for finding in self._latest.values())
            if words != told_words and now - told_at >= min(TELL_EVERY_S, self._settings.interval_s):
                with self._delivering:
                    if not self._stopped.is_set():
                        self._tell(words)
                told_at, told_words = now, words

    def _awaits_last_answers(self, took_s: float) -> bool:
        """All passed when they answered last, and the time is over: only who was asked since has to answer yet."""
        return took_s >= self._settings.duration_s and self._has_passed() and bool(self._asked)

    def _has_passed(self) -> bool:
        return worst([self._latest.get(name) or _unanswered(name) for name in self._asks]) == "pass"

    def _ask_all(self) -> None:
        """Each question has its own thread, so that it holds up neither the others nor the deadline."""
        for name, ask in self._asks.items():
            if name not in self._asked:
                self._asked.add(name)
                request = with_current_effect(partial(self._put_answer, name, ask))
                threading.Thread(target=request, name="analysis-request", daemon=True).start()

    def _put_answer(self, name: str, ask: Callable[[], Finding]) -> None:
        self._answers.put((name, ask()))

    def _take_answers(self, until: float) -> None:
        while not self._stopped.is_set():
            left = until - self._clock()
            if left <= 0:
                return
            try:
                name, finding = self._answers.get(timeout=min(left, 0.5))
            except queue.Empty:
                continue
            self._asked.discard(name)
            self._latest[name] = finding
            self._failed_in_a_row[name] = self._failed_in_a_row[name] + 1 if finding.result == "fail" else 0
            if self._is_failed(name):
                return

    def _is_failed(self, name: str) -> bool:
        return self._failed_in_a_row[name] >= self._limits.get(name, 1)

    def _verdict(self, took_s: float) -> Verdict | None:
        failed = [self._latest[name] for name in self._latest if self._is_failed(name)]
        if failed:
            return Verdict(decision="fail", words="; ".join(map(str, failed)))
        findings = [self._latest.get(name) or _unanswered(name) for name in self._asks]
        if self._has_passed() and took_s >= self._settings.duration_s and not self._asked:
            return Verdict(decision="pass", words=told(findings, "pass"))
        if took_s < self._settings.deadline_s:
            return None
        missing = [one for one in findings if one.result != "pass"]
        missing = missing or [_open(one) for one in findings if one.check in self._asked]
        words = "; ".join(map(str, missing))
        return Verdict(decision="undecided", words=words or told(findings, "pass"))

    def _end(self, verdict: Verdict) -> None:
        with self._delivering:
            if not self._stopped.is_set():
                self._stopped.set()
                self._deliver(verdict)

    def _way_to_ask(self, check: AnalysisCheck) -> Callable[[], Finding]:
        return lambda: checks.ask(check, self._facts)


def _open(finding: Finding) -> Finding:
    return Finding(check=finding.check, result="no data", words="no data: no answer since it passed")


def _unanswered(name: str) -> Finding:
    return Finding(check=name, result="no data", words="no data: no answer yet")
