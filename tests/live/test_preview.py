"""What ``rollout preview`` foresees, and what the demo's fleet takes: real etcd, Traefik, service and sidekicks."""

import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, GROUP
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]
ADDRESS = f"{APP_ID}/{GROUP}"


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fixture = LiveFixture(tmp_path, ("web-a", "web-b", "web-c"), environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def took_s(fixture: LiveFixture, version: str) -> float:
    """Seconds from the new target until the service had heard of the last instance's success."""

    def finished() -> tuple[str, str] | None:
        found = json.loads(fixture.outrider("rollout", "show", ADDRESS, "--json"))
        ended = found["version"] == version and found["finished"]
        return (found["started"], found["finished"]) if ended else None

    eventually(finished, within_s=120)
    times = finished()
    assert times is not None
    began, ended = map(datetime.fromisoformat, times)
    return (ended - began).total_seconds()


def test_the_foreseen_median_is_what_the_demos_fleet_then_takes(fixture: LiveFixture) -> None:
    """
    1. three instances run 1.0.0 and take 2.0.0: their rows have the events of that
    2. the rollout of 2.1.0 is foreseen
    3. it takes as long as that, give or take 15 %
    """
    fixture.start()
    fixture.create()
    for instance in fixture.instances:
        fixture.start_sidekick(instance)
    assert fixture.expect_all_on("1.0.0")
    fixture.publish("2.0.0")
    assert fixture.expect_all_on("2.0.0")
    took_s(fixture, "2.0.0")

    foreseen = json.loads(fixture.outrider("rollout", "preview", ADDRESS, "2.1.0", "--json"))
    fixture.publish("2.1.0")
    took = took_s(fixture, "2.1.0")

    assert any("as measured" in line for line in foreseen["assumed"])
    assert 3 == foreseen["lowest_serving"]
    assert took == pytest.approx(foreseen["p50_s"], rel=0.15)
