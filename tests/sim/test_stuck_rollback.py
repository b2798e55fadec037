"""A fleet in which a rollback can't start the version before: its turn shows as dirty, and each way out leads back."""

from typing import Literal

import pytest

from outrider.core.chart.machine import Step
from outrider.core.sidekick.memory import Strategy
from outrider.turns.turns import read_scope
from tests.sim.fleet import Fleet, Member
from tests.sim.life import SCOPE
from tests.sim.store import KEYS

WayOut = Literal["wait", "retry", "release", "crash"]


class Stuck(Fleet):
    """From the moment in which a rollback is to start the old version, no runtime starts anything."""

    def __init__(self, seed: int) -> None:
        self.stuck: Member | None = None
        strategy: Strategy = "stop-first"
        super().__init__(seed, instances=3, slots=1, strategy=strategy, bad={"3.0.0": "unhealthy"})
        self.run(self.at_rest)
        self.promote("3.0.0")
        self.run(self.is_dirty)

    def acted(self, member: Member, step: Step) -> None:
        if step.target == "rollback.reverting" and self.stuck is None:
            self.stuck, self.faults.runtime = member, 1.0

    def is_dirty(self) -> bool:
        """The slot is taken, and its living owner has left the queue."""
        if self.stuck is None or not self.stuck.up:
            return False
        scope = read_scope(self._hand, KEYS, SCOPE)
        return scope.slot_of(self.stuck.name) is not None and self.stuck.name not in scope.queue

    def free(self) -> None:
        """An operator frees the turn."""
        assert self.stuck is not None
        self.end_turn(self.stuck)

    def is_back(self) -> bool:
        return self.at_rest() and set(self.versions()) == {"1.0.0"} and self.blocked == {"3.0.0"}


@pytest.mark.parametrize("way_out", ["wait", "retry", "release", "crash"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_rollback_that_is_stuck_is_dirty_and_every_way_out_leads_back(seed: int, way_out: WayOut) -> None:
    fleet = Stuck(seed)
    member = fleet.stuck
    assert member is not None
    assert "rollback.reverting" == member.machine.state

    match way_out:
        case "retry":
            fleet.faults.runtime = 0.0
            fleet.command(member, "retry")
        case "release":
            fleet.free()
            fleet.run(lambda: member.machine.state == "idle.degraded")
            assert {"3.0.0"} == fleet.blocked
            fleet.faults.runtime = 0.0
        case "crash":
            fleet.crash(member, 5.0)
            fleet.faults.runtime = 0.0
        case _:
            fleet.faults.runtime = 0.0

    fleet.run(fleet.is_back)
    fleet.check()
    assert {member.name} == fleet.touched["3.0.0"]
