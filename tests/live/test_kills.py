"""``kill -9`` of a real sidekick in every state of the chart: after a restart alone it ends where it would have."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from outrider.cluster.documents import Poison, Presence, decode
from outrider.core.memory import Strategy
from outrider.demo.example import build_package
from outrider.demo.stage import APP_ID, CHANNEL, GROUP, Stage
from outrider.journal import read
from outrider.statechart import load_sidekick_chart
from tests.servers import etcd_binary
from tests.waiting import eventually

pytestmark = pytest.mark.live

RELEASES = ("good", "unhealthy", "souring")
"""``unhealthy`` never proves healthy; ``souring`` does, and turns bad under traffic."""


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


CHECKOUT = Path(__file__).parents[2]
START, STOP = "start-first", "stop-first"
LIVES = (
    Life(("idle.waking",)),
    Life(("idle.proving",)),
    Life(("idle.joining",)),
    Life(("idle.waiting",)),
    Life(("checking",)),
    Life(("downloading.fetching",)),
    Life(("verifying",)),
    Life(("swapping.queueing",)),
    Life(("swapping.queueing", "swapping.withdrawing")),
    Life(("swapping.starting",)),
    Life(("swapping.probing",)),
    Life(("swapping.switching",)),
    Life(("swapping.switching", "swapping.reclaiming")),
    Life(("swapping.draining",)),
    Life(("swapping.soaking",)),
    Life(("swapping.retiring",)),
    Life(("swapping.retiring", "swapping.reviving")),
    Life(("swapping.retiring", "swapping.reproving")),
    Life(("swapping.releasing",)),
    Life(("reporting",)),
    Life(("swapping.leaving",), strategy="stop-first"),
    Life(("swapping.draining",), strategy="stop-first"),
    Life(("swapping.replacing",), strategy="stop-first"),
    Life(("swapping.probing",), strategy="stop-first"),
    Life(("swapping.joining",), strategy="stop-first"),
    Life(("swapping.soaking",), strategy="stop-first"),
    Life(("rollback.removing",), "unhealthy"),
    Life(("rollback.condemning",), "unhealthy"),
    Life(("rollback.reverting",), "unhealthy", "stop-first"),
    Life(("rollback.reprobing",), "unhealthy", "stop-first"),
    Life(("rollback.rejoining",), "unhealthy", "stop-first"),
    Life(("rollback.relocking",), "souring"),
    Life(("rollback.restoring",), "souring"),
    Life(("rollback.undraining",), "souring"),
    Life(("rollback.quitting",), "souring", "stop-first"),
)

ELSEWHERE = {
    # states that only trouble of another kind leads to; the simulator kills in them (tests/sim)
    "idle.ailing", "idle.held", "idle.cooling", "idle.paused", "downloading.retrying", "swapping.retreating",
    "rollback.releasing",
    # left in the same step in which it is entered: never the state of a journal
    "swapping.committing",
}  # fmt: skip


def test_every_state_of_the_chart_has_its_kill() -> None:
    leaves = {leaf.id for leaf in load_sidekick_chart().leaves}

    assert {state for life in LIVES for state in life.kills} == leaves - ELSEWHERE


class KilledStage(Stage):
    """Instances whose sidekicks die as their lives say; slots for all of them."""

    def __init__(self, folder: Path, lives: tuple[Life, ...], *, odd_acts: bool) -> None:
        self.lives = {life.name: life for life in lives}
        super().__init__(
            folder, list(self.lives), strategy=lives[0].strategy, environment={"PYTHONPATH": str(CHECKOUT)}
        )
        # every other sidekick dies right before it acts, the others right after
        self._acts = {life.name: (number % 2 == 1) == odd_acts for number, life in enumerate(lives)}

    def bring_up(self) -> None:
        self.start()
        self.outrider("app", "create", f"--app-id={APP_ID}", "--label=Example", "--description=kills")
        self.publish("1.0.0")
        self.outrider(
            *("group", "create", f"--app-id={APP_ID}", f"--group-id={GROUP}", f"--channel={CHANNEL}"),
            *("--label=Production", "--slots=50"),
        )
        for instance in self.instances:
            self.start_sidekick(instance)
        eventually(lambda: self.nobody_died() and self.all_on("1.0.0"), within_s=90, every_s=0.3)

    def publish(self, version: str, kind: str = "good") -> None:
        healthy_answers = {"good": None, "unhealthy": 0, "souring": 3}[kind]  # three prove it healthy
        package = build_package(self.folder, version, healthy_answers=healthy_answers)
        self.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={package}")
        self.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")

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

    def presences(self) -> list[Presence]:
        listing = self.cluster.list(self.keys.presences(APP_ID))
        return [decode(Presence, entry.key, entry.value) for entry in listing.entries]

    def all_on(self, version: str) -> bool:
        at_rest = [one for one in self.presences() if one.version == version and one.state == "idle.waiting"]
        return len(at_rest) == len(self.instances)

    def poison(self) -> list[str]:
        listing = self.cluster.list(self.keys.poisons(APP_ID))
        return [decode(Poison, entry.key, entry.value).version for entry in listing.entries]


BATCHES = [
    pytest.param(release, strategy, odd_acts, id=f"{release}-{strategy}-{'b' if odd_acts else 'a'}")
    for release in RELEASES
    for strategy in (START, STOP)
    # the second half of the matrix, with before and after exchanged, runs when it is asked for
    for odd_acts in ((False, True) if os.environ.get("OUTRIDER_TEST_KILLS") == "all" else (False,))
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("release", "strategy", "odd_acts"), BATCHES)
def test_a_kill_in_any_state_is_mended_by_a_restart_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, strategy: str, odd_acts: bool
) -> None:
    """
    1. all instances run 1.0.0
    2. a release comes; each sidekick is killed in its state, and restarted, nothing else
    3. a good release runs everywhere, a bad one nowhere; nothing is left of turns, and one workload runs each
    """
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    lives = tuple(life for life in LIVES if (life.release, life.strategy) == (release, strategy))
    assert lives, "every batch has its lives"
    stage = KilledStage(tmp_path, lives, odd_acts=odd_acts)
    try:
        stage.bring_up()
        stage.arm()
        stage.publish("2.0.0", release)

        eventually(stage.restart_the_dead, within_s=150, every_s=0.1)
        wanted = "2.0.0" if release == "good" else "1.0.0"
        eventually(lambda: stage.restart_the_dead() and stage.all_on(wanted), within_s=120, every_s=0.3)

        assert ([] if release == "good" else ["2.0.0"]) == stage.poison()
        assert () == stage.cluster.list(stage.keys.turns(f"{APP_ID}.{GROUP}")).entries
        for instance in stage.instances:
            records = read(stage.state_dir(instance) / "journal.jsonl")
            assert records[-1].memory["running"]["release"]["version"] == wanted
            assert 1 == len(stage.running(instance)), f"{instance}: {stage.running(instance)}"
    finally:
        stage.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)
