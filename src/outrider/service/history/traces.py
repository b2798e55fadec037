"""A rollout as a trace: a span for the rollout, for each update of an instance in it, and for each state of that.

Theory. The ids of spans are made of what they are about, so whoever makes a span makes the same one. Times are those of
the service: a local step, which only the machine's clock knows, is moved by what that clock was off at the last step
that both have.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from outrider.model.history import RolloutMark
from outrider.story.merged import StoryLine

FINISHED = "rollout-finished"
"""Kind of the activity event with which a rollout is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span.

    Attributes:
        parent: Id of the span that it is in; 0: it is the first.
        is_error: It didn't come to what it was for; ``why`` says how.
    """

    trace: int
    id: int
    parent: int
    name: str
    began: datetime
    ended: datetime
    attributes: Mapping[str, str] = field(default_factory=dict)
    is_error: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutId:
    """Which rollout a trace is of. ``revision``: at which the group was given the release."""

    app: str
    group: str
    revision: int
    version: str

    @property
    def trace(self) -> int:
        return _number(16, self.app, self.group, str(self.revision))

    @property
    def span(self) -> int:
        return _number(8, "rollout", self.app, self.group, str(self.revision))

    @property
    def attributes(self) -> dict[str, str]:
        return {"outrider.app": self.app, "outrider.group": self.group, "outrider.version": self.version}


def _number(size: int, *parts: str) -> int:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:size], "big") or 1


def span_of_rollout(rollout: RolloutId, began: datetime, ended: datetime, *, is_finished: bool) -> Span:
    """The span that all others of a rollout are in."""
    return Span(
        trace=rollout.trace,
        id=rollout.span,
        parent=0,
        name=f"rollout of {rollout.version}",
        began=began,
        ended=max(began, ended),
        attributes=rollout.attributes | {"outrider.rollout": str(rollout.revision)},
        is_error=not is_finished,
        why="" if is_finished else "another release became the target before it finished",
    )


def updates_in(lines: Iterable[StoryLine], instance: str) -> list[tuple[StoryLine, ...]]:
    """The lines of each update of an instance: until its sidekick told of it; the last one may go on."""
    found: list[list[StoryLine]] = [[]]
    for line in lines:
        if line.instance != instance:
            continue
        if line.kind == "told":
            found[-1].append(line)
            found.append([])
        elif line.state and line.kind in ("state", "local", "left"):
            found[-1].append(line)
    return [tuple(trimmed) for lines in found if (trimmed := _trimmed(lines))]


def _trimmed(lines: Sequence[StoryLine]) -> list[StoryLine]:
    """Without what the instance did at rest before; nothing where it did nothing else."""
    begins = next((at for at, line in enumerate(lines) if line.state and not line.state.startswith("idle")), None)
    return [] if begins is None else list(lines[begins:])


def spans_of_update(rollout: RolloutId, lines: Sequence[StoryLine]) -> list[Span]:
    """The span of one update of an instance, and one for each of its states."""
    states = [line for line in lines if line.state]
    told = next((line for line in lines if line.kind == "told"), None)
    begins = _begins(states)
    if not begins:
        return []
    instance, number = states[0].instance, _number(8, rollout.span.to_bytes(8, "big").hex(), states[0].id)
    last = max([told.at] if told is not None and told.at is not None else [], default=begins[-1])
    ends = [
        began + timedelta(seconds=line.took_s) if line.took_s is not None else following
        for line, began, following in zip(states, begins, [*begins[1:], max(last, begins[-1])], strict=True)
    ]
    at_rest = [line.state.startswith("idle") for line in states]
    about = {**rollout.attributes, "outrider.instance": instance}
    spans = [
        Span(
            trace=rollout.trace,
            id=_number(8, f"{number:x}", line.id),
            parent=number,
            name=line.state if line.kind != "left" else "sidekick away",
            began=began,
            ended=max(began, ended),
            attributes=about
            | {"outrider.state": line.state, "outrider.place": line.place}
            | ({"outrider.event": line.event} if line.event else {})
            | ({"outrider.words": line.text} if line.text else {}),
            is_error=line.state.startswith("rollback") or line.kind == "left",
        )
        for line, began, ended, rests in zip(states, begins, ends, at_rest, strict=True)
        if not rests
    ]
    outcome = told.event if told is not None else "unfinished"
    return [
        Span(
            trace=rollout.trace,
            id=number,
            parent=rollout.span,
            name=f"update of {instance}",
            began=min(span.began for span in spans),
            ended=max(span.ended for span in spans),
            attributes=about | {"outrider.outcome": outcome},
            is_error=outcome != "committed",
            why="" if outcome == "committed" else told.text if told is not None else "nobody told how it ended",
        ),
        *spans,
    ]


def _begins(states: Sequence[StoryLine]) -> list[datetime]:
    """When each began, by the service's clock, in their order; empty where no clock is known."""
    offset = next((line.at - line.machine_at for line in states if line.at and line.machine_at), timedelta())
    found: list[datetime] = []
    for line in states:
        if line.at is not None and line.machine_at is not None:
            offset = line.at - line.machine_at
        at = line.at if line.at is not None else None if line.machine_at is None else line.machine_at + offset
        if at is None and not found:
            return []
        found.append(max(filter(None, (at, found[-1] if found else None))))
    return found


def rollout_of(marks: Sequence[RolloutMark], app: str, group: str, revision: int) -> RolloutId | None:
    """The rollout that was under way at a revision."""
    mark = next((mark for mark in reversed(marks) if mark.revision <= revision), None)
    return None if mark is None else RolloutId(app=app, group=group, revision=mark.revision, version=mark.version)
