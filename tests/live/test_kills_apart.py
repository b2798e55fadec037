"""``kill -9`` in the states that an ordinary roll-out doesn't pass: each is brought about, and then the kill is."""

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outrider.demo.example import build_package
from outrider.demo.stage import APP_ID, CHANNEL, QUICK
from outrider.model.keys import group_scope
from outrider.statechart import load_sidekick_chart
from outrider.story import read_lines, replay
from tests.live.killed_stage import KilledStage, Life
from tests.support.file_server import Files
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]
APART = {
    "idle.ailing",
    "idle.cooling",
    "idle.held",
    "idle.paused",
    "downloading.retrying",
    "swapping.retreating",
    "rollback.releasing",
}
"""States that are killed in here."""


@pytest.fixture
def stage_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., KilledStage]]:
    """Makes a stage with one instance on 1.0.0, whose sidekick will be killed in the state that is given."""
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    stages: list[KilledStage] = []

    def make(state: str, *, arm: bool = True, **settings: dict[str, object]) -> KilledStage:
        assert state in APART
        stage = KilledStage(tmp_path, (Life((state,)),), odd_acts=False, settings={**QUICK, **settings})
        stages.append(stage)
        stage.bring_up()
        if arm:
            stage.arm()
        return stage

    yield make
    for stage in stages:
        stage.stop()
    shutil.rmtree(tmp_path, ignore_errors=True)


def killed_and_ends(stage: KilledStage, version: str, state: str = "idle.waiting") -> None:
    """The kill happens, the restart follows, and the instance ends at rest on ``version`` with nothing left over."""
    eventually(stage.restart_the_dead, within_s=60, every_s=0.1)
    ends(stage, version, state)


def ends(stage: KilledStage, version: str, state: str = "idle.waiting") -> None:
    def at_rest() -> bool:
        stage.restart_the_dead()
        return [(one.version, one.state) for one in stage.presences().values()] == [(version, state)]

    eventually(at_rest, within_s=60, every_s=0.2)
    assert 1 == len(stage.running(stage.instances[0]))
    assert () == stage.cluster.list(stage.keys.turns(group_scope(APP_ID, "production"))).entries
    assert replay(read_lines(stage.state_dir(stage.instances[0])), load_sidekick_chart()).restarts


def publish_from(stage: KilledStage, version: str, files: Files, size: int, sha256: str) -> None:
    stage.outrider(
        *("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--url={files.url}"),
        *(f"--size={size}", f"--sha256={sha256}"),
    )
    stage.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")


def has_reached(stage: KilledStage, state: str) -> bool:
    """Whether the update to 2.0.0 has come so far, by the journal: etcd may be away."""
    records = stage.records(stage.instances[0])
    updates = [
        record for record in records if (record.memory["candidate"] or {}).get("release", {}).get("version") == "2.0.0"
    ]
    return any(record.target == state for record in updates)


def test_killed_while_paused_it_stays_paused(stage_for: Callable[..., KilledStage]) -> None:
    stage = stage_for("idle.paused")
    name = stage.instances[0]
    stage.outrider("instance", "pause", APP_ID, name)
    killed_and_ends(stage, "1.0.0", "idle.paused")
    stage.publish("2.0.0")

    stage.outrider("instance", "resume", APP_ID, name)

    ends(stage, "2.0.0")


def test_killed_while_held_back_it_is_held_back(stage_for: Callable[..., KilledStage]) -> None:
    """The channel goes back to an older version, which the service doesn't grant."""
    stage = stage_for("idle.held")

    stage.publish("0.9.0")

    killed_and_ends(stage, "1.0.0", "idle.held")
    stage.publish("2.0.0")
    ends(stage, "2.0.0")


def test_killed_while_it_pauses_between_tries_it_tries_again(stage_for: Callable[..., KilledStage]) -> None:
    """The payload isn't what was promised, until the next release."""
    stage = stage_for("idle.cooling")
    files = Files(b"x" * 100)
    try:
        publish_from(stage, "1.1.0", files, 100, "0" * 64)
        eventually(stage.restart_the_dead, within_s=60, every_s=0.1)
    finally:
        files.close()

    stage.publish("2.0.0")

    ends(stage, "2.0.0")


def test_killed_between_two_downloads_it_downloads(stage_for: Callable[..., KilledStage], tmp_path: Path) -> None:
    """The server cuts the connection, until the kill has happened."""
    stage = stage_for("downloading.retrying")
    package = build_package(tmp_path / "elsewhere", "2.0.0").read_bytes()
    files = Files(package)
    files.cut_at, files.ranges = 1000, False
    try:
        publish_from(stage, "2.0.0", files, len(package), hashlib.sha256(package).hexdigest())
        eventually(stage.restart_the_dead, within_s=60, every_s=0.1)
        files.cut_at = None

        ends(stage, "2.0.0")
    finally:
        files.close()


def test_killed_while_what_should_run_does_not_it_takes_the_cure(stage_for: Callable[..., KilledStage]) -> None:
    """The app has ended and its payload is gone, so it can't be started again; the next release is the cure."""
    stage = stage_for("idle.ailing", arm=False)
    name = stage.instances[0]
    stage.sidekicks[name].stop()
    stage.end_workloads(name)
    for payload in (stage.state_dir(name) / "payloads").iterdir():
        payload.unlink()
    stage.start_killed(name, "idle.ailing")
    eventually(stage.restart_the_dead, within_s=60, every_s=0.1)

    stage.publish("2.0.0")

    ends(stage, "2.0.0")


def test_killed_while_it_undoes_for_a_lost_lease_it_starts_over(stage_for: Callable[..., KilledStage]) -> None:
    """etcd freezes while the new version is being proved, for longer than the lease is trusted."""
    slow = {"interval_s": 0.5, "timeout_s": 2.0, "successes": 12, "failures": 3, "deadline_s": 20.0}
    stage = stage_for("swapping.retreating", probe=slow)
    stage.publish("2.0.0")
    eventually(lambda: has_reached(stage, "swapping.probing"), within_s=60, every_s=0.05)

    os.kill(stage.etcd.pid, signal.SIGSTOP)
    try:
        eventually(lambda: has_reached(stage, "swapping.retreating"), within_s=30, every_s=0.05)
    finally:
        os.kill(stage.etcd.pid, signal.SIGCONT)

    killed_and_ends(stage, "2.0.0")


def test_killed_while_it_gives_its_turn_back_the_turn_is_given_back(stage_for: Callable[..., KilledStage]) -> None:
    """An operator rolls the update back while the new version is being proved."""
    slow = {"interval_s": 0.5, "timeout_s": 2.0, "successes": 12, "failures": 3, "deadline_s": 20.0}
    stage = stage_for("rollback.releasing", probe=slow)
    stage.publish("2.0.0")
    eventually(lambda: has_reached(stage, "swapping.probing"), within_s=60, every_s=0.05)

    stage.outrider("instance", "rollback", APP_ID, stage.instances[0], "--yes")

    killed_and_ends(stage, "1.0.0")
    assert [] == stage.poison()
