"""The progress of a group's rollout: a value, and functions that return the next value after an event.

A new target starts a new rollout. Open grants and recent grant times go over into it, so that moving the channel passes
no limit. Results do not: a grant of an earlier rollout says nothing about this release.

What is stored has a bounded size: the number of open grants, not the grants, which have keys of their own; and grant
times in buckets. So one more grant costs the same however many are open.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from outrider.core.analysis.results import Result as AnalysisResult
from outrider.core.rollout.policy_settings import MAX_COUNTED_FAILURES, Policy

KEPT_TIMES = 16
"""Buckets of grant times that are kept beyond the interval, for a limit that is set or made longer in a rollout."""
MOST_TIMES = 48
"""Buckets of grant times at most. A limit of no more grants than that is exact; a larger one frees a place late."""
TIMEOUT = "no result in time"

State = Literal["running", "paused", "halted"]
Result = Literal["succeeded", "failed", "withdrawn", "refused", "recalled"]
"""``refused``: the instance can't run it and has not tried; the grant counts as never made. ``recalled``: the grant was
taken back before the update began; it counts as never made, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A grant without a result yet, to the release with the label ``version``.

    ``for_new_machine``: it leads to what the group serves, not to the target. ``wave``: number of the wave in which it
    was made, 0 outside the waves. ``in_interval``: it took a place of ``max_per_interval``.
    """

    instance: str
    version: str
    at: datetime
    for_new_machine: bool = False
    wave: int = 0
    in_interval: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCounts:
    """How many grants are open.

    Attributes:
        total: All of the group.
        ours: Those that belong to this rollout.
        in_wave: Those of them that were made in the present wave.
    """

    total: int = 0
    ours: int = 0
    in_wave: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An instance that failed in this rollout, with its last error; ``version`` is what it was granted."""

    instance: str
    version: str
    error: str
    at: datetime
    wave: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A rollout that a person must approve, or that one has judged.

    Attributes:
        asked: When the first instance waited for it.
        verdict: None while nobody has judged.
        by: The person; empty: nobody did in time, and the policy approves by itself then.
        why: The person's reason.
        at: When it was judged.
    """

    asked: datetime
    verdict: Literal["approved", "rejected"] | None = None
    by: str = ""
    why: str = ""
    at: datetime | None = None

    @property
    def words(self) -> str:
        """``rejected by ann: not before the audit``."""
        by, why = f" by {self.by}" if self.by else "", f": {self.why}" if self.why else ""
        return f"{self.verdict or 'not judged'}{by}{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """An emergency: until then neither windows nor freezes stop this rollout."""

    by: str
    why: str
    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisAnswer:
    """The last answer to an analysis at the end of a wave.

    Attributes:
        name: Of the analysis (``analysis_settings``).
        question: What was asked; an answer to another question counts for nothing.
        at: When it was asked.
        number: How many answers there were. Of two processes that ask at once the first one's answer counts.
        failed: How many answers in a row failed.
        words: For people.
    """

    name: str
    question: str
    at: datetime
    number: int
    result: AnalysisResult
    failed: int = 0
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisState:
    """What the analyses at the end of a wave have come to.

    Attributes:
        began: When the first question was due.
        answers: The last one to each, in the order in which they came.
        verdict: None while it isn't decided.
        words: What decided it, for people.
        at: When it was decided.
    """

    began: datetime
    answers: tuple[AnalysisAnswer, ...] = ()
    verdict: Literal["pass", "fail", "undecided"] | None = None
    words: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveState:
    """The wave that a rollout is at (``wave_settings``).

    Attributes:
        number: From 1; beyond the last one: the waves are over.
        size: How many instances it takes; 0: none is selected yet.
        there: Instances of it that had come to the release before it began.
        succeeded: Instances that came to the release in it.
        proved: When enough of its instances had succeeded; None before.
        approval: A person's word on what follows it; None while nobody was asked.
        analysis: What was asked at its end; None before, and where nothing is.
    """

    number: int
    began: datetime
    size: int = 0
    there: int = 0
    succeeded: int = 0
    proved: datetime | None = None
    approval: Approval | None = None
    analysis: AnalysisState | None = None

    @property
    def waits_for_approval(self) -> bool:
        """A person was asked, and nobody has judged."""
        return self.approval is not None and self.approval.verdict is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One group's rollout.

    Attributes:
        version: Label of the release that is rolled out (``core.release``); None while nothing is offered.
        package: Its version, when the label says more: all that clients know of it that name versions only.
        state: ``paused`` by a person; ``halted`` by a person or by the policy. Neither ends by itself.
        why: The reason of a pause or a halt, for people.
        by: The person who paused or halted it; empty for the policy.
        since: When ``state`` became what it is.
        lately: How many grants were made lately, oldest first: the time of the last one of a bucket, and how many.
        opened: Grants without a result that are known one by one, oldest first; never stored.
        others: How many there are besides.
        times: Grant times as older versions of outrider stored them; ``counted`` puts them into ``lately``.
        failures: One per instance, oldest first.
        succeeded: Instances that came to ``version``.
        finished: When every known instance had come to it; None before. A later instance changes nothing.
        approval: A person's word on it; None while nobody was asked.
        override: The emergency that an operator declared last; None: none.
        wave: The wave that it is at; None before its first grant.
    """

    version: str | None
    started: datetime
    since: datetime
    state: State = "running"
    why: str = ""
    by: str = ""
    lately: tuple[tuple[datetime, int], ...] = ()
    opened: tuple[Opened, ...] = ()
    others: OpenCounts = OpenCounts()
    times: tuple[datetime, ...] = ()
    failures: tuple[Failure, ...] = ()
    succeeded: int = 0
    finished: datetime | None = None
    approval: Approval | None = None
    override: Override | None = None
    package: str = ""
    wave: WaveState | None = None

    def opened_for(self, instance: str) -> Opened | None:
        """The instance's grant without a result."""
        return next((one for one in self.opened if one.instance == instance), None)

    @property
    def open(self) -> OpenCounts:
        """All grants without a result."""
        began, wave = self.started, -1 if self.wave is None else self.wave.number
        ours = in_wave = 0
        for one in self.opened:  # thousands, in a large group
            if one.at >= began:
                ours += 1
                in_wave += one.wave == wave
        others = self.others
        return OpenCounts(
            total=others.total + len(self.opened), ours=others.ours + ours, in_wave=others.in_wave + in_wave
        )

    @property
    def made_lately(self) -> int:
        """How many grants ``lately`` counts."""
        return sum(number for _, number in self.lately)

    def _counts_of(self, opened: Opened) -> OpenCounts:
        ours = self.is_ours(opened)
        in_wave = ours and self.wave is not None and opened.wave == self.wave.number
        return OpenCounts(total=1, ours=int(ours), in_wave=int(in_wave))

    def is_ours(self, opened: Opened) -> bool:
        """The grant belongs to this rollout, not to one before."""
        return opened.at >= self.started

    def leads_to(self, version: str) -> bool:
        """``version``, a label or what a client that names versions only was granted, is what is rolled out."""
        return version == self.version or (bool(self.package) and version == self.package)

    def failed_in(self, wave: int) -> int:
        """Number of instances that failed in a wave."""
        return sum(one.wave == wave for one in self.failures)

    def in_canary(self, policy: Policy) -> bool:
        """The first ones aren't proved yet."""
        return self.succeeded < policy.canary


