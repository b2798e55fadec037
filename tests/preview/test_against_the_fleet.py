"""The preview against the simulated fleet, which has its own etcd, locks, workers and loops: twelve instances."""

from datetime import datetime, timedelta

import pytest

from outrider.core.rollout.policy_settings import Policy
from outrider.core.sidekick.memory import Strategy
from outrider.preview.durations import Update, measured, updates_in
from outrider.preview.run import Group, Trouble
from outrider.preview.service import Known
from outrider.preview.summary import foresee
from tests.preview.groups import MONDAY
from tests.sim.fleet import EPOCH, Fleet


class Watched:
    """A fleet whose updates are noted as the update service would note them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._states = {member.name: member.machine.state for member in fleet.members}
        self.history: dict[str, list[tuple[datetime, str]]] = {member.name: [] for member in fleet.members}

    def rollout(self, version: str) -> float:
        """Roll ``version`` out and return the seconds until the last instance has reported that it has it."""
        began_s = self._fleet.now_s
        self._fleet.promote(version)
        self._fleet.run(lambda: self._look() and self._fleet.at_rest() and set(self._fleet.versions()) == {version})
        last = max(history[-1][0] for history in self.history.values())
        return (last - EPOCH).total_seconds() - began_s

    def updates(self) -> list[Update]:
        return [one for name, history in self.history.items() for one in updates_in(name, history)]

    def _look(self) -> bool:
        for member in self._fleet.members:
            before, now = self._states[member.name], member.machine.state
            if before == now:
                continue
            self._states[member.name] = now
            code = {"downloading.fetching": "13:1", "swapping.queueing": "800:1", "reporting": "3:1"}.get(now)
            if code is not None:
                self.history[member.name].append((self._fleet.now(), code))
        return True


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
def test_the_foreseen_median_is_what_twelve_instances_then_take(strategy: Strategy) -> None:
    """
    1. twelve instances take 2.0.0, and their updates are on record
    2. the rollout of 3.0.0 is foreseen
    3. it takes as long as that, give or take 15 %
    """
    fleet = Fleet(11, instances=12, slots=1, strategy=strategy)
    fleet.run(fleet.at_rest)
    watched = Watched(fleet)
    watched.rollout("2.0.0")
    durations = measured(watched.updates(), 1)
    group = Group(
        version="3.0.0",
        instances=tuple(Known(name=member.name, version="2.0.0", labels={}) for member in fleet.members),
        policy=Policy(),
        slots=1,
        strategy=strategy,
    )

    foreseen = foresee(group, durations, Trouble(), MONDAY, runs=7)
    took_s = watched.rollout("3.0.0")

    assert 12 == len(durations.turn_s)
    assert took_s == pytest.approx(foreseen.p50_s, rel=0.15)
    assert timedelta(seconds=took_s) > timedelta(seconds=60)
