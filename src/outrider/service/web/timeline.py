"""A rollout as a timeline: a lane for each turn and one for each instance, with what it did to scale.

The states come from the history, which a service process writes some seconds later; what an instance is doing now, its
sidekick's presence says. Of an instance without a sidekick there is what it has reported to the service.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from outrider.model.documents import Happening, Instance, Presence
from outrider.model.history import moment
from outrider.service.history.over_time import AWAY, GroupPast, Held, Stay
from outrider.service.rollouts.explain import GroupOverview
from outrider.service.rollouts.waits import length
from outrider.service.web.fleet import Tone

MOST = 200
"""Lanes in one picture; those that began last are in it."""
MOST_TURNS = 400
"""Turns in one picture, the last ones."""
WIDTH = 1000
_GROWS = 1.15
"""A rollout that goes on has a scale that grows by this factor: lanes in which nothing happens stay as they are."""
_AFTER: dict[str, tuple[str, Tone]] = {
    "13:1": ("downloading", "busy"),
    "14:1": ("verified", "busy"),
    "800:1": ("waiting for a turn", "held"),
    "3:1": ("installed", "good"),
    "3:2": ("running", "good"),
    "3:0": ("failed", "bad"),
}
"""What follows each report of a sidekick (``core.omaha.events``)."""
_STATES: dict[str, str] = {
    "obtaining": "fetch",
    "downloading": "fetch",
    "verifying": "fetch",
    "swapping": "tone-busy",
    "rollback": "tone-bad",
    "reporting": "tone-good",
    "idle": "calm",
    AWAY: "gone",
}
"""How all states in one are coloured: a class of the style sheet."""
_WAITING = frozenset({"queueing", "withdrawing"})
"""Last words of the states in which it waits for a turn."""
LEGEND = (
    ("fetch", "downloads"),
    ("tone-held", "waits for a turn"),
    ("tone-busy", "swaps"),
    ("tone-good", "done"),
    ("tone-bad", "goes back"),
    ("gone", "sidekick away"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a lane. ``x`` and ``width``: per mille of the picture; ``style``: a class of the style sheet."""

    words: str
    style: str
    x: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The way of one instance through a rollout, or who held one turn. ``words``: for who sees no picture."""

    name: str
    parts: tuple[Part, ...]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A rollout.

    Attributes:
        ends: The right end of the picture.
        is_still: It isn't over, but nobody does anything now, as when it is halted: it ends at the last change.
        bars: Lanes of instances, by when they began.
        turns: Lanes of turns, by their numbers.
        left_out: Instances that are not in the picture.
        problem: Why there is less in it than could be; empty: all is well.
    """

    begins: datetime
    ends: datetime
    is_over: bool
    is_still: bool
    bars: tuple[Lane, ...]
    turns: tuple[Lane, ...]
    left_out: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Times as places. ``now``: as far as something is known."""

    begins: datetime
    ends: datetime
    now: datetime

    def place(self, at: datetime) -> int:
        span_s = max((self.ends - self.begins).total_seconds(), 1.0)
        return min(WIDTH, max(0, round(WIDTH * (at - self.begins).total_seconds() / span_s)))

    def part(self, words: str, style: str, at: datetime, until: datetime) -> Part:
        x = self.place(at)
        width = max(self.place(until) - x, 4)
        return Part(words=words, style=style, x=min(x, WIDTH - width), width=width)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    at: datetime
    words: str
    style: str
    lasts: bool = True
    """It goes on until the next one; else it is a moment."""


def timeline_of(overview: GroupOverview, past: GroupPast, now: datetime) -> Timeline | None:
    """The rollout of a group, from its beginning until it finished, or now; None: there is none."""
    snapshot = overview.snapshot
    if snapshot is None or snapshot.wanted is None:
        return None
    begins, over = snapshot.progress.started, snapshot.progress.finished
    ended = over if over is not None else _last_change(overview, past, begins)
    if ended is not None:
        scale = _Scale(begins=begins, ends=max(ended, begins), now=max(ended, begins))
    else:
        scale = _growing(begins, max(now, begins))
    found: list[tuple[datetime, Lane]] = []
    for name in overview.instances:
        row, presence = overview.rows.get(name), overview.alive.get(name)
        stays = past.stays.get(name, ())
        steps = _from_history(stays, presence, scale, is_over=over is not None)
        if not steps:
            steps = _from_reports(row, presence, scale, is_over=over is not None)
        if steps:
            found.append((steps[0].at, _lane(name, steps, scale)))
    found.sort(key=lambda one: (one[0], one[1].name))
    bars = tuple(lane for _, lane in found)
    return Timeline(
        begins=begins,
        ends=scale.ends,
        is_over=over is not None,
        is_still=over is None and ended is not None,
        bars=bars[-MOST:],
        turns=_turns(overview, past.turns[-MOST_TURNS:], scale, is_over=over is not None),
        left_out=max(0, len(bars) - MOST),
        problem=past.problem,
    )


def _last_change(overview: GroupOverview, past: GroupPast, begins: datetime) -> datetime | None:
    """When something happened last, if nobody does anything now; None: somebody does, or nothing has happened."""
    if any(style_of(one.state) != "calm" for one in overview.alive.values()):
        return None
    if any(turn.state != "free" for scope in overview.scopes for turn in scope.turns):
        return None
    times = [moment(stays[-1].at) for stays in past.stays.values()]
    times += [one.at for row in overview.rows.values() for one in row.history[-1:]]
    last = max((at for at in times if at > begins), default=None)
    return None if last is None else last + (last - begins) / 20


def _growing(begins: datetime, now: datetime) -> _Scale:
    """The scale of a rollout that goes on; ``now`` in steps of half a percent of it."""
    span_s, until_s = 10.0, (now - begins).total_seconds()
    while span_s < until_s:
        span_s *= _GROWS
    step_s = span_s / 200
    seen = begins + timedelta(seconds=min(span_s, step_s * -(-until_s // step_s)))
    return _Scale(begins=begins, ends=begins + timedelta(seconds=span_s), now=seen)


def _from_history(
    stays: Sequence[Stay], presence: Presence | None, scale: _Scale, *, is_over: bool
) -> list[_Step]:  # fmt: skip
    """What the history has of an instance, and what it is doing now; nothing where it did nothing."""
    steps = [
        _Step(at=moment(stay.at), words=stay.state, style=style_of(stay.state))
        for stay in stays
        if scale.begins <= moment(stay.at) <= scale.now
    ]
    if not is_over and presence is not None and steps and presence.state != steps[-1].words:
        # the clock of the machine may be another
        at = max(steps[-1].at, min(presence.since, scale.now))
        steps.append(_Step(at=at, words=presence.state, style=style_of(presence.state)))
    while steps and steps[0].style == "calm":
        steps.pop(0)
    return steps


def style_of(state: str) -> str:
    """The class of a state's colour."""
    first, _, inner = state.partition(".")
    return "tone-held" if inner in _WAITING else _STATES.get(first, "tone-rest")


