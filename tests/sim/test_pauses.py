"""A sidekick that stands still judges nothing by the time in which nobody looked."""

from functools import partial

import pytest

from outrider.core.chart.machine import Step
from outrider.core.sidekick.memory import Strategy
from tests.sim.fleet import Fleet, Member

STANDSTILL_S = 200.0
"""Longer than any deadline in these states, and than a lease lives."""


class Stopped(Fleet):
    """A fleet whose first member to come to a state is stopped there once (SIGSTOP), for a long while."""

    def __init__(self, state: str, strategy: Strategy) -> None:
        self.stop_in = ""
        self.stopped: list[str] = []
        super().__init__(3, instances=3, slots=1, strategy=strategy, bad={"3.0.0": "sours"})
        self.run(self.at_rest)
        self.stop_in = state

    def acted(self, member: Member, step: Step) -> None:
        if step.target == self.stop_in and not self.stopped:
            self.stopped.append(member.name)
            self.freeze(member, STANDSTILL_S)

    def all_on(self, version: str) -> bool:
        return self.at_rest() and set(self.versions()) == {version}


@pytest.mark.parametrize(
    ("strategy", "state"),
    [
        *(("start-first", f"swapping.{leaf}") for leaf in ("starting", "probing", "switching", "draining", "soaking")),
        *(("stop-first", f"swapping.{leaf}") for leaf in ("leaving", "replacing", "probing", "joining", "soaking")),
    ],
)
def test_a_good_release_is_not_blocked_for_it(strategy: Strategy, state: str) -> None:
    fleet = Stopped(state, strategy)

    fleet.promote("2.0.0")
    fleet.run(partial(fleet.all_on, "2.0.0"))

    assert fleet.stopped, f"nobody came to {state}"
    assert not fleet.blocked


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
@pytest.mark.parametrize("state", ["swapping.probing", "swapping.soaking"])
def test_a_bad_release_does_not_pass_by_it(strategy: Strategy, state: str) -> None:
    fleet = Stopped(state, strategy)

    fleet.promote("3.0.0")
    fleet.run(lambda: fleet.all_on("1.0.0") and fleet.blocked == {"3.0.0"})

    assert fleet.stopped, f"nobody came to {state}"
