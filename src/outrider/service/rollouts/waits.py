"""The numbers of a wait, and what ends it: how long a state lasts at most, how long a turn takes about."""

import functools
from collections.abc import Mapping
from datetime import datetime, timedelta

from outrider.core.errors import ChartError
from outrider.core.rollout.calendar import closed, next_stop
from outrider.core.rollout.policy import Defer
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.rollout import Progress
from outrider.model.damage import read_or_none
from outrider.model.documents import OpenGrant, Presence
from outrider.service.store.snapshot import GroupSnapshot
from outrider.statechart import load_sidekick_chart


def length(span: timedelta) -> str:
    """A time for people: ``7s``, ``12m``, ``5h``, ``3d``."""
    seconds = max(timedelta(), span).total_seconds()
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // unit)}{name}"
    return f"{int(seconds // 86400)}d"


def in_state(presence: Presence, now: datetime) -> str:
    """``12s of at most 30s``: how long it has been in its state; without the limit where that has none."""
    most = "" if presence.until is None else f" of at most {length(presence.until - presence.since)}"
    late = ", overdue" if presence.until is not None and now > presence.until else ""
    return f"{length(now - presence.since)}{most}{late}"


def doing(alive: Mapping[str, Presence], now: datetime) -> dict[str, str]:
    """What each instance does, for the line of the turn that it holds: ``draining, 12s of at most 30s``."""
    return {name: f"{one.state.rpartition('.')[2]}, {in_state(one, now)}" for name, one in alive.items()}


def again(presence: Presence, now: datetime) -> str:
    """``tries again by itself in 41m``; empty where only an event helps."""
    at = presence.again_at
    return "" if at is None or at <= now else f"looks again by itself in {length(at - now)}"


@functools.cache
def _chart_ends() -> Mapping[str, str]:
    try:
        return {leaf.id: leaf.ends for leaf in load_sidekick_chart().leaves}
    except ChartError:  # the service runs without a chart; what it knows besides is still told
        return {}


def state_ends(presence: Presence) -> str:
    """What ends the state that a sidekick is in, by our chart, not filled in; empty for one that it doesn't have."""
    return _chart_ends().get(presence.state, "")


def closing(policy: Policy, now: datetime) -> str:
    """When the window closes in which updates may begin now; empty: it doesn't, or none is open."""
    at = None if closed(policy.calendar, now) is not None else next_stop(policy.calendar, now)
    return "" if at is None else f"window closes in {length(at - now)}: no update begins from then until it opens again"


def begin_before(snapshot: GroupSnapshot, instance: str) -> str:
    """Until when a granted instance must have taken its turn; empty: it has, or nobody said."""
    entry = snapshot.grants.get(instance)
    grant = None if entry is None else read_or_none(OpenGrant, entry.key, entry.value)
    if grant is None or grant.begun is not None or grant.begin_before is None or not grant.takes_turns:
        return ""
    left = length(grant.begin_before - snapshot.now)
    return f"its swap must begin within {left}; after that it is deferred again"


def about(progress: Progress, ahead: int, now: datetime) -> str:
    """How long an instance with ``ahead`` others before it waits, by how the rollout went; empty while nobody knows."""
    if progress.succeeded < 1 or progress.finished is not None or progress.state != "running":
        return ""
    spent = now - progress.started
    left = spent / progress.succeeded * (ahead + 1)
    return f"about {length(left)} at the pace of this rollout ({progress.succeeded} done in {length(spent)})"


def about_interval(verdict: Defer, policy: Policy, before: int, now: datetime) -> str:
    """How long the limit per interval holds an instance with ``before`` others before it; empty for other rules."""
    rate = policy.max_per_interval
    if verdict.by != "max-per-interval" or verdict.again_at is None or rate is None:
        return ""
    left = verdict.again_at - now + timedelta(seconds=rate.interval_s) * (before // rate.count)
    return f"about {length(left)} by that limit"
