"""Why a group, or a whole app, is as it is: what its rollout waits for, its turns, and which instances wait for what.

Instances that wait for the same stand in one line, so that a group of a thousand is a few lines long.
"""

from dataclasses import dataclass
from datetime import datetime

from outrider.core.rollout.ends import (
    BEGIN_ENDS,
    BLOCK_ENDS,
    ENDS,
    OFFLINE_ENDS,
    STRANGER_ENDS,
    TASK_BLOCK_ENDS,
    TURN_ENDS,
    filled_in,
)
from outrider.core.rollout.policy import Defer, Grant
from outrider.core.rollout.slots import TurnWord
from outrider.service.rollouts.explain import (
    ENDS_WITH,
    GroupOverview,
    ago,
    count,
    describe_crash,
    read_overviews,
    verdict_of,
    with_remedy,
)
from outrider.service.rollouts.waits import about, about_interval, closing, state_ends
from outrider.service.store.context import StoreContext, some

SHOWN = 5
"""Instances of a queue that are named, the next one first; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReasons:
    """A group of an app with its reasons, the most important first."""

    app: str
    group: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wait:
    """What one instance waits for. Those with an equal ``kind`` are told together, with the words of the first one.

    ``ends``: not filled in (``core.rollout.ends``).
    """

    kind: tuple[str, ...]
    words: str
    ends: str = ""


def explain_groups(context: StoreContext, app: str, group: str | None = None) -> tuple[GroupReasons, ...]:
    """Explain the groups of an app, or one of them.

    Raises:
        NotFound: there is no such app or group.
    """
    now = context.now()
    return tuple(
        GroupReasons(app=one.app, group=one.name, reasons=explain_group(one, now))
        for one in read_overviews(context, app, group)
    )


def explain_group(overview: GroupOverview, now: datetime) -> tuple[str, ...]:
    """The lines of a group, from what was read."""
    if overview.problem:
        return (f"group {overview.titled} of {overview.app}: {overview.problem}",)
    at_target = sum(one.is_at(overview.target.release) for one in overview.alive.values())
    target = overview.target.label
    head = f"group {overview.titled} of {overview.app}: target {target or 'none'}"
    if overview.instances:
        serving = sum(one.serving for one in overview.alive.values())
        known = count(len(overview.instances), "instance")
        running = f", {at_target} with {target}" if target else ""
        head += f"; {serving} of {known} serve{'s' if serving == 1 else ''}{running}"
    else:
        head += "; no instance has checked in, and no sidekick of it lives"
    return (head, *_rollout(overview, now), *_turns(overview, now), *_instances(overview, now), *_notes(overview, now))


def _rollout(overview: GroupOverview, now: datetime) -> list[str]:
    """How far it is, and what holds up all instances alike."""
    lines = []
    if overview.rollout:
        lines.append(overview.rollout)
    if overview.block is not None:
        ends = filled_in(TASK_BLOCK_ENDS if overview.block.task else BLOCK_ENDS, overview.app, overview.name)
        lines.append(f"{overview.target.label} blocked by {overview.block.instance}: {overview.block.why}")
        lines.append(f"{ENDS_WITH}{ends}")
    snapshot = overview.snapshot
    if snapshot is not None and snapshot.wanted is not None and snapshot.progress.finished is None:
        waits = len(snapshot.waiting) + snapshot.progress.open.total
        lines += filter(None, (closing(snapshot.policy, now),))
        lines += filter(None, (about(snapshot.progress, waits - 1, now) if waits else "",))
    return lines


def _turns(overview: GroupOverview, now: datetime) -> list[str]:
    lines = []
    for scope in overview.scopes:
        taken = [turn for turn in scope.turns if turn.state != "free"]
        lines += [with_remedy(scope, turn) for turn in taken]
        if scope.queue:
            free = max(0, scope.slots - len(taken))
            more = f" and {len(scope.queue) - SHOWN} more" if len(scope.queue) > SHOWN else ""
            queue = f"{', '.join(scope.queue[:SHOWN])}{more}"
            lines.append(f"{count(len(scope.queue), 'instance')} in the queue{scope.where}, {free} free: {queue}")
            states = {turn.state for turn in taken}
            word: TurnWord = "dirty" if "dirty" in states else "held" if states else "free"
            lines.append(f"{ENDS_WITH}{filled_in(TURN_ENDS[word], overview.app, overview.name)}")
        lines += [f"{name} held by {why}" for name, why in sorted(scope.held.items())]
    return lines


def _instances(overview: GroupOverview, now: datetime) -> list[str]:
    """Every instance, those that wait for the same in one line, first those that wait."""
    found: dict[tuple[str, ...], list[tuple[str, _Wait]]] = {}
    for name in overview.instances:
        one = _wait_of(overview, name, now)
        found.setdefault(one.kind, []).append((name, one))
    lines = []
    for kind, members in sorted(found.items(), key=lambda each: (each[0] == ("current",), -len(each[1]), each[0])):
        names, words = [name for name, _ in members], members[0][1]
        example = ", for example" if len({one.words for _, one in members}) > 1 else ""
        lines.append(f"{count(len(names), 'instance')} ({some(names)}){example}: {words.words}")
        if words.ends:
            alone = names[0] if len(names) == 1 else "INSTANCE"
            lines.append(f"{ENDS_WITH}{filled_in(words.ends, overview.app, overview.name, alone)}")
        if kind == ("rule", "max-per-interval") and overview.snapshot is not None:
            lines += filter(None, (_last_of_interval(overview, names, now),))
    return lines


def _wait_of(overview: GroupOverview, name: str, now: datetime) -> _Wait:
    presence, row = overview.alive.get(name), overview.rows.get(name)
    if presence is None:
        if strange := overview.strangers_of(name):
            return _Wait(kind=("stranger", name), words=strange[0], ends=STRANGER_ENDS)
        crash = overview.crashes.get(name)
        seen = "" if row is None else f"; last check-in {ago(row.last_seen, now)} ago"
        died = "" if crash is None else f"; {describe_crash(crash, now)}"
        if crash is not None and crash.cannot_begin:
            return _Wait(kind=("cannot-begin", name), words=f"sidekick offline{seen}{died}", ends=BEGIN_ENDS)
        if died or row is None or row.had_sidekick:
            return _Wait(kind=("offline",), words=f"sidekick offline{seen}{died}", ends=OFFLINE_ENDS)
    verdict = verdict_of(overview, name)
    at_rest = presence is None or presence.state.partition(".")[0] == "idle"
    waits = overview.snapshot is not None and any(one.instance == name for one in overview.snapshot.waiting)
    if presence is not None and presence.why and not (at_rest and waits):
        said = f"{presence.state.rpartition('.')[2]}: {presence.why}"
        return _Wait(kind=("state", presence.state), words=said, ends=state_ends(presence))
    if isinstance(verdict, Defer) and overview.snapshot is not None:
        if verdict.by == "current":
            return _Wait(kind=("current",), words=verdict.reason)
        is_tasks = verdict.by == "blocked" and overview.block is not None and bool(overview.block.task)
        ends = TASK_BLOCK_ENDS if is_tasks else ENDS[verdict.by]
        return _Wait(kind=("rule", verdict.by), words=verdict.reason, ends=ends)
    if isinstance(verdict, Grant):
        what = "granted" if verdict.standing else "available at the next check-in"
        return _Wait(kind=("grant", what, verdict.version), words=f"update to {verdict.version} {what}")
    if isinstance(verdict, str):
        return _Wait(kind=("unjudged", verdict), words=verdict)
    if presence is not None and presence.is_at(overview.target.release):
        return _Wait(kind=("current",), words="up to date")
    state = "no sidekick" if presence is None else presence.state
    return _Wait(kind=("state", state), words=state, ends="" if presence is None else state_ends(presence))


def _last_of_interval(overview: GroupOverview, names: list[str], now: datetime) -> str:
    """When the limit per interval lets the last of them go."""
    verdict = verdict_of(overview, names[0])
    if not isinstance(verdict, Defer) or overview.snapshot is None:
        return ""
    last = about_interval(verdict, overview.snapshot.policy, len(names) - 1, now)
    return f"for all of them {last}" if last else ""


def _notes(overview: GroupOverview, now: datetime) -> list[str]:
    """What to know besides: who can't take the release, tasks, check-ins that nobody proved."""
    lines = [*([] if overview.rollout else overview.unable), *overview.tasks]
    if overview.unproved is not None:
        lines += [line for one in overview.unproved.shown(now) for line in overview.unproved_as(one.instance, now)]
    return lines