def following(progress: Progress | None, version: str | None, now: datetime, *, package: str = "") -> Progress:
    """The rollout to the release with the label ``version``: the one that is there, or a new one."""
    if progress is not None and progress.version == version:
        return progress
    fresh = Progress(version=version, package=package, started=now, since=now)
    if progress is None:
        return fresh
    return replace(
        fresh, lately=progress.lately, opened=progress.opened, others=OpenCounts(total=progress.others.total)
    )


def counted(progress: Progress) -> Progress:
    """The rollout as it is stored: its open grants are numbers."""
    if not progress.opened and not progress.times:
        return progress
    lately = progress.lately
    for at in progress.times:
        lately = _one_later(lately, at)
    return replace(progress, opened=(), times=(), others=progress.open, lately=lately)


def with_counted(progress: Progress, opened: Opened, policy: Policy) -> Progress:
    """One more open grant, which is only counted."""
    one, others = progress._counts_of(opened), progress.others
    more = OpenCounts(total=others.total + one.total, ours=others.ours + one.ours, in_wave=others.in_wave + one.in_wave)
    lately = progress.lately
    if opened.in_interval and policy.max_per_interval is not None:
        lately = _kept(_one_later(lately, opened.at), policy, opened.at)
    return replace(progress, others=more, lately=lately)


