"""The rows of the matrix, made from the list of failpoints and the chart; and which scenario brings a sidekick to each.

A new effect in the chart, or a new failpoint in a row, has no scenario here and fails ``test_matrix.py``.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from outrider.core.sidekick.memory import Strategy
from outrider.failpoints import FAILPOINTS, FAILPOINTS_OF, UNASKED, When

Fault = Literal["kill", "stop", "cut", "full", "clock"]
Runtime = Literal["process", "docker"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
WHENS: tuple[When, ...] = ("before", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One failpoint as one effect meets it with one runtime; ``effect`` is empty where none asks for it.

    ``scenario``: another way there than the row's own, see ``OTHER_WAYS``.
    """

    effect: str
    point: str
    runtime: Runtime = "process"
    scenario: str = ""

    @property
    def name(self) -> str:
        """``balancer.switch/entry.write``; ``/journal.sync`` where no effect asks."""
        return f"{self.effect}/{self.point}"

    @property
    def label(self) -> str:
        """The same, with the runtime when it isn't ``process``, or the other way."""
        other = self.scenario or (self.runtime if self.runtime != "process" else "")
        return f"{self.name}@{other}" if other else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to try."""

    row: Row
    when: When
    fault: Fault

    @property
    def name(self) -> str:
        """What ``--only`` takes."""
        return f"{self.row.label}:{self.when}:{self.fault}"


SCENARIOS: Mapping[str, str] = {
    "lock.acquire": "good",
    "lock.acquire/turn.leave": "moved",
    "lock.reclaim": "restarted",
    "lock.retake": "souring",
    "lock.retake/admission.read": "decommissioned",
    "lock.retake/turn.release": "decommissioned-admitted",
    "lock.retake/turn.reclaim": "souring-restarted",
    "lock.retake/turn.ticket": "robbed",
    "lock.retake/turn.enqueue": "robbed",
    "lock.retake/turn.take": "robbed",
    "lock.release": "good",
    "lock.release/turn.read": "withdrawn",
    "lock.release/turn.leave": "withdrawn",
    "lock.prove": "good",
    "lock.suspend": "stuck-2",
    "lock.resign": "decommissioned",
    "lock.resign/turn.read": "decommissioned-robbed",
    "lock.resign/turn.leave": "decommissioned-robbed",
    "lock.block": "unhealthy",
    "lock.block/turn.read": "robbed-late",
    "lock.block/block.write": "robbed-late",
    "workload.ensure": "down",
    "workload.tidy": "stray",
    "workload.start": "good",
    "workload.replace": "good-2",
    "workload.revert": "unhealthy-2",
    "workload.retire": "good",
    "workload.remove": "unhealthy",
    "workload.restart": "rebooted",
    "probe.start": "good",
    "probe.confirm": "started",
    "probe.watch": "good",
    "analysis.start": "analysed",
    "balancer.switch": "good",
    "balancer.switch/static.write": "bare",
    "balancer.leave": "good-2",
    "balancer.join": "good-2",
    "balancer.join/static.write": "bare-2",
    "balancer.return": "started",
    "balancer.return/entry.write": "down",
    "balancer.return/static.write": "bare-started",
    "balancer.restore": "souring",
    "balancer.drain": "good",
    "balancer.undrain": "souring",
    "release.check": "good",
    "release.download": "good",
    "release.verify": "good",
    "release.verify/payload.prune": "wrong",
    "release.verify/workload.prune": "moved",
    "task.run": "tasked",
    "report.downloading": "good",
    "report.downloaded": "good",
    "report.queueing": "good",
    "report.result": "good",
    "/journal.write": "good",
    "/journal.sync": "good",
    "/journal.rotate": "rotating",
    "/lease.grant": "started",
    "/lease.keep": "good",
    "/lease.revoke": "lapsed",
    "/outbox.send": "good",
    "/outbox.remove": "good",
    "/presence.write": "good",
    "/steps.write": "told",
    "/announcement.read": "started",
    "/command.remove": "commanded",
    "/workload.adopt": "adopted",
    "/due.claim": "followed",
}
"""Effect, or row, -> scenario; a row's own entry goes before its effect's."""

UNREACHED: Mapping[str, str] = {
    "lock.retake/turn.leave": "only when a take has conditions (block, target), and a retake has none",
    "lock.block/turn.leave": "only when somebody removed the slot key alone, by hand and not by our commands",
    "lock.block/running.read": "only in a first install of a bad release; lock.release does the same",
    "lock.block/running.write": "as lock.block/running.read",
    "workload.retire/workload.prune": "only what the prune while verifying could not remove",
    "balancer.restore/entry.remove": "only in a first install of a bad release; leave is the same transaction",
}
"""Rows that no scenario reaches -> why. Their failpoints are reached under other effects."""

STOP_FIRST = frozenset({"good-2", "unhealthy-2", "bare-2", "stuck-2"})
"""Scenarios that need a fleet with the strategy stop-first."""


CONTAINER_POINTS: Mapping[str, tuple[str, ...]] = {
    "release.download": ("payload.fetch",),
    "release.verify": ("workload.prepare",),
    "workload.ensure": ("workload.clear", "workload.unpack", "workload.record", "workload.spawn"),
    "workload.start": ("workload.clear", "workload.unpack", "workload.record", "workload.spawn"),
    "workload.replace": ("workload.signal", "workload.clear", "workload.unpack", "workload.record", "workload.spawn"),
    "workload.revert": ("workload.signal", "workload.clear", "workload.unpack", "workload.record", "workload.spawn"),
    "workload.retire": ("workload.signal", "workload.erase"),
    "workload.remove": ("workload.signal", "workload.erase"),
}
"""What of the rows is Docker's doing: ``workload.record`` is the creation of the container, ``spawn`` its start."""
CONTAINER_FAULTS: tuple[Fault, ...] = ("kill", "stop")
"""The others befall the sidekick's own files, clock and etcd, which are the same with any runtime."""


