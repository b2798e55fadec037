"""``outrider sidekick shutdown`` beside real sidekicks, as the unit runs it when a machine goes down."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, QUICK
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]
INSTANCES = ["web-a", "web-b"]


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    settings = {**QUICK, "instance": {"drain_at_shutdown": True, "shutdown_wait_s": 1.0}}
    fixture = LiveFixture(tmp_path, INSTANCES, settings=settings, environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        fixture.start()
        fixture.create()
        for instance in INSTANCES:
            fixture.start_sidekick(instance)
        eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def shut_down(fixture: LiveFixture, instance: str, *options: str) -> str:
    config = str(fixture.folder / f"{instance}.toml")
    done = subprocess.run(
        [sys.executable, "-m", "outrider", "sidekick", "shutdown", "--config", config, *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return done.stdout


def servers(fixture: LiveFixture) -> set[str]:
    listing = fixture.cluster.list("traefik/http/services/")
    return {name for entry in listing.entries for name in INSTANCES if f"/servers/{name}/url" in entry.key}


def state(fixture: LiveFixture, instance: str) -> str:
    return fixture.presences()[instance].state


def test_a_machine_leaves_under_a_turn_and_the_next_one_without_when_none_comes(fixture: LiveFixture) -> None:
    """
    1. a plain stop of the unit, no shutdown: nothing happens
    2. the first machine shuts down: drained under the only turn
    3. the second shuts down meanwhile: no turn comes, and it leaves all the same, and nothing puts it back
    4. the first comes back, and the second gets the turn for what it has done
    """
    assert "isn't shutting down: nothing is drained" in shut_down(fixture, "web-a")
    assert set(INSTANCES) == servers(fixture)

    assert "drained under a turn" in shut_down(fixture, "web-a", "--anyway")
    assert ("idle.drained", {"web-b"}) == (state(fixture, "web-a"), servers(fixture))

    assert "left without a turn, after 1 s" in shut_down(fixture, "web-b", "--anyway")
    assert ("idle.retaking", set()) == (state(fixture, "web-b"), servers(fixture))

    fixture.outrider("instance", "undrain", APP_ID, "web-a")
    eventually(lambda: state(fixture, "web-b") == "idle.drained", within_s=60, every_s=0.1)
    assert {"web-a"} == servers(fixture)
    fixture.outrider("instance", "undrain", APP_ID, "web-b")
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    assert set(INSTANCES) == servers(fixture)
