"""Where a sidekick stands when its machine is cut: the chart's states, and how each is reached."""

from dataclasses import dataclass
from typing import Literal

from outrider.core.sidekick.memory import Strategy

Phase = Literal["before a turn", "before traffic moved", "as traffic moves", "out", "after it moved", "back"]
"""``out``: stop-first has left the balancer and nobody serves. ``back``: the update is being undone."""

Way = Literal["plain", "announced", "second", "called off", "restarted", "rolled back"]
"""How a place is reached when the roll-out alone doesn't lead there.

``announced``: the release comes after the cut. ``second``: the other instance has the turn. ``called off``: as second,
and the group is paused. ``restarted``: killed in ``retiring``. ``rolled back``: by an operator, in ``probing``.
"""


@dataclass(frozen=True)
class Place:
    """A state, and how to bring a sidekick there."""

    state: str
    phase: Phase
    strategy: Strategy = "start-first"
    release: Literal["good", "unhealthy", "souring"] = "good"
    way: Way = "plain"

    @property
    def name(self) -> str:
        """``soaking-2`` for stop-first; part of instance names."""
        word = self.state.removeprefix("swapping.").removeprefix("downloading.").replace(".", "-")
        return word + ("-2" if self.strategy == "stop-first" else "")


PLACES = (
    Place("idle.waiting", "before a turn", way="announced"),
    Place("checking", "before a turn"),
    Place("downloading.fetching", "before a turn"),
    Place("verifying", "before a turn"),
    Place("swapping.queueing", "before a turn", way="second"),
    Place("swapping.withdrawing", "before a turn", way="called off"),
    Place("swapping.starting", "before traffic moved"),
    Place("swapping.probing", "before traffic moved"),
    Place("swapping.switching", "as traffic moves"),
    Place("swapping.draining", "after it moved"),
    Place("swapping.soaking", "after it moved"),
    Place("swapping.retiring", "after it moved"),
    Place("swapping.reviving", "after it moved", way="restarted"),
    Place("swapping.reproving", "after it moved", way="restarted"),
    Place("swapping.returning", "after it moved", way="restarted"),
    Place("swapping.releasing", "after it moved"),
    Place("swapping.queueing", "before a turn", "stop-first", way="second"),
    Place("swapping.leaving", "before traffic moved", "stop-first"),
    Place("swapping.draining", "out", "stop-first"),
    Place("swapping.replacing", "out", "stop-first"),
    Place("swapping.probing", "out", "stop-first"),
    Place("swapping.joining", "out", "stop-first"),
    Place("swapping.soaking", "after it moved", "stop-first"),
    Place("swapping.retiring", "after it moved", "stop-first"),
    Place("swapping.releasing", "after it moved", "stop-first"),
    Place("rollback.relocking", "back", release="souring"),
    Place("rollback.restoring", "back", release="souring"),
    Place("rollback.undraining", "back", release="souring"),
    Place("rollback.removing", "back", release="unhealthy"),
    Place("rollback.condemning", "back", release="unhealthy"),
    Place("rollback.releasing", "back", way="rolled back"),
    Place("rollback.relocking", "back", "stop-first", "souring"),
    Place("rollback.quitting", "back", "stop-first", "souring"),
    Place("rollback.undraining", "back", "stop-first", "souring"),
    Place("rollback.reverting", "back", "stop-first", "unhealthy"),
    Place("rollback.reprobing", "back", "stop-first", "unhealthy"),
    Place("rollback.rejoining", "back", "stop-first", "unhealthy"),
    Place("rollback.removing", "back", "stop-first", "unhealthy"),
    Place("rollback.condemning", "back", "stop-first", "unhealthy"),
    Place("rollback.releasing", "back", "stop-first", way="rolled back"),
)

ELSEWHERE = {
    "swapping.committing": "left in the same step in which it is entered: never the state of a journal",
    "swapping.retreating": "what a cut from etcd leads to: passed in the cells of probing and starting",
    "swapping.reclaiming": "what a cut from etcd leads to: passed in the cells of probing and starting",
}
"""States below ``swapping`` and ``rollback`` in which nobody is cut, and why not."""


def place(name: str) -> Place:
    """The place of that name."""
    return next(one for one in PLACES if one.name == name)