def with_known(progress: Progress, opened: Opened) -> Progress:
    """A stored rollout of which one of the open grants is known; it was among the others until now."""
    one, others = progress._counts_of(opened), progress.others
    left = OpenCounts(
        total=max(others.total - 1, 0),
        ours=max(others.ours - one.ours, 0),
        in_wave=max(others.in_wave - one.in_wave, 0),
    )
    return replace(progress, opened=(*progress.opened, opened), others=left)


def with_all_known(progress: Progress, opened: Collection[Opened]) -> Progress:
    """A stored rollout of which all open grants are known, whatever was counted. Of one moment: in their order."""
    every = tuple(sorted(opened, key=lambda one: one.at))
    return replace(progress, opened=every, others=OpenCounts())


def granted(
    progress: Progress,
    instance: str,
    version: str,
    policy: Policy,
    now: datetime,
    *,
    for_new_machine: bool = False,
    wave: int = 0,
    in_interval: bool = True,
) -> Progress:
    """One more grant; it takes the place of an earlier one of the same instance.

    Args:
        progress: Of which an earlier grant of the instance is known.
        instance: Who gets it.
        version: Label of the release that it leads to.
        policy: The group's.
        now: The time.
        for_new_machine: It leads to what the group serves.
        wave: In which it counts.
        in_interval: It takes a place of ``max_per_interval``.
    """
    others = tuple(one for one in progress.opened if one.instance != instance)
    mine = Opened(
        instance=instance,
        version=version,
        at=max(now, progress.started),  # the clock of who began the rollout may be ahead of ours
        for_new_machine=for_new_machine,
        wave=wave,
        in_interval=in_interval,
    )
    return replace(
        progress,
        opened=(*others, mine),
        lately=_kept(_one_later(progress.lately, mine.at) if in_interval else progress.lately, policy, now),
    )


def ended(
    progress: Progress, instance: str, result: Result, policy: Policy, now: datetime, *, error: str = ""
) -> Progress:
    """An instance's update has a result; one that comes twice, or without a grant, changes nothing.

    Late is not too late: a success takes back the failure that its silence was taken for.
    """
    mine = progress.opened_for(instance)
    if mine is None:
        return _late(progress, instance, result, error, policy, now)
    progress = replace(progress, opened=tuple(one for one in progress.opened if one is not mine))
    if result in ("refused", "recalled"):
        return replace(progress, lately=without(progress.lately, mine.at)) if mine.in_interval else progress
    if not progress.is_ours(mine) or mine.for_new_machine:
        return progress  # a new machine's way to what the group serves says nothing of this release
    if result == "failed":
        return _braked(_with_failure(progress, _failure(mine, error, now)), policy, now)
    if result == "succeeded" and progress.leads_to(mine.version):
        failures = tuple(one for one in progress.failures if one.instance != instance)
        return replace(_one_more(progress, mine.wave), failures=failures)
    return progress


def lapsed(progress: Progress, dead: Collection[str], policy: Policy, now: datetime, *, counts: bool) -> Progress:
    """The grants of ``dead`` ended without a result.

    Args:
        dead: Instances whose grant is overdue.
        counts: Silence counts as a failure: they had not been told to wait.
    """
    over = [one for one in progress.opened if one.instance in dead]
    if not over:
        return progress
    progress = replace(progress, opened=tuple(one for one in progress.opened if one.instance not in dead))
    if not counts or not policy.count_timeouts or progress.state != "running":
        return progress
    for one in filter(progress.is_ours, over):
        progress = _with_failure(progress, _failure(one, TIMEOUT, now))
    return _braked(progress, policy, now)


