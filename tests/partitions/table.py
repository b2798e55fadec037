"""What must be seen of a machine from which something is cut: the table of the design, one cell per place.

    etcd            before a turn: waits. Before traffic moved: undoes, then waits. After: finishes here, the turn dirty
    update service  announcements wait; a swap under way finishes; reports wait in the outbox
    payload server  tries again, then an error and back to idle
    balancer        its keys are written all the same; the drain goes by time
    runtime         before the swap: an error, and idle. In it: back, with what is possible

A row's rules are read from the top; the first that names the place or its phase counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tests.partitions.cut_points import CUT_POINTS, CutPoint, Phase
from tests.partitions.cuts import Thing

Runs = Literal["old", "new", "both", "nothing"]


@dataclass(frozen=True)
class Expected:
    """What is to be seen during the cut.

    Attributes:
        stands: States in one of which it stands; empty when it is at rest with the release's verdict.
        runs: Which versions run on the machine; any of these.
        entry: What the balancer's keys say: ``old``, ``new``, ``none``; any of these, anything when empty.
        turn: ``none``, ``held`` or ``dirty``; any of these, anything when empty.
        reports: Whether reports to the update service wait; None when it may be either.
        passes: States that the journal shows on the way.
        drained: What the journal says of how the drain ended, when there was one.
    """

    stands: tuple[str, ...] = ()
    runs: tuple[Runs, ...] = ()
    entry: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    reports: bool | None = None
    passes: tuple[str, ...] = ()
    drained: str = ""


def _in(*stands: str, runs: Runs, entry: str, turn: str = "", passes: tuple[str, ...] = ()) -> Expected:
    """It stands in one of these states, and so do the rest."""
    split = tuple(turn.split(" or ")) if turn else ()
    return Expected(stands=stands, runs=(runs,), entry=(entry,), turn=split, passes=passes)


FINISHES = Expected(turn=("none",), reports=False)
SILENTLY = Expected(turn=("none",), reports=True)
"""Finishes, and what there is to report waits."""
CALLED_OFF = Expected(stands=("idle.waiting",), runs=("old",), entry=("old",), turn=("none",))
AGAIN_AND_AGAIN = Expected(
    stands=("",), runs=("old", "both"), reports=False, passes=("idle.cooling",)
)  # an update that fails through no fault of the release is tried again, after a pause
ASKS = _in("checking", "idle.cooling", runs="old", entry="old", turn="none")
QUEUES = _in("swapping.queueing", runs="old", entry="old", turn="none")
UNDOES = _in("swapping.reclaiming", runs="old", entry="old", turn="dirty", passes=("swapping.retreating",))
IN_DOUBT = _in("swapping.reclaiming", runs="both", entry="old", turn="dirty")
GIVES_BACK = _in("swapping.releasing", runs="new", entry="new", turn="dirty")
RETURNS = _in("swapping.returning", runs="both", entry="new", turn="dirty")
JOINS = _in("swapping.joining", runs="new", entry="none", turn="dirty")
COMES_BACK = _in("rollback.rejoining", runs="old", entry="none", turn="dirty")
BLOCKS = _in("rollback.blocking", runs="old", entry="old", turn="dirty")
DOWN = _in("rollback.reverting", runs="nothing", entry="none", turn="held or dirty")
"""Deliberately out, under its turn, and nothing can be started: the old version isn't proved to serve."""

_TOO_FAR = ("rollback.relocking", "swapping.reclaiming")

Rules = tuple[tuple[str, Expected], ...]

_ETCD: Rules = (
    ("idle-waiting", _in("idle.waiting", runs="old", entry="old", turn="none")),
    ("withdrawing", _in("swapping.withdrawing", runs="old", entry="old", turn="none")),
    ("before a turn", QUEUES),
    ("leaving-2", _in("rollback.rejoining", runs="old", entry="old", turn="dirty")),
    ("before traffic moved", UNDOES),
    ("as traffic moves", IN_DOUBT),
    ("draining-2", COMES_BACK),
    ("out", JOINS),
    ("restarting", RETURNS),
    ("reproving", RETURNS),
    ("returning", RETURNS),
    ("after it moved", GIVES_BACK),
    ("rollback-relocking", _in("rollback.relocking", runs="both", entry="new", turn="dirty")),
    ("rollback-restoring", _in("rollback.relocking", runs="both", entry="new", turn="dirty")),
    ("rollback-releasing", _in("rollback.releasing", runs="old", entry="old", turn="dirty")),
    ("rollback-quitting-2", _in("rollback.relocking", runs="new", entry="new", turn="dirty")),
    ("rollback-releasing-2", _in("rollback.releasing", runs="old", entry="old", turn="dirty")),
    ("rollback-relocking-2", _in("rollback.relocking", runs="new", entry="new", turn="dirty")),
    ("rollback-undraining", BLOCKS),
    ("rollback-removing", BLOCKS),
    ("rollback-blocking", BLOCKS),
    ("rollback-removing-2", BLOCKS),
    ("rollback-blocking-2", BLOCKS),
    ("back", COMES_BACK),
)


def _unheard(rules: Rules) -> Rules:
    """The same, while what is sent still arrives: leases may be kept, and turns given back, that nobody hears of."""
    return tuple((name, replace(cell, turn=())) for name, cell in rules)


