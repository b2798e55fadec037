"""A fixture whose sidekicks are killed with SIGKILL in the states that their lives say, and restarted, nothing else."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from outrider.core.sidekick.memory import Strategy
from outrider.demo.fleet import QUICK, end_workloads
from tests.live.live_fixture import LiveFixture
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Life:
    """One instance, and the states in which its sidekick is killed, one after the other."""

    kills: tuple[str, ...]
    release: str = "good"
    strategy: Strategy = "start-first"

    @property
    def name(self) -> str:
        return "-".join(state.replace(".", "-") for state in self.kills) + (
            "-2" if self.strategy == "stop-first" else ""
        )


class KilledFixture(LiveFixture):
    """Instances whose sidekicks die as their lives say; slots for all of them."""

    def __init__(
        self,
        folder: Path,
        lives: tuple[Life, ...],
        *,
        odd_acts: bool,
        settings: Mapping[str, Mapping[str, object]] = QUICK,
    ) -> None:
        self.lives = {life.name: life for life in lives}
        super().__init__(
            folder,
            list(self.lives),
            settings=settings,
            strategy=lives[0].strategy,
            environment={"PYTHONPATH": str(CHECKOUT)},
        )
        # every other sidekick dies right before it acts, the others right after
        self._acts = {life.name: (number % 2 == 1) == odd_acts for number, life in enumerate(lives)}

    def bring_up(self) -> None:
        self.start()
        self.create(slots=50)
        for instance in self.instances:
            self.start_sidekick(instance)
        eventually(lambda: self.nobody_died() and self.expect_all_on("1.0.0"), within_s=90, every_s=0.3)

    def arm(self) -> None:
        """From here on each sidekick is one that will be killed at the first of its states."""
        for instance, life in self.lives.items():
            self.sidekicks[instance].stop()
            self.start_killed(instance, life.kills[0])

    def start_killed(self, instance: str, state: str) -> None:
        done = self.done(instance, state)
        command = [
            sys.executable,
            "-m",
            "tests.live.killed_sidekick",
            "--config",
            str(self.folder / f"{instance}.toml"),
        ]
        command += ["--kill-at", state, "--done", str(done)] + (["--after-acting"] if self._acts[instance] else [])
        self.start_sidekick(instance, command)

    def done(self, instance: str, state: str) -> Path:
        return self.folder / f"{instance}.{state}.killed"

    def restart_the_dead(self) -> bool:
        """Restart whoever was killed; true when all kills of all lives have happened."""
        for instance, life in self.lives.items():
            program = self.sidekicks[instance]
            if program.ended is None:
                continue
            if program.ended != -9:
                pytest.fail(f"{instance} ended with {program.ended}: {program.log.read_text()[-2000:]}")
            left = [state for state in life.kills if not self.done(instance, state).exists()]
            if left:
                self.start_killed(instance, left[0])
            else:
                self.start_sidekick(instance)
        return all(self.done(name, state).exists() for name, life in self.lives.items() for state in life.kills)

    def nobody_died(self) -> bool:
        for program in self.sidekicks.values():
            if program.ended is not None:
                pytest.fail(f"{program.name} ended with {program.ended}: {program.log.read_text()[-2000:]}")
        return True

    def end_workloads(self, instance: str) -> None:
        """Let the app end, as in a crash of its own."""
        end_workloads(self.state_dir(instance))