def told(progress: Progress, state: State, why: str, by: str, now: datetime) -> Progress:
    """A person pauses, halts or resumes.

    A resume counts the failures from zero again. It takes a wave whose analysis paused the rollout as it is; any other
    analysis begins anew, so what failed is asked again.
    """
    failures, wave = progress.failures, progress.wave
    if state == "running":
        failures = ()
        if wave is not None and progress.state != "running" and not _is_let_through(progress.state, wave.analysis):
            wave = replace(wave, analysis=None)
    return replace(progress, state=state, why=why, by=by, since=now, failures=failures, wave=wave)


def _is_let_through(state: State, analysis: AnalysisState | None) -> bool:
    return analysis is not None and (
        analysis.verdict == "pass" or (analysis.verdict == "undecided" and state == "paused")
    )


def asked(progress: Progress, now: datetime) -> Progress:
    """An instance waits for the approval."""
    return progress if progress.approval is not None else replace(progress, approval=Approval(asked=now))


def judged(
    progress: Progress, verdict: Literal["approved", "rejected"], *, by: str, why: str, now: datetime
) -> Progress:
    """A person approves or rejects it. The last word counts, but the same verdict again changes nothing.

    While a wave waits for an approval of what follows it, that is what is approved; a rejection is always of the whole.
    """
    known, wave = progress.approval, progress.wave
    if verdict == "approved" and wave is not None and wave.approval is not None and wave.waits_for_approval:
        word = Approval(asked=wave.approval.asked, verdict=verdict, by=by, why=why, at=now)
        if known is not None and known.verdict == "rejected":
            known = replace(word, asked=known.asked)
        return replace(progress, wave=replace(wave, approval=word), approval=known)
    if known is not None and known.verdict == verdict:
        return progress
    since = now if known is None else known.asked
    return replace(progress, approval=Approval(asked=since, verdict=verdict, by=by, why=why, at=now))


def approval_due(progress: Progress, policy: Policy) -> datetime | None:
    """When it counts as approved without anybody's word; None: never, or somebody has judged."""
    known = progress.approval
    if known is None or known.verdict is not None or policy.approve_after_s is None:
        return None
    return known.asked + timedelta(seconds=policy.approve_after_s)


def overridden(progress: Progress, *, by: str, why: str, now: datetime, until: datetime) -> Progress:
    """An operator declares an emergency; ``until`` at or before ``now`` ends it."""
    return replace(progress, override=Override(by=by, why=why, at=now, until=until))


def finished(progress: Progress, now: datetime) -> Progress:
    """All known instances have come to its version."""
    return replace(progress, finished=now)


def next_time(progress: Progress, policy: Policy, taken: int, now: datetime) -> datetime | None:
    """When the limit per interval leaves a place besides ``taken`` others; None when it does now.

    Times that a faster clock wrote lie ahead of ours, and count.
    """
    rate = policy.max_per_interval
    if rate is None:
        return None
    interval = timedelta(seconds=rate.interval_s)
    recent = [(at, number) for at, number in progress.lately if now - at < interval]
    free = rate.count - sum(number for _, number in recent) - taken
    if free > 0:
        return None
    if not recent:
        return now + interval  # every place is kept for somebody, who takes it now or leaves it soon
    for at, number in recent:
        free += number
        if free > 0:
            return at + interval
    return recent[-1][0] + interval


def _late(progress: Progress, instance: str, result: Result, error: str, policy: Policy, now: datetime) -> Progress:
    silent = next((one for one in progress.failures if one.instance == instance and one.error == TIMEOUT), None)
    if silent is None or result in ("withdrawn", "refused", "recalled"):
        return progress
    others = tuple(one for one in progress.failures if one is not silent)
    if result == "succeeded":
        progress = replace(progress, failures=others)
        return _one_more(progress, silent.wave) if progress.leads_to(silent.version) else progress
    return _braked(_with_failure(progress, replace(silent, error=error, at=now)), policy, now)


