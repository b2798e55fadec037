"""Where a sidekick stands when its machine is cut: the chart's states, and how each is reached."""

from dataclasses import dataclass
from typing import Literal

from outrider.core.sidekick.memory import Strategy

Phase = Literal["before a turn", "before traffic moved", "as traffic moves", "out", "after it moved", "back"]
"""``out``: stop-first has left the balancer and nobody serves. ``back``: the update is being undone."""

Way = Literal["plain", "announced", "second", "called off", "restarted", "rolled back"]
"""How a place is reached when the rollout alone doesn't lead there.

``announced``: the release comes after the cut. ``second``: the other instance has the turn. ``called off``: as second,
and the group is paused. ``restarted``: killed in ``retiring``. ``rolled back``: by an operator, in ``probing``.
"""


@dataclass(frozen=True)
class CutPoint:
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


CUT_POINTS = (
    CutPoint("idle.waiting", "before a turn", way="announced"),
    CutPoint("checking", "before a turn"),
    CutPoint("downloading.fetching", "before a turn"),
    CutPoint("verifying", "before a turn"),
    CutPoint("swapping.queueing", "before a turn", way="second"),
    CutPoint("swapping.withdrawing", "before a turn", way="called off"),
    CutPoint("swapping.starting", "before traffic moved"),
    CutPoint("swapping.probing", "before traffic moved"),
    CutPoint("swapping.switching", "as traffic moves"),
    CutPoint("swapping.draining", "after it moved"),
    CutPoint("swapping.soaking", "after it moved"),
    CutPoint("swapping.analysing", "after it moved"),
    CutPoint("swapping.retiring", "after it moved"),
    CutPoint("swapping.restarting", "after it moved", way="restarted"),
    CutPoint("swapping.reproving", "after it moved", way="restarted"),
    CutPoint("swapping.returning", "after it moved", way="restarted"),
    CutPoint("swapping.releasing", "after it moved"),
    CutPoint("swapping.queueing", "before a turn", "stop-first", way="second"),
    CutPoint("swapping.leaving", "before traffic moved", "stop-first"),
    CutPoint("swapping.draining", "out", "stop-first"),
    CutPoint("swapping.replacing", "out", "stop-first"),
    CutPoint("swapping.probing", "out", "stop-first"),
    CutPoint("swapping.joining", "out", "stop-first"),
    CutPoint("swapping.soaking", "after it moved", "stop-first"),
    CutPoint("swapping.retiring", "after it moved", "stop-first"),
    CutPoint("swapping.releasing", "after it moved", "stop-first"),
    CutPoint("rollback.relocking", "back", release="souring"),
    CutPoint("rollback.restoring", "back", release="souring"),
    CutPoint("rollback.undraining", "back", release="souring"),
    CutPoint("rollback.removing", "back", release="unhealthy"),
    CutPoint("rollback.blocking", "back", release="unhealthy"),
    CutPoint("rollback.releasing", "back", way="rolled back"),
    CutPoint("rollback.relocking", "back", "stop-first", "souring"),
    CutPoint("rollback.quitting", "back", "stop-first", "souring"),
    CutPoint("rollback.undraining", "back", "stop-first", "souring"),
    CutPoint("rollback.reverting", "back", "stop-first", "unhealthy"),
    CutPoint("rollback.reprobing", "back", "stop-first", "unhealthy"),
    CutPoint("rollback.rejoining", "back", "stop-first", "unhealthy"),
    CutPoint("rollback.removing", "back", "stop-first", "unhealthy"),
    CutPoint("rollback.blocking", "back", "stop-first", "unhealthy"),
    CutPoint("rollback.releasing", "back", "stop-first", way="rolled back"),
)

ELSEWHERE = {
    "swapping.committing": "left in the same step in which it is entered: never the state of a journal",
    "swapping.readying": "nothing was touched, and a claim is etcd's: tests/sim/test_tasks.py cuts and kills there",
    "swapping.retreating": "what a cut from etcd leads to: passed in the cells of probing and starting",
    "swapping.reclaiming": "what a cut from etcd leads to: passed in the cells of probing and starting",
}
"""States below ``swapping`` and ``rollback`` in which nobody is cut, and why not."""


def cut_point(name: str) -> CutPoint:
    """The place of that name."""
    return next(one for one in CUT_POINTS if one.name == name)
