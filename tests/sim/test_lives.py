"""Stop a sidekick after every single step of an update, restart it, and require the end of the undisturbed run."""

from functools import partial

import pytest

from outrider.core.chart.machine import Step
from outrider.core.sidekick.events import AnyEvent
from outrider.core.sidekick.memory import Strategy
from tests.sim.fleet import Badness, Fleet, Member
from tests.support.rings import mostly_long


class Stopped(Fleet):
    """A fleet of one, killed right after its ``kill_at``-th step was journalled, before or after it acts.

    With ``reboots`` it isn't the sidekick alone that ends then, but all that runs on its machine.
    """

    def __init__(
        self, kill_at: int, *, acts: bool, strategy: Strategy, badness: Badness, reboots: bool = False
    ) -> None:
        self.count, self.kill_at, self.acts, self.reboots = 0, 10**9, acts, reboots
        self.killed_in = ""
        super().__init__(7, instances=1, slots=1, strategy=strategy, bad={"2.0.0": badness})
        self.run(self.at_rest)
        self.count, self.kill_at = 0, kill_at

    def _is_past(self, moment_s: float) -> bool:
        return self.now_s >= moment_s

    def journalled(self, member: Member, event: AnyEvent | None, step: Step) -> None:
        super().journalled(member, event, step)
        self.count += 1
        if self.count == self.kill_at:
            self.killed_in = step.target
            if not self.acts:
                self._kill(member)

    def acted(self, member: Member, step: Step) -> None:
        if self.count == self.kill_at:
            self._kill(member)

    def _kill(self, member: Member) -> None:
        self.kill_at = 10**9
        if self.reboots:
            self.reboot(member, 2.0)
        else:
            self.crash(member, 2.0)

    def finish(self, badness: Badness) -> None:
        self.promote("2.0.0")
        wanted = "2.0.0" if badness == "none" else "1.0.0"
        blocked = set() if badness == "none" else {"2.0.0"}
        for _ in range(2):
            self.run(lambda: self.at_rest() and self.versions() == [wanted] and self.blocked == blocked)
            self.run(partial(self._is_past, self.now_s + 1.0))  # whatever is announced has been heard by then
        self.run(self.at_rest)
        assert len(self.members[0].workloads) == 1, f"killed in {self.killed_in}: something was left running"


@pytest.mark.parametrize("badness", ["none", "refused", "unhealthy", "dies"])
@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
@pytest.mark.parametrize("acts", [False, True], ids=["before-acting", "after-acting"])
@pytest.mark.parametrize("reboots", [False, True], ids=["sidekick", "machine"])
@pytest.mark.parametrize("every", mostly_long((5, 1), short=lambda every: every == 5), ids=["each-fifth", "each"])
def test_killed_after_any_step_it_ends_as_if_undisturbed(
    reboots: bool, acts: bool, strategy: Strategy, badness: Badness, every: int
) -> None:
    """The short form ends each fifth step; of the 16 combinations of the rest, those beside each other take others."""
    whole = Stopped(10**9, acts=True, strategy=strategy, badness=badness)
    whole.finish(badness)
    assert whole.count >= 10, "the undisturbed update has at least ten steps"

    first = 1 + (reboots + 2 * acts + (strategy == "stop-first")) % every
    for kill_at in range(first, whole.count + 1, every):
        fleet = Stopped(kill_at, acts=acts, strategy=strategy, badness=badness, reboots=reboots)
        fleet.finish(badness)
        assert fleet.killed_in, f"step {kill_at} was never reached"
