"""Many runs of one rollout made into what an operator asks: how long, in which order, how many serve, in the window?"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from outrider.core.rollout.calendar import closed, next_stop
from outrider.core.rollout.policy_settings import Policy
from outrider.preview.durations import Durations
from outrider.preview.run import Group, Moment, Run, Trouble, Turned, run
from outrider.preview.service import unattended

MOST_RUNS, LEAST_RUNS, UPDATES = 40, 5, 600
"""Runs, and about how many updates of single instances they may have together: a second or some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What the runs say.

    Attributes:
        p50_s, p95_s: Of the time until the end.
        lowest: The fewest instances that served at once in any run; in ``usually_lowest``: in the middle run.
        reached: The most instances on which the version was started.
        updated: The fewest that came to it.
        middle: The run whose duration is p50.
        began, ends: Of the middle run.
        window: How the end lies to the times at which updates may begin; empty: there is no such limit.
        assumed: What was supposed, a line each.
    """

    runs: int
    p50_s: float
    p95_s: float
    lowest: int
    usually_lowest: int
    reached: int
    updated: int
    middle: Run
    began: datetime
    window: str
    assumed: tuple[str, ...]

    @property
    def ends(self) -> datetime:
        """When the middle run ends."""
        return self.began + timedelta(seconds=self.middle.ended_s)

    @property
    def order(self) -> tuple[Turned, ...]:
        """The turns of the middle run, in the order in which they begin."""
        return tuple(sorted(self.middle.turns, key=lambda one: one.began_s))

    @property
    def capacity(self) -> tuple[Moment, ...]:
        """How many serve at each moment of the middle run."""
        return self.middle.capacity


def foresee(
    group: Group, durations: Durations, trouble: Trouble, began: datetime, *, runs: int = 0, seed: int = 0
) -> Foreseen:
    """Let the rollout happen many times.

    Args:
        runs: How often; 0: as often as takes some seconds.
        seed: Of the first run; with the same one the same comes out.
    """
    count = runs or max(LEAST_RUNS, min(MOST_RUNS, UPDATES // max(1, len(group.instances))))
    free = Group(
        version=group.version, instances=group.instances, policy=unattended(group.policy), slots=group.slots,
        strategy=group.strategy,
    )  # fmt: skip
    found = sorted(
        (run(free, durations, trouble, seed + number, began) for number in range(count)), key=lambda one: one.ended_s
    )
    ended = [one.ended_s for one in found]
    middle = found[(count - 1) // 2]
    return Foreseen(
        runs=count,
        p50_s=statistics.median(ended),
        p95_s=ended[min(count - 1, math.ceil(0.95 * count) - 1)],
        lowest=min(one.lowest for one in found),
        usually_lowest=middle.lowest,
        reached=max(len(one.reached) for one in found),
        updated=min(len(one.updated) for one in found),
        middle=middle,
        began=began,
        window=window_words(group.policy, began, middle),
        assumed=_assumed(group, durations, trouble),
    )


def window_words(policy: Policy, began: datetime, one: Run) -> str:
    """Whether a rollout ends before updates may begin no more; empty where they may at any time."""
    if not (policy.windows or policy.deny_windows or policy.freezes):
        return ""
    calendar, ended = policy.calendar, began + timedelta(seconds=one.ended_s)
    first = min((turn.began_s for turn in one.turns), default=None)
    if first is None:
        shut = closed(calendar, began)
        return f"no update begins: {shut.why}" if shut is not None else "no update begins"
    opened = began + timedelta(seconds=first)
    stop = None if closed(calendar, opened) is not None else next_stop(calendar, opened)
    if stop is None or ended <= stop:
        until = "" if stop is None else f", which closes {_clock(stop)}"
        return f"it ends inside the window{until}"
    by_then = sum(turn.succeeded and _at(began, turn.ended_s) <= stop for turn in one.turns)
    return (
        f"it does not end inside the window: when that closes {_clock(stop)}, {by_then} of {len(one.updated)} are"
        f" updated; it ends {_clock(ended)}"
    )


def _at(began: datetime, seconds: float | None) -> datetime:
    return datetime.max.replace(tzinfo=began.tzinfo) if seconds is None else began + timedelta(seconds=seconds)


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _assumed(group: Group, durations: Durations, trouble: Trouble) -> tuple[str, ...]:
    lines = [*durations.words(group.strategy)]
    lines.append(f"all instances swap {group.strategy}; --strategy says otherwise")
    policy = group.policy
    if policy.approval or any(one.approval for one in policy.waves):
        lines.append("approvals come at once")
    if any(one.analyses for one in policy.waves):
        lines.append("the analyses between waves pass")
    if policy.max_failures is None and trouble.fails_at:
        lines.append("max_failures is not set: once one has succeeded, failures do not halt the rollout")
    lines.append("no crash, no lost machine, no change by a person; analyses pass at once, and tasks take no time")
    if trouble.fails_at:
        where = "does not prove healthy" if trouble.how == "probing" else "is found bad halfway through the soak time"
        lines.append(f"the instance that is number {trouble.fails_at} to swap {where}")
    if trouble.away_s:
        lines.append(
            f"etcd is away for {trouble.away_s:g} s, {trouble.away_from_s:.0f} s after the begin; leases live 30 s"
        )
    return tuple(lines)


def as_json(found: Foreseen, troubles: Mapping[str, Foreseen], total: int) -> Mapping[str, object]:
    """The whole as plain values, times in seconds."""
    return {
        "runs": found.runs,
        "instances": total,
        "p50_s": round(found.p50_s, 1),
        "p95_s": round(found.p95_s, 1),
        "begins": found.began.isoformat(),
        "ends": found.ends.isoformat(),
        "window": found.window,
        "lowest_serving": found.lowest,
        "updated": found.updated,
        "reached": found.reached,
        "stopped": found.middle.stopped,
        "outside": dict(found.middle.outside),
        "order": [_turn(one) for one in found.order],
        "capacity": [{"at_s": round(one.at_s, 1), "serving": one.serving} for one in found.capacity],
        "assumed": list(found.assumed),
        "if": {name: as_json(one, {}, total) for name, one in troubles.items()},
    }


def _turn(one: Turned) -> Mapping[str, object]:
    ended = None if one.ended_s is None else round(one.ended_s, 1)
    return {
        "instance": one.instance,
        "begins_s": round(one.began_s, 1),
        "ends_s": ended,
        "succeeded": one.succeeded,
    }


def duration_words(seconds: float) -> str:
    """``4 min 05 s``, ``2 h 10 min``, ``48 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours // 24} d {hours % 24} h" if hours >= 48 else f"{hours} h {minutes:02} min"


def serving_at(capacity: Sequence[Moment], began_s: float, ended_s: float | None) -> int:
    """The fewest that served between two moments."""
    lowest = capacity[0].serving
    for one in capacity:
        if one.at_s <= began_s:
            lowest = one.serving
        elif ended_s is None or one.at_s < ended_s:
            lowest = min(lowest, one.serving)
    return lowest
