"""Asks what must hold at the end of a wave, and writes the answers into the group's rollout.

Every process asks, without a leader: an answer counts in the transaction that compares the rollout it was asked for, so
of two that ask at once the first one's counts (``core.rollout.wave_analysis``). Each waits for a random part of the
interval first; who comes later mostly finds the answer there, and doesn't ask.

The addresses come from whoever may set a policy. So the requests obey the rule of ``destinations``, follow no redirect,
carry no credentials, and end in time as a whole.
"""

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from loguru import logger

from outrider.analysis.checks import ask
from outrider.config.analysis import AnalysisCheck
from outrider.core.analysis.results import Finding
from outrider.core.errors import OutriderError
from outrider.core.rollout import wave_analysis
from outrider.core.rollout.wave_analysis import Question
from outrider.service.destinations import Destinations
from outrider.service.rollouts.wakeups import ROLLOUT_CONTROLLER
from outrider.service.store.changes import Change
from outrider.service.store.context import StoreContext
from outrider.service.store.group_lock import GroupLock, Leases, NeedsGroupLock
from outrider.service.store.snapshot import read_snapshot

MOST = 8
"""Questions that a process asks at once; others wait for their turn."""
SPREAD_S = 2.0
"""Longest time by which a process waits for another one to ask first."""
LONGEST_WAIT_S = 60.0
"""After this time the clock is read again, because an operator may have set it."""
CLOSE_S = 5.0


@dataclass(slots=True, kw_only=True)
class _Planned:
    """``at``: when it is asked; None: it is asked now."""

    question: Question
    at: datetime | None


class WaveAnalyst:
    """Asks from ``start`` until ``close``; what and when, the rollout controller says."""

    def __init__(self, context: StoreContext, group_lock: GroupLock, destinations: Destinations) -> None:
        """Nothing is asked yet."""
        self._context, self._group_lock, self._destinations = context, group_lock, destinations
        self._changed = threading.Condition()
        self._planned: dict[tuple[str, str, str], _Planned] = {}
        self._asking = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="outrider-wave-analyst", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop; nothing is written after this returns."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def ask(self, app: str, group: str, questions: tuple[Question, ...]) -> None:
        """All that is to be asked of a group, in place of what was known before."""
        with self._changed:
            if not questions and not self._planned:
                return
            known = {key: one for key, one in self._planned.items() if key[:2] == (app, group)}
            for key in known:
                del self._planned[key]
            for question in questions:
                key = (app, group, question.analysis.name)
                old = known.get(key)
                if old is not None and old.question == question:
                    self._planned[key] = old
                else:
                    spread_s = random.uniform(0.0, min(SPREAD_S, question.analysis.interval_s / 4))  # noqa: S311
                    self._planned[key] = _Planned(question=question, at=question.at + timedelta(seconds=spread_s))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = self._context.now()
                waiting = [(one.at, key) for key, one in self._planned.items() if one.at is not None]
                at, key = min(waiting, default=(None, None))
                if at is None or key is None or at > now or self._asking >= MOST:
                    wait_s = LONGEST_WAIT_S if at is None else max((at - now).total_seconds(), 0.05)
                    self._changed.wait(min(wait_s, LONGEST_WAIT_S))
                    continue
                planned = self._planned[key]
                planned.at = None
                self._asking += 1
            threading.Thread(
                target=self._ask, args=(key[0], key[1], planned), name="outrider-wave-question", daemon=True
            ).start()

    def _ask(self, app: str, group: str, planned: _Planned) -> None:
        question, at = planned.question, self._context.now()
        try:
            finding = asked(question, app, group, self._destinations)
            with self._changed:
                if self._closed:
                    return
            book(self._context, self._group_lock, app, group, question, finding, at)
        except OutriderError as error:
            logger.bind(app=app, group=group, error_kind=error.kind, cause=str(error), retry=True).warning(
                "answer of an analysis not written"
            )
        except Exception:  # noqa: BLE001 - told in the log; the other questions go on
            # Without an answer the analysis is undecided in the end; that must not pass unseen.
            logger.opt(exception=True).bind(app=app, group=group).error("analysis not asked")
        finally:
            with self._changed:
                # the controller plans the next question when it sees the answer; else this one is asked again
                planned.at = self._context.now() + timedelta(seconds=question.analysis.interval_s)
                self._asking -= 1
                self._changed.notify_all()


def asked(question: Question, app: str, group: str, destinations: Destinations) -> Finding:
    """Ask once, in about the analysis' ``timeout_s`` at most."""
    one = question.analysis
    kind: Literal["prometheus", "http"] = "http" if one.kind == "http" else "prometheus"
    check = AnalysisCheck(
        name=one.name,
        kind=kind,
        url=one.url,
        query=one.query,
        condition=one.condition,
        field=one.field,
        timeout_s=float(one.timeout_s),
    )
    facts: Mapping[str, str] = {"app": app, "group": group, "version": question.version}
    if one.kind == "command":
        return Finding(check=one.name, result="no data", words="no data: the update service runs no programs")
    with destinations.enforced(one.url) as refused:
        finding = ask(check, facts)
    if refused:
        words = f"no data: {refused[0]} is no public address; `outrider serve {destinations.option}` allows it"
        return Finding(check=one.name, result="no data", words=words)
    return finding


def book(
    context: StoreContext,
    group_lock: GroupLock,
    app: str,
    group: str,
    question: Question,
    finding: Finding,
    at: datetime,
) -> bool:
    """Write an answer into the rollout, with what it decides; False when it came too late to count.

    Raises:
        Unknown: etcd gives no answer.
        Conflict: other changes of the same keys win every race.
    """

    def attempt(change: Change, leases: Leases) -> bool:
        snapshot = read_snapshot(context, change, app, group)
        if snapshot is None:
            return False
        before = snapshot.progress
        snapshot.progress = wave_analysis.answered(before, snapshot.policy, question, finding, at)
        if snapshot.progress is before:
            return False
        if not leases.has_group_lock:
            raise NeedsGroupLock
        snapshot.settle()
        snapshot.write()
        return True

    return group_lock.apply(context.cluster, f"{app}/{group}", attempt, ROLLOUT_CONTROLLER)