TABLE: Mapping[Thing, Rules] = {
    "etcd": _ETCD,
    "etcd's answers": (
        # the sidekick goes on at once, and so it may have left its place before it has noticed
        ("starting", Expected(stands=_TOO_FAR, runs=("old", "both"), entry=("old",))),
        ("probing", Expected(stands=_TOO_FAR, runs=("old", "both"), entry=("old",))),
        (
            "draining-2",
            Expected(stands=("swapping.joining", "rollback.rejoining"), runs=("old", "new"), entry=("none",)),
        ),
        *_unheard(_ETCD),
    ),
    "update service": (
        ("idle-waiting", ASKS),
        ("checking", ASKS),
        ("fetching", Expected(stands=("checking", "idle.cooling"), runs=("old",), entry=("old",), reports=True)),
        ("withdrawing", CALLED_OFF),
        *((phase, SILENTLY) for phase in ("before a turn", "before traffic moved", "as traffic moves", "out")),
        ("after it moved", SILENTLY),
        ("back", SILENTLY),
    ),
    "payload server": (
        ("idle-waiting", AGAIN_AND_AGAIN),
        ("checking", AGAIN_AND_AGAIN),
        ("fetching", AGAIN_AND_AGAIN),
        ("withdrawing", CALLED_OFF),
        *((phase, FINISHES) for phase in ("before a turn", "before traffic moved", "as traffic moves", "out")),
        ("after it moved", FINISHES),
        ("back", FINISHES),
    ),
    "balancer": (
        ("withdrawing", CALLED_OFF),
        *(
            (phase, Expected(turn=("none",), reports=False, drained="not confirmed"))
            for phase in ("before a turn", "before traffic moved", "as traffic moves", "out", "after it moved", "back")
        ),
    ),
    "balancer's etcd": (
        ("withdrawing", CALLED_OFF),
        ("before a turn", AGAIN_AND_AGAIN),
        ("before traffic moved", AGAIN_AND_AGAIN),
        ("as traffic moves", AGAIN_AND_AGAIN),
        ("out", FINISHES),
        ("after it moved", FINISHES),
        ("rollback-relocking", _in("rollback.undraining", runs="both", entry="old", turn="held")),
        ("rollback-restoring", _in("rollback.undraining", runs="both", entry="old", turn="held")),
        ("rollback-relocking-2", _in("rollback.undraining", runs="new", entry="none", turn="held")),
        ("rollback-quitting-2", _in("rollback.undraining", runs="new", entry="none", turn="held")),
        ("back", FINISHES),
    ),
    "runtime": (
        ("queueing-2", DOWN),  # it leaves the balancer, and then nothing can be started
        ("withdrawing", CALLED_OFF),
        ("before a turn", AGAIN_AND_AGAIN),
        ("starting", AGAIN_AND_AGAIN),
        ("leaving-2", DOWN),
        ("draining-2", DOWN),
        ("replacing-2", DOWN),
        ("rollback-relocking-2", DOWN),
        ("rollback-quitting-2", DOWN),
        ("rollback-undraining-2", DOWN),
        ("rollback-reverting-2", DOWN),
        *((phase, FINISHES) for phase in ("before traffic moved", "as traffic moves", "out", "after it moved", "back")),
    ),
    "network": (
        ("checking", ASKS),
        ("fetching", Expected(stands=("checking", "idle.cooling"), runs=("old",), entry=("old",), reports=True)),
        ("draining", _in("rollback.relocking", runs="both", entry="new", turn="dirty")),
        ("soaking", _in("rollback.relocking", runs="both", entry="new", turn="dirty")),
        ("analysing", _in("rollback.relocking", runs="both", entry="new", turn="dirty")),
        ("restarting", _in("swapping.restarting", "swapping.reproving", runs="both", entry="new", turn="dirty")),
        ("reproving", _in("swapping.restarting", "swapping.reproving", runs="both", entry="new", turn="dirty")),
        ("replacing-2", _in("rollback.reverting", runs="nothing", entry="none", turn="dirty")),
        ("probing-2", _in("rollback.reverting", runs="nothing", entry="none", turn="dirty")),
        ("soaking-2", _in("rollback.relocking", runs="new", entry="new", turn="dirty")),
        ("rollback-undraining-2", _in("rollback.reverting", runs="nothing", entry="none", turn="dirty")),
        ("rollback-reverting-2", _in("rollback.reverting", runs="nothing", entry="none", turn="dirty")),
        (
            "rollback-reprobing-2",
            _in("rollback.reverting", "rollback.reprobing", runs="old", entry="none", turn="dirty"),
        ),
        *_ETCD,
    ),
}


def expected(thing: Thing, cut_point: CutPoint) -> Expected:
    """What the table says of this cell.

    Raises:
        AssertionError: it says nothing.
    """
    for name, cell in TABLE[thing]:
        if name in (cut_point.name, cut_point.phase):
            return cell
    raise AssertionError(f"the table has no cell for {thing} x {cut_point.name}")


def verdict(cut_point: CutPoint) -> Literal["old", "new"]:
    """What the instance that is cut shall run in the end, when nothing is cut any more."""
    return "new" if cut_point.release == "good" and cut_point.way not in ("called off", "rolled back") else "old"


def names() -> set[str]:
    """All that a rule may be named after."""
    phases: set[str] = {cut_point.phase for cut_point in CUT_POINTS}
    return phases | {cut_point.name for cut_point in CUT_POINTS}


def phases() -> tuple[Phase, ...]:
    """The phases, in the order in which places pass them."""
    return tuple(dict.fromkeys(cut_point.phase for cut_point in CUT_POINTS))
