"""``kill -9`` in the states that an ordinary rollout doesn't pass: each is brought about, and then the kill is."""

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, CHANNEL, QUICK
from outrider.model.keys import group_scope
from outrider.statechart import load_sidekick_chart
from outrider.story import read_lines, replay
from tests.live.killed_fixture import KilledFixture, Life
from tests.support.file_server import Files
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

APART = {
    "idle.degraded",
    "idle.cooling",
    "idle.deferred",
    "idle.paused",
    "downloading.retrying",
    "swapping.retreating",
    "rollback.releasing",
}
"""States that are killed in here."""


@pytest.fixture
def fixture_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., KilledFixture]]:
    """Makes a fixture with one instance on 1.0.0, whose sidekick will be killed in the state that is given."""
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fixtures: list[KilledFixture] = []

    def make(state: str, *, arm: bool = True, **settings: dict[str, object]) -> KilledFixture:
        assert state in APART
        fixture = KilledFixture(tmp_path, (Life((state,)),), odd_acts=False, settings={**QUICK, **settings})
        fixtures.append(fixture)
        fixture.bring_up()
        if arm:
            fixture.arm()
        return fixture

    yield make
    for fixture in fixtures:
        fixture.stop()
    shutil.rmtree(tmp_path, ignore_errors=True)


def killed_and_ends(fixture: KilledFixture, version: str, state: str = "idle.waiting") -> None:
    """The kill happens, the restart follows, and the instance ends at rest on ``version`` with nothing left over."""
    eventually(fixture.restart_the_dead, within_s=60, every_s=0.1)
    ends(fixture, version, state)


def ends(fixture: KilledFixture, version: str, state: str = "idle.waiting") -> None:
    def at_rest() -> bool:
        fixture.restart_the_dead()
        return [(one.version, one.state) for one in fixture.presences().values()] == [(version, state)]

    eventually(at_rest, within_s=60, every_s=0.2)
    assert 1 == len(fixture.running(fixture.instances[0]))
    assert () == fixture.cluster.list(fixture.keys.turns(group_scope(APP_ID, "production"))).entries
    assert replay(read_lines(fixture.state_dir(fixture.instances[0])), load_sidekick_chart()).restarts


def publish_from(fixture: KilledFixture, version: str, files: Files, size: int, sha256: str) -> None:
    fixture.outrider(
        *("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--url={files.url}"),
        *(f"--size={size}", f"--sha256={sha256}"),
    )
    fixture.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")


def has_reached(fixture: KilledFixture, state: str) -> bool:
    """Whether the update to 2.0.0 has come so far, by the journal: etcd may be away."""
    records = fixture.records(fixture.instances[0])
    updates = [
        record for record in records if (record.memory["candidate"] or {}).get("release", {}).get("version") == "2.0.0"
    ]
    return any(record.target == state for record in updates)


def test_killed_while_paused_it_stays_paused(fixture_for: Callable[..., KilledFixture]) -> None:
    fixture = fixture_for("idle.paused")
    name = fixture.instances[0]
    fixture.outrider("instance", "pause", APP_ID, name)
    killed_and_ends(fixture, "1.0.0", "idle.paused")
    fixture.publish("2.0.0")

    fixture.outrider("instance", "resume", APP_ID, name)

    ends(fixture, "2.0.0")


def test_killed_while_held_back_it_is_held_back(fixture_for: Callable[..., KilledFixture]) -> None:
    """The channel goes back to an older version, which the service doesn't grant."""
    fixture = fixture_for("idle.deferred")

    fixture.publish("0.9.0")

    killed_and_ends(fixture, "1.0.0", "idle.deferred")
    fixture.publish("2.0.0")
    ends(fixture, "2.0.0")


def test_killed_while_it_pauses_between_tries_it_tries_again(fixture_for: Callable[..., KilledFixture]) -> None:
    """The payload isn't what was promised, until the next release."""
    fixture = fixture_for("idle.cooling")
    files = Files(b"x" * 100)
    try:
        publish_from(fixture, "1.1.0", files, 100, "0" * 64)
        eventually(fixture.restart_the_dead, within_s=60, every_s=0.1)
    finally:
        files.close()

    fixture.publish("2.0.0")

    ends(fixture, "2.0.0")


def test_killed_between_two_downloads_it_downloads(fixture_for: Callable[..., KilledFixture], tmp_path: Path) -> None:
    """The server cuts the connection, until the kill has happened."""
    fixture = fixture_for("downloading.retrying")
    package = build_package(tmp_path / "elsewhere", "2.0.0").read_bytes()
    files = Files(package)
    files.cut_at, files.ranges = 1000, False
    try:
        publish_from(fixture, "2.0.0", files, len(package), hashlib.sha256(package).hexdigest())
        eventually(fixture.restart_the_dead, within_s=60, every_s=0.1)
        files.cut_at = None

        ends(fixture, "2.0.0")
    finally:
        files.close()


def test_killed_while_what_should_run_does_not_it_takes_the_cure(fixture_for: Callable[..., KilledFixture]) -> None:
    """The app has ended and its payload is gone, so it can't be started again; the next release is the cure."""
    fixture = fixture_for("idle.degraded", arm=False)
    name = fixture.instances[0]
    fixture.sidekicks[name].stop()
    fixture.end_workloads(name)
    for payload in (fixture.state_dir(name) / "payloads").iterdir():
        payload.unlink()
    fixture.start_killed(name, "idle.degraded")
    eventually(fixture.restart_the_dead, within_s=60, every_s=0.1)

    fixture.publish("2.0.0")

    ends(fixture, "2.0.0")


def test_killed_while_it_undoes_for_a_lost_lease_it_starts_over(fixture_for: Callable[..., KilledFixture]) -> None:
    """etcd freezes while the new version is being proved, for longer than the lease is trusted."""
    slow = {"interval_s": 0.5, "timeout_s": 2.0, "successes": 12, "failures": 3, "deadline_s": 20.0}
    fixture = fixture_for("swapping.retreating", probe=slow)
    fixture.publish("2.0.0")
    eventually(lambda: has_reached(fixture, "swapping.probing"), within_s=60, every_s=0.05)

    os.kill(fixture.etcd.pid, signal.SIGSTOP)
    try:
        eventually(lambda: has_reached(fixture, "swapping.retreating"), every_s=0.05)
    finally:
        os.kill(fixture.etcd.pid, signal.SIGCONT)

    killed_and_ends(fixture, "2.0.0")


def test_killed_while_it_gives_its_turn_back_the_turn_is_given_back(fixture_for: Callable[..., KilledFixture]) -> None:
    """An operator rolls the update back while the new version is being proved."""
    slow = {"interval_s": 0.5, "timeout_s": 2.0, "successes": 12, "failures": 3, "deadline_s": 20.0}
    fixture = fixture_for("rollback.releasing", probe=slow)
    fixture.publish("2.0.0")
    eventually(lambda: has_reached(fixture, "swapping.probing"), within_s=60, every_s=0.05)

    fixture.outrider("instance", "rollback", APP_ID, fixture.instances[0], "--yes")

    killed_and_ends(fixture, "1.0.0")
    assert [] == fixture.blocked()
