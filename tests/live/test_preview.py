"""What ``rollout preview`` foresees, and what the demo's fleet takes: real etcd, Traefik, service and sidekicks."""

import json
import shutil
from collections.abc import Iterator
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


def is_finished(fixture: LiveFixture, version: str) -> bool:
    found = json.loads(fixture.outrider("rollout", "show", ADDRESS, "--json"))
    return found["version"] == version and bool(found["finished"])


@pytest.mark.long  # a fleet and two rollouts; tests/preview has the same against the simulated fleet
def test_a_fleet_that_has_measured_itself_is_foreseen_with_what_it_measured(fixture: LiveFixture) -> None:
    """
    1. three instances run 1.0.0 and take 2.0.0: their rows have the events of that
    2. the rollout of 2.1.0 is foreseen with the durations of that, and never with fewer than all serving
    3. how near it comes is measured by ``make bench-preview``
    """
    fixture.start()
    fixture.create()
    for instance in fixture.instances:
        fixture.start_sidekick(instance)
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=120, every_s=0.2)
    fixture.publish("2.0.0")
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=120, every_s=0.2)
    eventually(lambda: is_finished(fixture, "2.0.0"), within_s=120)

    foreseen = json.loads(fixture.outrider("rollout", "preview", ADDRESS, "2.1.0", "--json"))

    assert any("as measured" in line for line in foreseen["assumed"])
    assert 3 == foreseen["lowest_serving"]
    assert 0 < foreseen["p50_s"] <= foreseen["p95_s"]
