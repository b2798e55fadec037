"""Tells the story of each update: what happened, why, and how long each state took.

A line of a story is a step that left a state, with how long the sidekick had been in it, what came, and, where that
isn't the plain answer at once, what it waited for (the chart's own words). Steps that stay are told only if they
explain something: trouble, a place in the queue, an alarm, an operator's word, a restart.

Times are of the machine's own clock, as it was when the step was written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, assert_never

from outrider.core.chart.model import Chart
from outrider.core.sidekick.effects import RaiseAlarm
from outrider.core.sidekick.events import (
    BlockChanged,
    Commanded,
    GrantEnded,
    LockQueued,
    ReleaseFound,
    SidekickRestarted,
    TargetChanged,
    WorkloadExited,
)
from outrider.core.sidekick.memory import Memory
from outrider.core.sidekick.words import why
from outrider.story.facts import fact, version_of
from outrider.story.lines import Known, Line, know

Outcome = Literal["committed", "rolled back", "given up", "under way"]

NOTEWORTHY_S = 1.0
"""From here on it is told what was waited for, not only what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One line of a story.

    Attributes:
        state: The state in which ``event`` came.
        in_state_s: For how long it had been the state, seconds; None when the journal doesn't have its beginning.
        times: How often the same was said in this stay.
        number: Of its record in the journal.
        seen: Revision of etcd that the sidekick had seen when the state began; of a step that stays, at the step.
        leaves: The state ended with it.
    """

    at: datetime
    state: str
    in_state_s: float | None
    event: str
    text: str
    times: int = 1
    number: int = 0
    seen: int = 0
    leaves: bool = True

    @property
    def entered(self) -> datetime | None:
        """When the state began; None when the journal doesn't have that."""
        return None if self.in_state_s is None else self.at - timedelta(seconds=self.in_state_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One update.

    Attributes:
        version_before: What ran; ``nothing`` before the first install.
        version: What the update was to bring.
        manual: It was an operator's rollback to the version before.
        whole: The journal has its beginning.
        because: Why it was rolled back or given up, or what it waits for; empty when committed.
        ended: Of its last step so far when it is under way.
    """

    update: str
    instance: str
    version_before: str
    version: str
    manual: bool
    outcome: Outcome
    because: str
    began: datetime
    ended: datetime
    restarts: int
    whole: bool
    moments: tuple[Moment, ...]

    @property
    def took_s(self) -> float:
        """From the first to the last step, seconds."""
        return (self.ended - self.began).total_seconds()


def tell(lines: Sequence[Line], chart: Chart) -> tuple[Story, ...]:
    """Every update in the journal, oldest first.

    Raises:
        StoryError: a line has an event that doesn't exist, or a value of the wrong type.
    """
    known = [know(line) for line in lines]
    return tuple(_tell_one(known, begin, end, chart) for begin, end in updates(known))


def render(story: Story) -> list[str]:
    """The story as lines of text."""
    width = max((len(moment.state) for moment in story.moments), default=0)
    lines = [_heading(story)]
    for moment in story.moments:
        clock = f"{moment.at:%H:%M:%S}.{moment.at.microsecond // 100_000}"
        lasted = duration(moment.in_state_s, plus=True) if moment.in_state_s is not None else ""
        times = f" ({moment.times} times)" if moment.times > 1 else ""
        lines.append(f"  {clock}  {lasted:>11}  {moment.state:<{width}}  {moment.text} ({moment.event}){times}")
    return lines


def duration(seconds: float, *, plus: bool = False) -> str:
    """``0.4 s``, ``2 min 05 s``, ``1 h 02 min``; with ``plus``, signed."""
    sign = "-" if seconds < 0 else "+" if plus else ""
    seconds = abs(seconds)
    whole = round(seconds)
    if whole < 60:
        return f"{sign}{seconds:.1f} s"
    if whole < 3600:
        return f"{sign}{whole // 60} min {whole % 60:02} s"
    return f"{sign}{whole // 3600} h {whole % 3600 // 60:02} min"


def updates(known: Sequence[Known]) -> Iterator[tuple[int, int]]:
    """First and one past the last record of each update."""
    begin = 0
    for position in range(1, len(known) + 1):
        update = known[begin].memory.update
        if position == len(known) or known[position].memory.update != update:
            if update:
                yield begin, position
            begin = position


def _tell_one(known: Sequence[Known], begin: int, end: int, chart: Chart) -> Story:
    """The update of ``known[begin:end]``; the step after them, if there is one, brought it home."""
    first, over = known[begin].memory, end < len(known)
    last = min(end, len(known) - 1)
    # past the commit there is no candidate: what it was runs, and what ran is the version before
    candidate, running = (first.candidate, first.running) if first.candidate else (first.running, first.previous)
    name = candidate.workload_id if candidate else ""
    committed = any(one.memory.running and one.memory.running.workload_id == name for one in known[begin:end])
    outcome: Outcome = "under way" if not over else "given up"
    because = ""
    if committed and over:
        outcome = "committed"
    elif over and any(one.memory.turn is not None and one.memory.fault is not None for one in known[begin:end]):
        outcome = "rolled back"
    if not over:
        because = why(known[last].memory, chart.states[known[last].record.target].why)
    elif not committed:
        because = _reason(known, begin, end)
    start = _opening(known, begin)
    return Story(
        update=first.update,
        instance=first.instance,
        version_before=version_of(running),
        version=version_of(candidate),
        manual=first.manual,
        outcome=outcome,
        because=because,
        began=known[start].record.at,
        ended=known[last].record.at,
        restarts=sum(isinstance(one.event, SidekickRestarted) for one in known[begin : last + 1]),
        whole=begin > 0,
        moments=tuple(_moments(known, start, last, chart)),
    )


def _opening(known: Sequence[Known], begin: int) -> int:
    """The step that made the sidekick ask, when it was an offer that began the update."""
    if not isinstance(known[begin].event, ReleaseFound):
        return begin
    asking = known[begin].record.source
    for position in range(begin - 1, -1, -1):
        record = known[position].record
        if record.target != asking:
            break
        if record.source != asking:
            return position
    return begin


def _reason(known: Sequence[Known], begin: int, end: int) -> str:
    """Why an update ended without a commit: its fault, else what called it off."""
    fault = known[end - 1].memory.fault
    if fault is not None:
        return fault.cause
    for position in range(end, begin, -1):
        event, record = known[position].event, known[position].record
        news = isinstance(
            event, TargetChanged | BlockChanged | GrantEnded | Commanded | WorkloadExited | SidekickRestarted
        )
        if event is not None and news and record.source != record.target:
            return fact(event, "", known[position - 1].memory)
    return "the update was called off"


def _moments(known: Sequence[Known], start: int, last: int, chart: Chart) -> Iterator[Moment]:
    entered: datetime | None = None
    seen = 0
    stay: list[Moment] = []
    for position in range(start, last + 1):
        now = known[position]
        if now.event is None or position == 0:
            continue
        before = known[position - 1]
        leaves = now.record.source != now.record.target
        if leaves or _explains(before.memory, now):
            in_state_s = (now.record.at - entered).total_seconds() if entered is not None else None
            moment = Moment(
                at=now.record.at,
                state=now.record.source,
                in_state_s=in_state_s,
                event=now.event.name,
                text=_text(before, now, in_state_s, chart),
                number=now.record.number,
                seen=seen if leaves else now.record.seen,
                leaves=leaves,
            )
            same = next((one for one in stay if (one.event, one.text) == (moment.event, moment.text)), None)
            if same is None:
                stay.append(moment)
            else:
                stay[stay.index(same)] = replace(same, times=same.times + 1)
        if leaves:
            yield from stay
            stay, entered, seen = [], now.record.at, now.record.seen
    yield from stay


def _explains(before: Memory, now: Known) -> bool:
    """Whether a step that stays says something about the wait."""
    after = now.memory
    return (
        isinstance(now.event, SidekickRestarted | Commanded | WorkloadExited)
        or (after.trouble is not None and after.trouble != before.trouble)
        or (after.queue_position is not None and after.queue_position != before.queue_position)
        or any(effect.get("name") == RaiseAlarm.name for effect in now.record.effects)
    )


def _text(before: Known, now: Known, in_state_s: float | None, chart: Chart) -> str:
    event = now.event
    assert event is not None, "the start is not told"
    words = chart.states[now.record.source].why
    if isinstance(event, LockQueued):
        return why(now.memory, words)
    effect_name = next((one.effect_name for one in before.snapshot.outstanding if one.request == event.request), "")
    text = fact(event, effect_name, before.memory)
    slow = in_state_s is not None and in_state_s >= NOTEWORTHY_S and now.record.source != now.record.target
    waited_for = why(before.memory, words) if slow or event.request is None else ""
    if waited_for:
        text = f"{waited_for}; {text}"
    return text + _consequence(before.memory, now)


def _consequence(before: Memory, now: Known) -> str:
    """What the step decided, where its event alone doesn't say so."""
    after = now.memory
    if before.candidate is not None and after.running == before.candidate:
        return f"; {version_of(after.running)} committed"
    if after.fault is not None and after.fault != before.fault:
        undone = (
            f"rolling back {version_of(before.candidate)}" if before.turn is not None else "update given up for now"
        )
        return f"; {undone}"
    if now.record.source != now.record.target or isinstance(now.event, SidekickRestarted):
        return ""
    if now.record.refused:
        return f"; no transition: {', '.join(now.record.refused)} does not hold"
    return "; it goes on" if isinstance(now.event, Commanded) else ""


def _heading(story: Story) -> str:
    what = "an operator's rollback, " if story.manual else ""
    lasted = duration(story.took_s)
    match story.outcome:
        case "committed":
            end = f"committed, {lasted} in all"
        case "rolled back":
            end = f"rolled back after {lasted} because: {story.because}"
        case "given up":
            end = f"given up after {lasted} because: {story.because}"
        case "under way":
            end = f"under way for {lasted}" + (f": {story.because}" if story.because else "")
        case _:
            assert_never(story.outcome)
    if story.restarts:
        end += f" ({story.restarts} restart{'s' if story.restarts > 1 else ''} of the sidekick)"
    if not story.whole:
        end += " (the journal does not have its beginning)"
    date = f"{story.began:%Y-%m-%d} UTC"
    return (
        f"update {story.update[:8]} of {story.instance}, {date}: {what}{story.version_before} -> {story.version}, {end}"
    )