def _from_reports(
    row: Instance | None, presence: Presence | None, scale: _Scale, *, is_over: bool
) -> list[_Step]:  # fmt: skip
    steps: list[tuple[datetime, str, Tone]] = []
    if row is not None and row.granted_at is not None and scale.begins <= row.granted_at <= scale.now:
        steps.append((row.granted_at, "granted", "held"))
    history = () if row is None else row.history
    steps += [(one.at, *after_report(one)) for one in history if scale.begins <= one.at <= scale.now]
    steps.sort(key=lambda step: step[0])
    found = [_Step(at=at, words=words, style=f"tone-{tone}") for at, words, tone in steps]
    if not is_over and presence is not None and style_of(presence.state) != "calm" and presence.since >= scale.begins:
        at = max(presence.since, steps[-1][0] if steps else scale.begins)
        found.append(_Step(at=at, words=presence.state, style=style_of(presence.state)))
    elif steps and steps[-1][2] in ("good", "bad"):
        found[-1] = _Step(at=steps[-1][0], words=steps[-1][1], style=f"tone-{steps[-1][2]}", lasts=False)
    return found


def after_report(one: Happening) -> tuple[str, Tone]:
    """What an instance does after a report, in words, and their tone."""
    return _AFTER.get(one.event, (f"event {one.event}", "rest"))


def _lane(name: str, steps: Sequence[_Step], scale: _Scale) -> Lane:
    parts: list[Part] = []
    said: list[str] = []
    for step, following in itertools.zip_longest(steps, steps[1:]):
        until = step.at if not step.lasts else scale.now if following is None else following.at
        if step.style == "calm" and following is None:
            said.append(step.words)
            continue
        took = f" {_spent(step.at, None if following is None else until)}" if step.lasts else ""
        parts.append(scale.part(f"{step.words}{took}", step.style, step.at, until))
        said.append(f"{step.words}{took}")
    return Lane(name=name, parts=tuple(parts), words=", ".join(said))


def _spent(at: datetime, until: datetime | None) -> str:
    """How long something took, or since when it goes on: such words stay the same while it does."""
    if until is None:
        return f"since {at.astimezone(UTC):%H:%M:%S} UTC"
    span = max(until - at, timedelta())
    return f"for {span.total_seconds():.1f}s" if timedelta() < span < timedelta(seconds=10) else f"for {length(span)}"


def _turns(overview: GroupOverview, held: Sequence[Held], scale: _Scale, *, is_over: bool) -> tuple[Lane, ...]:
    """A lane for each turn: who held it, and how long; what is too new for the history, from the turns as they are."""
    open_ = {(turn.number, turn.instance) for scope in overview.scopes for turn in scope.turns if turn.state != "free"}
    numbers = {one.slot for one in held} | {number for number, _ in open_}
    numbers |= {turn.number for scope in overview.scopes for turn in scope.turns}
    known = {(one.slot, one.instance) for one in held if one.ended is None}
    lanes = []
    for number in sorted(numbers):
        parts, said = [], []
        for one in (one for one in held if one.slot == number):
            at = moment(one.began)
            until = scale.now if one.ended is None else min(moment(one.ended), scale.now)
            if at > scale.now:
                continue
            words = f"{one.instance} {_spent(at, None if one.ended is None else until)}"
            parts.append(scale.part(words, "tone-busy", at, until))
            said.append(words)
        for slot, instance in sorted(open_ - known):
            if slot == number and not is_over:
                parts.append(scale.part(f"{instance} has it now", "tone-busy", scale.now, scale.now))
                said.append(f"{instance} has it now")
        lanes.append(Lane(name=f"turn {number + 1}", parts=tuple(parts), words=", ".join(said) or "nobody held it"))
    return tuple(lanes)


def in_states(alive: Iterable[Presence]) -> dict[str, list[str]]:
    """State -> instances that are in it."""
    found: dict[str, list[str]] = {}
    for one in alive:
        found.setdefault(one.state, []).append(one.instance)
    return dict(sorted(found.items()))
