"""One armed sidekick: its case, its scenario, and what has become of both so far."""

import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from tests.chaos.fixture import TTL_S, ChaosFixture
from tests.chaos.matrix import Case, scenario_of
from tests.chaos.proxy import Cut
from tests.chaos.scenarios import SCENARIOS, CaseRun, Scenario
from tests.support.waiting import eventually

MOST_PASSED: Mapping[str, int] = {
    "outbox.send": 1,
    "outbox.remove": 1,
    "command.remove": 0,
    "lease.revoke": 0,
    "due.claim": 0,
    "steps.write": 1,
}
"""Of failpoints that no effect asks for, so many hits may pass before the fault comes: these are met seldom."""
MANY = 11


def wait(seconds: float) -> None:
    """The length of a fault is a fact of its own: nothing is waited for but time."""
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= until, within_s=seconds + 5.0, every_s=0.05)


class Arm:
    """One instance whose sidekick meets one fault at one failpoint."""

    def __init__(
        self,
        fixture: ChaosFixture,
        instance: str,
        case: Case,
        seed: int,
        signals: Path,
        scenario: Scenario | None = None,
    ) -> None:
        """``signals`` is a folder of this arm alone: sidekicks outlive their case."""
        chosen = random.Random(f"{seed} {case.name}")
        self.fixture, self.instance, self.case, self.signals = fixture, instance, case, signals
        self.scenario = scenario or SCENARIOS[scenario_of(case.row)]
        ways: tuple[Cut, Cut] = ("refuse", "swallow")
        self.cut_how = chosen.choice(ways)
        self.clock_step = chosen.choice(("+3600", "-3600"))
        by_chance = not case.row.effect and self.scenario.settles and not self.scenario.first
        self.skip = chosen.randint(0, MOST_PASSED.get(case.row.point, MANY)) if by_chance else 0
        self.faulted = self.at_barrier = self.second_life = self.replaced = False

    def start(self) -> None:
        """Start the sidekick, armed."""
        self.signals.mkdir(parents=True, exist_ok=True)
        (self.signals / "step").write_text(self.clock_step)
        options = ["--at", self.case.row.name, "--when", self.case.when, "--fault", self.case.fault]
        options += ["--skip", str(self.skip), *self.scenario.options]
        options += ["--first", self.scenario.first] if self.scenario.first else []
        options += ["--barrier", self.scenario.barrier] if self.scenario.barrier else []
        self.fixture.start_armed(self.instance, self.signals, options, clock=self.case.fault == "clock")

    def attend(self, case_run: CaseRun) -> None:
        """Do what the sidekick waits for, if it does."""
        if self.scenario.barrier and not self.at_barrier and (self.signals / "barrier").exists():
            self.at_barrier = True
            self.scenario.at_barrier(case_run)
            (self.signals / "barrier.go").touch()
        if not self.faulted and (self.signals / "done").exists():
            self.faulted = True
            self._fault()

    def restart(self, case_run: CaseRun) -> None:
        """The sidekick was killed, and is started again: armed, when that was its first life of two."""
        if self.scenario.first and not self.second_life and not self.faulted:
            self.second_life = True
            self.scenario.between(case_run)
            self.start()
        else:
            self.replaced = True
            self.fixture.start_sidekick(self.instance)

    @property
    def may_die(self) -> bool:
        """Whether its death by SIGKILL is the case's own doing."""
        return self.case.fault == "kill" or bool(self.scenario.first)

    def disarm(self) -> bool:
        """An ordinary sidekick in place of one whose clock is wrong; whether that was needed."""
        if self.case.fault != "clock" or self.replaced:
            return False
        self.fixture.sidekicks[self.instance].stop()
        self.fixture.start_sidekick(self.instance)
        return True

    def _fault(self) -> None:
        """The harness's part of the fault: make it, where that isn't the sidekick's own doing, and end it."""
        go = self.signals / "go"
        match self.case.fault:
            case "stop":
                wait(TTL_S + 1.0)
                os.kill(self.fixture.sidekicks[self.instance].pid, signal.SIGCONT)
            case "cut":
                proxy = self.fixture.proxies[self.instance]
                proxy.cut(self.cut_how)
                go.touch()
                wait(TTL_S + 1.5)
                proxy.heal()
            case "full":
                disk = self.fixture.disks[self.instance]
                try:
                    disk.fill()
                    go.touch()
                    wait(2.0)
                finally:
                    disk.free()
            case _:
                pass