OTHER_WAYS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "racks": {
        "lock.acquire": ("turn.read", "turn.enqueue", "turn.take"),
        "lock.release": ("turn.release",),
        "workload.start": ("workload.spawn",),
        "balancer.switch": ("entry.write",),
    },
    "environment": {
        "lock.acquire": ("turn.take",),
        "workload.start": ("workload.record", "workload.spawn"),
        "balancer.switch": ("entry.write",),
        "lock.release": ("running.write", "turn.release"),
    },
}
"""Scenario -> effect -> failpoints that are met on this way, too: with a budget of a label, with a new environment."""


TOGETHER = frozenset({"told", "good", "good-2", "started", "restarted", "rotating", "adopted"})
"""Scenarios that end in a good release and nothing else: as many of their cases as there are instances meet in one."""


def rows() -> tuple[Row, ...]:
    """Every row, in the order of the list."""
    asked = (Row(effect=effect, point=point) for effect, points in FAILPOINTS_OF.items() for point in points)
    others = (
        Row(effect=effect, point=point, scenario=scenario)
        for scenario, effects in OTHER_WAYS.items()
        for effect, points in effects.items()
        for point in points
    )
    unasked = (Row(effect="", point=point) for point in UNASKED)
    return (*(row for row in asked if not UNREACHED.get(row.name)), *unasked, *others)


def scenario_of(row: Row) -> str:
    """Its scenario's name.

    Raises:
        LookupError: it has none: write one.
    """
    found = row.scenario or SCENARIOS.get(row.name) or SCENARIOS.get(row.effect)
    if not found:
        raise LookupError(f"{row.name}: no scenario brings a sidekick there; name one in tests/chaos/matrix.py")
    return found


def strategy_of(row: Row) -> Strategy:
    """The strategy of the fleet that its scenario needs."""
    return "stop-first" if scenario_of(row) in STOP_FIRST else "start-first"


def cases() -> tuple[Case, ...]:
    """All rows x before and after x all faults."""
    return tuple(Case(row=row, when=when, fault=fault) for row in rows() for when in WHENS for fault in FAULTS)


def container_rows() -> tuple[Row, ...]:
    """The rows that are run with containers too."""
    return tuple(
        Row(effect=effect, point=point, runtime="docker")
        for effect, points in CONTAINER_POINTS.items()
        for point in points
    )


def container_cases() -> tuple[Case, ...]:
    """All of them x before and after x what may befall a sidekick in the middle of Docker's work."""
    return tuple(
        Case(row=row, when=when, fault=fault)
        for row in container_rows()
        for when in WHENS
        for fault in CONTAINER_FAULTS
    )


def sample(seed: int, strategy: Strategy) -> Iterator[Case]:
    """Cases in an order that the seed decides, faults in turn, so that any beginning has some of each."""
    chosen = random.Random(seed)
    left = {
        fault: [case for case in cases() if case.fault == fault and strategy_of(case.row) == strategy]
        for fault in FAULTS
    }
    for pile in left.values():
        chosen.shuffle(pile)
    while any(left.values()):
        for pile in left.values():
            if pile:
                yield pile.pop()


def in_company(chosen: Iterable[Case], most: int) -> Iterator[tuple[Case, ...]]:
    """The same cases in their order, those that may meet in one rollout in groups of at most ``most``."""
    waiting: list[Case] = []
    for case in chosen:
        if scenario_of(case.row) not in TOGETHER:
            yield (case,)
            continue
        waiting.append(case)
        if len(waiting) == most:
            yield tuple(waiting)
            waiting = []
    if waiting:
        yield tuple(waiting)


def unlisted_failpoints() -> set[str]:
    """Failpoints that no row reaches: there must be none."""
    return set(FAILPOINTS) - {row.point for row in rows()}
