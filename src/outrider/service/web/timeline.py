"""A rollout as a timeline: a bar for each instance, with what it did to scale.

The parts are what an instance has reported to the service, with their times; etcd keeps them. What an instance
is doing now, its sidekick's presence says.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from outrider.model.documents import Happening, Instance, Presence
from outrider.service.rollouts.explain import GroupOverview
from outrider.service.rollouts.waits import length
from outrider.service.web.fleet import Tone

MOST = 200
"""Bars in one picture; those that are at work come first."""
WIDTH = 1000
_AFTER: dict[str, tuple[str, Tone]] = {
    "13:1": ("downloading", "busy"),
    "14:1": ("verified", "busy"),
    "800:1": ("waiting for a turn", "held"),
    "3:1": ("installed", "good"),
    "3:2": ("running", "good"),
    "3:0": ("failed", "bad"),
}
"""What follows each report of a sidekick (``core.omaha.events``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a bar. ``x`` and ``width``: per mille of the picture."""

    words: str
    tone: Tone
    x: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The way of one instance through a rollout. ``words``: the same for who sees no picture."""

    instance: str
    parts: tuple[Part, ...]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A rollout. ``left_out``: instances that are not in the picture."""

    begins: datetime
    ends: datetime
    is_over: bool
    bars: tuple[Bar, ...]
    left_out: int


def timeline_of(overview: GroupOverview, now: datetime) -> Timeline | None:
    """The rollout of a group, from its beginning until it finished, or now; None: there is none."""
    snapshot = overview.snapshot
    if snapshot is None or snapshot.wanted is None:
        return None
    begins = snapshot.progress.started
    over = snapshot.progress.finished
    ends = max(over or now, begins)
    span_s = max((ends - begins).total_seconds(), 1.0)
    found: list[tuple[datetime, Bar]] = []
    for name in overview.instances:
        row, presence = overview.rows.get(name), overview.alive.get(name)
        steps = _steps(row, presence, begins, ends, is_over=over is not None)
        if steps:
            found.append((steps[0][0], _bar(name, steps, begins, ends, span_s)))
    found.sort(key=lambda one: (one[0], one[1].instance))
    bars = tuple(bar for _, bar in found)
    return Timeline(
        begins=begins, ends=ends, is_over=over is not None, bars=bars[-MOST:], left_out=max(0, len(bars) - MOST)
    )


def _steps(
    row: Instance | None, presence: Presence | None, begins: datetime, ends: datetime, *, is_over: bool
) -> list[tuple[datetime, str, Tone]]:
    """When each part began, the earliest first."""
    steps: list[tuple[datetime, str, Tone]] = []
    if row is not None and row.granted_at is not None and begins <= row.granted_at <= ends:
        steps.append((row.granted_at, "granted", "held"))
    steps += [(one.at, *after_report(one)) for one in (() if row is None else row.history) if begins <= one.at <= ends]
    steps.sort(key=lambda step: step[0])
    if not is_over and presence is not None and presence.state.partition(".")[0] != "idle" and presence.since >= begins:
        tone: Tone = "bad" if presence.state.startswith("rollback") else "busy"
        steps.append((max(presence.since, steps[-1][0] if steps else begins), presence.state, tone))
    return steps


def after_report(one: Happening) -> tuple[str, Tone]:
    """What an instance does after a report, in words, and their tone."""
    return _AFTER.get(one.event, (f"event {one.event}", "rest"))


def _bar(name: str, steps: list[tuple[datetime, str, Tone]], begins: datetime, ends: datetime, span_s: float) -> Bar:
    def place(at: datetime) -> int:
        return min(WIDTH, max(0, round(WIDTH * (at - begins).total_seconds() / span_s)))

    parts: list[Part] = []
    said: list[str] = []
    for number, (at, words, tone) in enumerate(steps):
        is_last = number + 1 == len(steps)
        settled = is_last and tone in ("good", "bad") and not words.startswith("rollback")
        until = at if settled else ends if is_last else steps[number + 1][0]
        x = place(at)
        width = max(place(until) - x, 6)
        took = "" if settled else f" for {length(until - at)}"
        parts.append(Part(words=f"{words}{took}", tone=tone, x=min(x, WIDTH - width), width=width))
        said.append(f"{words}{took}")
    return Bar(instance=name, parts=tuple(parts), words=", ".join(said))


def in_states(alive: Iterable[Presence]) -> dict[str, list[str]]:
    """State -> instances that are in it."""
    found: dict[str, list[str]] = {}
    for one in alive:
        found.setdefault(one.state, []).append(one.instance)
    return dict(sorted(found.items()))
