"""A group: its instances, its rollout, its turns, and what can be done with it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from outrider.core.chart.draw_path import lay_out_path
from outrider.core.chart.draw_prune import prune
from outrider.core.chart.draw_sheet import Marks
from outrider.core.chart.draw_svg import to_svg
from outrider.core.chart.draw_theme import Theme
from outrider.core.chart.flat import flattened
from outrider.core.sidekick.guards import decided_by
from outrider.service.rollouts.explain import GroupOverview, describe_turn, with_remedy
from outrider.service.rollouts.explain_groups import explain_group
from outrider.service.store.context import some
from outrider.service.web.actions.rollout import API_GROUP, OF_GROUP, overview_of
from outrider.service.web.fleet import card_of
from outrider.service.web.rows import COLUMNS, chosen, rows_of
from outrider.service.web.site import Drawing, Page, Visit
from outrider.service.web.timeline import LEGEND, in_states, timeline_of
from outrider.service.web.versions import RANGES, chart_of, shades_of, usual_span
from outrider.statechart import load_sidekick_chart

INSTANCE = "/api/v1/apps/{app}/instances/{instance}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """A link to an action. ``to``: below the group's address."""

    to: str
    words: str
    danger: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A turn as a line. ``slot``: its number, where the visitor may release it; None: not."""

    words: str
    state: str
    slot: int | None


def view(visit: Visit) -> Mapping[str, Any]:
    """The group that the path names."""
    overview = overview_of(visit)
    card = card_of(overview, visit.app_label(overview.app), visit)
    rows = rows_of(overview)
    query = {name: visit.query.get(name, "") for name in ("q", "state", "sort", "span")}
    states = in_states(overview.alive.values())
    turns = _turns(overview, visit)
    may_command = visit.may("POST", f"{INSTANCE}/command".format(app=visit.names["app"], instance="x"))
    snapshot = overview.snapshot
    has_rollout = snapshot is not None and snapshot.wanted is not None
    past = visit.past.of(overview.app, overview.name, snapshot.progress.started if snapshot and has_rollout else None)
    span = query["span"] if query["span"] in RANGES else usual_span(past, visit.now)
    chart = chart_of(past, span, overview.target.label or "", visit.now)
    shades = shades_of(chart)
    card = replace(card, bars=tuple(replace(bar, shade=shades.get(bar.version, bar.shade)) for bar in card.bars))
    return {
        "card": card,
        "buttons": _buttons(overview, visit),
        "reasons": explain_group(overview, visit.now)[1:],
        "rows": chosen(rows, query),
        "known": len(rows),
        "columns": COLUMNS,
        "query": query,
        "timeline": timeline_of(overview, past, visit.now),
        "legend": LEGEND,
        "chart": chart,
        "spans": [(one, one == span) for one in RANGES],
        "turns": turns,
        "queues": [(scope.where, scope.queue) for scope in overview.scopes if scope.queue],
        "states": [(state, len(names), some(names)) for state, names in states.items()],
        "drawing": hashlib.sha256(repr(states).encode()).hexdigest()[:12],
        "policy": [] if overview.group is None else _policy(overview),
        "can_edit": overview.group is not None and visit.may("PUT", f"{API_GROUP}/policy".format(**visit.names)),
        "may_command": may_command,
    }


def _buttons(overview: GroupOverview, visit: Visit) -> tuple[Button, ...]:
    """What the visitor may do with the group as it is."""
    group, snapshot, names = overview.group, overview.snapshot, visit.names
    if group is None:
        return ()
    found = []
    channel = f"/api/v1/apps/{names['app']}/channels/{group.channel}"
    if visit.may("PUT", channel):
        found.append(Button(to=f"promote/{group.channel}", words=f"Promote to {group.channel}"))
    if snapshot is None or snapshot.wanted is None:
        return tuple(found)
    rollout = f"{API_GROUP}/rollout/".format(**names)
    if visit.may("POST", f"{rollout}approve") and snapshot.policy.approval:
        found += [Button(to="approve", words="Approve"), Button(to="reject", words="Reject", danger=True)]
    if visit.may("POST", f"{rollout}pause"):
        if snapshot.progress.state == "running":
            found += [Button(to="pause", words="Pause"), Button(to="halt", words="Halt", danger=True)]
        else:
            found.append(Button(to="resume", words="Resume"))
        found.append(Button(to="undo", words="Undo", danger=True))
        if overview.block is not None:
            found.append(Button(to=f"unblock/{overview.block.key}", words=f"Unblock {overview.block.label}"))
    return tuple(found)


def _turns(overview: GroupOverview, visit: Visit) -> tuple[Turn, ...]:
    may = visit.may("POST", f"{API_GROUP}/turns/0/release".format(**visit.names))
    found = []
    for scope in overview.scopes:
        for turn in scope.turns:
            if turn.state == "free":
                words = f"turn {turn.number + 1} of {scope.slots}{scope.where}: free"
            else:
                words = with_remedy(scope, turn) if turn.state == "held" else describe_turn(scope, turn)
            may_free = may and turn.state == "dirty" and not scope.shared
            found.append(Turn(words=words, state=turn.state, slot=turn.number if may_free else None))
    return tuple(found)


def _policy(overview: GroupOverview) -> list[tuple[str, str]]:
    """Every setting of the policy that is not its default, and the number of the environment."""
    assert overview.group is not None
    policy, default = overview.group.policy, type(overview.group.policy)()
    found = [("slots", str(overview.group.slots))]
    for name in policy.__struct_fields__ if hasattr(policy, "__struct_fields__") else policy.__dataclass_fields__:
        value = getattr(policy, name)
        if value != getattr(default, name):
            found.append((name.replace("_", " "), _shown(value)))
    if overview.group.environment:
        found.append(("environment", f"number {overview.group.environment}"))
    return found


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "; ".join(_shown(each) for each in value)
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is None:
        return str(value)
    return ", ".join(f"{name.replace('_', ' ')} {getattr(value, name)}" for name in fields if getattr(value, name))


def draw(visit: Visit) -> bytes:
    """The statechart with the number of instances in each state."""
    states = in_states(overview_of(visit).alive.values())
    theme: Theme = "dark" if visit.query.get("theme") == "dark" else "light"
    marks = tuple((state, f"{len(names)}: {some(names)}") for state, names in states.items())
    return _drawn(marks, theme)


@lru_cache(maxsize=32)
def _drawn(marks: tuple[tuple[str, str], ...], theme: Theme) -> bytes:
    chart = prune(flattened(load_sidekick_chart()), decided_by("start-first"))
    noted = Marks(notes={state: (words,) for state, words in marks if state in chart.states})
    return to_svg(lay_out_path(chart, chart.name, noted), theme).encode()


PAGE = Page(path=OF_GROUP, template="group.html", reads=f"GET {API_GROUP}", view=view, title="{app}/{group}")
STATECHART = Drawing(path=f"{OF_GROUP}/statechart.svg", reads=f"GET {API_GROUP}", draw=draw)