def _one_more(progress: Progress, wave: int) -> Progress:
    """One more instance has come to the release; in the present wave it counts there, too."""
    state = progress.wave
    if state is not None and wave == state.number:
        state = replace(state, succeeded=state.succeeded + 1)
    return replace(progress, succeeded=progress.succeeded + 1, wave=state)


def without(lately: tuple[tuple[datetime, int], ...], at: datetime) -> tuple[tuple[datetime, int], ...]:
    """Grant times without one that counts as never made; unchanged where it isn't certain which bucket counts it."""
    place = next((number for number, (last, _) in enumerate(lately) if at <= last), None)
    if place is None or (place == 0 and lately[0][0] != at):
        return lately
    last, number = lately[place]
    left = ((last, number - 1),) if number > 1 else ()
    return (*lately[:place], *left, *lately[place + 1 :])


def _one_later(lately: tuple[tuple[datetime, int], ...], at: datetime) -> tuple[tuple[datetime, int], ...]:
    """One more grant time; those of one moment share a bucket. Another clock may have written later ones."""
    place = next((number for number, (last, _) in enumerate(lately) if at <= last), len(lately))
    if lately[place : place + 1] and lately[place][0] == at:
        return (*lately[:place], (at, lately[place][1] + 1), *lately[place + 1 :])
    return (*lately[:place], (at, 1), *lately[place:])


def _failure(opened: Opened, error: str, now: datetime) -> Failure:
    return Failure(instance=opened.instance, version=opened.version, error=error, at=now, wave=opened.wave)


def _with_failure(progress: Progress, failure: Failure) -> Progress:
    others = tuple(one for one in progress.failures if one.instance != failure.instance)
    return replace(progress, failures=(*others, failure)[-MAX_COUNTED_FAILURES:])


def _braked(progress: Progress, policy: Policy, now: datetime) -> Progress:
    """Halted when the policy does not allow this many failures."""
    why = brake(progress, policy)
    return progress if why is None else replace(progress, state="halted", why=why, by="", since=now)


def brake(progress: Progress, policy: Policy) -> str | None:
    """Why the policy halts the rollout now; None when it does not, or when the rollout is halted already."""
    failures = progress.failures
    if progress.state == "halted" or not failures:
        return None
    shown = "; ".join(f"{one.instance}: {one.error}" for one in failures[-3:])
    if progress.in_canary(policy):
        return f"a canary failed: {shown}"
    wave = progress.wave
    if wave is not None and 0 < wave.number <= len(policy.waves):
        failed, plan = progress.failed_in(wave.number), policy.waves[wave.number - 1]
        if failed > max(0, wave.size - plan.needed(wave.size)):
            return (
                f"wave {wave.number} of {len(policy.waves)} ({plan.words}): {failed} of {wave.size} failed, and"
                f" {plan.success_percent:g} % must succeed: {shown}"
            )
    if policy.max_failures is not None and len(failures) >= policy.max_failures:
        return f"{len(failures)} failed (max_failures {policy.max_failures}): {shown}"
    return None


def _kept(lately: tuple[tuple[datetime, int], ...], policy: Policy, now: datetime) -> tuple[tuple[datetime, int], ...]:
    """Bounded: old buckets are forgotten, and of those that count the two closest are taken together.

    They count until the later one is over, so a limit may free a place late, and never early.
    """
    rate = policy.max_per_interval
    recent = 0 if rate is None else sum(now - at < timedelta(seconds=rate.interval_s) for at, _ in lately)
    if rate is not None:
        lately = lately[-max(recent, KEPT_TIMES) :]
    most = KEPT_TIMES if rate is None else MOST_TIMES
    while len(lately) > most:
        gaps = [(later - at, place) for place, ((at, _), (later, _)) in enumerate(pairwise(lately))]
        _, place = min(gaps)
        (_, number), (at, more) = lately[place : place + 2]
        lately = (*lately[:place], (at, number + more), *lately[place + 2 :])
    return lately
