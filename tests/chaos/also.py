"""Faults that are no single sidekick's: etcd's leader, all of etcd, its history, every sidekick at once."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from outrider.failpoints import When
from outrider.model.keys import group_scope
from tests.chaos.arms import Arm, wait
from tests.chaos.cases import CaseFailed, Outcome, Runner
from tests.chaos.fixture import TTL_S, ChaosFixture, NodesFixture
from tests.chaos.matrix import Case, Row
from tests.chaos.scenarios import SCENARIOS

ALSO: Mapping[str, str] = {
    "leader-killed": "etcd's leader of three is killed, and restarted after 3 s",
    "all-nodes-killed": "all three nodes of etcd are killed, and restarted after 3 s",
    "compacted-while-cut": "etcd's history is compacted while the sidekick that swaps is cut off",
    "all-sidekicks-killed": "every sidekick is killed at the same moment",
}
"""Name -> what happens."""

_WHEN: When = "before"


class AlsoRunner(Runner):
    """A good release, and the fault once somebody has the turn."""

    def __init__(self, fixture: ChaosFixture, name: str, seed: int, folder: Path) -> None:
        case = Case(row=Row(effect="also", point=name), when=_WHEN, fault="kill")
        super().__init__(fixture, [Arm(fixture, fixture.instances[0], case, seed, folder, SCENARIOS["good"])], seed)
        self.name = name

    def _play(self) -> None:
        arm = self.arms[0]
        arm.scenario.release(self.case_run)
        self._until(self._has_turn, "somebody has the turn")
        acts: Mapping[str, Callable[[], None]] = {
            "leader-killed": self._kill_leader,
            "all-nodes-killed": self._kill_nodes,
            "compacted-while-cut": self._compact,
            "all-sidekicks-killed": self._kill_sidekicks,
        }
        acts[self.name]()
        arm.faulted = True
        self._until(self._ended, f"all ended on {self.case_run.wanted}")

    def _may_die(self, instance: str) -> bool:
        return self.name == "all-sidekicks-killed"

    def _kill_leader(self) -> None:
        assert isinstance(self.fixture, NodesFixture)
        leader = self.fixture.nodes.leader()
        leader.kill()
        wait(3.0)
        leader.start()

    def _kill_nodes(self) -> None:
        assert isinstance(self.fixture, NodesFixture)
        for member in self.fixture.nodes.members:
            member.kill()
        wait(3.0)
        for member in self.fixture.nodes.members:
            member.start()

    def _compact(self) -> None:
        holder = self._holder()
        proxy = self.fixture.proxies[holder]
        proxy.cut("swallow")
        wait(TTL_S + 1.0)
        # the others have moved etcd on meanwhile: what the one that is cut off would resume from is gone
        for _ in range(20):
            self.fixture.say(self.fixture.instances[0], "retry")
        revision = self.fixture.cluster.list(self.fixture.keys.turns(group_scope("none", "none"))).revision
        self.fixture.etcd_control("compact", str(revision))
        wait(1.0)
        proxy.heal()

    def _kill_sidekicks(self) -> None:
        for instance in self.fixture.instances:
            os.kill(self.fixture.sidekicks[instance].pid, signal.SIGKILL)

    def _holder(self) -> str:
        swapping = [name for name, (_, state) in self.fixture.versions().items() if state.startswith("swapping.")]
        holding = [name for name in swapping if self.fixture.records(name)[-1].memory["turn"] is not None]
        if not holding:
            raise CaseFailed("nobody holds the turn any more")
        return holding[0]


def run_also(name: str, seed: int, folder: Path) -> Outcome:
    """Run one of ``ALSO`` on a fixture of its own."""
    kind = NodesFixture if name in ("leader-killed", "all-nodes-killed") else ChaosFixture
    fixture = kind(folder, "start-first")
    try:
        fixture.bring_up()
        (outcome,) = AlsoRunner(fixture, name, seed, folder / "signals").run()
        outcome.case = f"also/{name}"
        return outcome
    finally:
        fixture.stop()
