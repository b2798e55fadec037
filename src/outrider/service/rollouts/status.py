"""``outrider status`` as facts: the cells of its tables and its lines, whether from etcd or from the service."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from outrider.core.errors import NotFound
from outrider.core.labels import Selector, parse_selector, shown
from outrider.model.documents import App, Presence, Undo
from outrider.service.rollouts.explain import (
    GroupOverview,
    ago,
    count,
    current_reason,
    describe_crash,
    describe_turn,
    read_overviews,
)
from outrider.service.store.context import StoreContext, some

Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """A group as ``outrider status`` shows it.

    Attributes:
        label: Of its app; its id when it has none.
        line: Cells of the table of all groups: app, group, target, instances, rollout.
        rows: Cells of the table of instances: group, instance, labels, state, version, wanted, since, why.
        summary: The line below that table.
        facts: For programs.
    """

    app: str
    group: str
    label: str
    line: Cells
    rows: tuple[Cells, ...]
    summary: str
    facts: dict[str, Any]


def read_status(
    context: StoreContext, app: str | None, group: str | None = None, *, selector: str = ""
) -> tuple[GroupStatus, ...]:
    """The groups of an app, one of them, or all groups of all apps.

    Without an app, those are listed, too, that no service knows, as long as their sidekicks live.

    Args:
        context: Where they are stored.
        app: Its id or name.
        group: Its id.
        selector: Only instances whose labels it selects; empty: all.

    Raises:
        NotFound: there is no such app or group.
        ConfigError: the selector can't be read.
    """
    chosen = parse_selector(selector)
    keys = context.keys
    names = {one.id: one.label for one in context.children(App, keys.apps())}
    if app is not None:
        return tuple(_status(context, names, overview, chosen) for overview in read_overviews(context, app, group))
    living = {one.app for one in context.all_below(Presence, keys.all_presences())}
    found = [each for one in sorted({*names, *living}) for each in _overviews(context, one)]
    return tuple(_status(context, names, overview, chosen) for overview in found)


def _overviews(context: StoreContext, app: str) -> tuple[GroupOverview, ...]:
    try:
        return read_overviews(context, app)
    except NotFound:  # it went meanwhile
        return ()


def _status(context: StoreContext, names: dict[str, str], overview: GroupOverview, chosen: Selector) -> GroupStatus:
    label = names.get(overview.app) or overview.app
    instances = [name for name in overview.instances if chosen.selects(overview.labels_of(name))]
    return GroupStatus(
        app=overview.app,
        group=overview.name,
        label=label,
        line=_cells(label, *_group_row(overview)),
        rows=tuple(_cells(*_row(context, overview, name)) for name in instances),
        summary=_summary(overview, context.now()),
        facts=_as_json(overview, instances),
    )


def _cells(*values: object) -> Cells:
    return tuple("" if value is None else str(value) for value in values)


def _group_row(overview: GroupOverview) -> tuple[object, ...]:
    """A group in a line: ``web  2.4.0  3 of 3  running  ...``."""
    if overview.problem:
        return (overview.titled, "", "", overview.problem)
    target = overview.target.label or ""
    alive = overview.alive.values()
    on_target = sum(one.is_at(overview.target.release) and one.serving for one in alive)
    instances = f"{sum(one.serving for one in alive)} of {len(overview.instances)} serve"
    if target and on_target < len(overview.instances):
        instances += f", {on_target} with {target}"
    paused = "paused" if overview.target.paused else ""
    blocked = f"blocked by {overview.block.instance}: {overview.block.why}" if overview.block is not None else ""
    rollout = overview.rollout if overview.snapshot is not None and overview.snapshot.has_begun else ""
    begun = [one for one in overview.crashes.values() if not one.cannot_begin]
    crashed = f"{count(len(begun), 'sidekick')} crashed" if begun else ""
    waiting = len(overview.crashes) - len(begun)
    unbegun = f"{count(waiting, 'machine')} cannot begin" if waiting else ""
    news = "; ".join(filter(None, (paused, blocked, rollout, *overview.unable, unbegun, crashed, *overview.tasks)))
    return (overview.titled, target, instances, news)


def _row(context: StoreContext, overview: GroupOverview, name: str) -> tuple[object, ...]:
    presence, now = overview.alive.get(name), context.now()
    head = (overview.name, name, shown(overview.labels_of(name)))
    crash = overview.crashes.get(name)
    crashed = [describe_crash(crash, now)] if crash is not None else []
    if presence is not None:
        since = ago(presence.since, now)
        why = current_reason(overview, name) or presence.why
        reasons = "; ".join(filter(None, (why, presence.notice, *crashed)))
        return (*head, presence.state, presence.runs, presence.wants, since, reasons)
    row = overview.rows.get(name)
    if row is None:
        strange = overview.strangers_of(name)
        what = strange or ("sidekick offline",)
        state = (
            "(refused)" if strange else "(cannot begin)" if crash is not None and crash.cannot_begin else "(unknown)"
        )
        return (*head, state, "", "", "", "; ".join([*what, *crashed]))
    away = "; ".join([f"sidekick offline; last check-in {ago(row.last_seen, now)} ago", *crashed])
    return (*head, f"({row.status})", row.runs, row.granted, "", away)


def _summary(overview: GroupOverview, now: datetime) -> str:
    if overview.problem:
        return f"group {overview.titled}: {overview.problem}"
    version = overview.target.label or "none"
    marks = [f"group {overview.titled}: target: {version}"]
    if overview.target.paused:
        marks.append("paused")
    if overview.group is not None and overview.group.undo is not None:
        marks.append(_pin(overview.group.undo))
    if overview.block is not None:
        marks.append(f"{version} blocked by {overview.block.instance}: {overview.block.why}")
    for scope in overview.scopes:
        taken = [describe_turn(scope, turn) for turn in scope.turns if turn.state != "free"]
        marks += taken or [f"all {count(scope.slots, 'turn')}{scope.where} free"]
        if scope.queue:
            marks.append(f"waiting for a turn: {', '.join(scope.queue)}")
        marks += [f"{name} held by {why}" for name, why in scope.held.items()]
    lately = () if overview.unproved is None else overview.unproved.shown(now)
    if lately:
        newest = lately[0]
        marks.append(
            f"unproved check-ins as {some([one.instance for one in lately])}, the last {ago(newest.last, now)} ago from"
            f" {newest.address or 'an unknown address'}; they changed nothing"
        )
    if overview.snapshot is not None and overview.snapshot.has_begun:
        marks.insert(1, overview.rollout)
    else:  # without a rollout of our service, the sidekicks tell it alone
        marks[1:1] = overview.unable
    marks += overview.tasks
    return "; ".join(marks)


def _pin(undo: Undo) -> str:
    """What `rollout undo` did, and what ends it."""
    left = f" from {undo.abandoned}" if undo.abandoned else ""
    by, why = (f" by {undo.by}" if undo.by else ""), (f" ({undo.why})" if undo.why else "")
    return f"pinned to {undo.version}: taken back{left}{by}{why}, until `rollout follow` or the next `channel update`"


def _as_json(overview: GroupOverview, instances: Iterable[str]) -> dict[str, Any]:
    return {
        "app": overview.app,
        "group": overview.name,
        "label": overview.label,
        "target": msgspec.to_builtins(overview.target),
        "pin": msgspec.to_builtins(None if overview.group is None else overview.group.undo),
        "blocks": msgspec.to_builtins(overview.block),
        "instances": [
            {
                "instance": name,
                "labels": dict(overview.labels_of(name)),
                "alive": msgspec.to_builtins(overview.alive.get(name)),
                "row": msgspec.to_builtins(overview.rows.get(name)),
                "strangers": [msgspec.to_builtins(one) for one in overview.strangers if one.instance == name],
                "crash": msgspec.to_builtins(overview.crashes.get(name)),
            }
            for name in instances
        ],
        "scopes": [
            {
                "scope": scope.shared or None,
                "slots": scope.slots,
                "turns": [
                    {"number": turn.number, "state": turn.state, "instance": turn.instance} for turn in scope.turns
                ],
                "queue": list(scope.queue),
                "held": dict(scope.held),
                "budgets": {name: list(instances) for name, instances in scope.budgets.items()},
            }
            for scope in overview.scopes
        ],
        "rollout": overview.rollout,
        "unproved": msgspec.to_builtins(overview.unproved),
        "problem": overview.problem or None,
        "deferred": [] if overview.snapshot is None else [one.instance for one in overview.snapshot.waiting],
    }
