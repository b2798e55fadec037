"""Sidekicks that run containers, with a registry of their own, behind a real Traefik."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from outrider.core.errors import DriverError
from outrider.demo.docker_fleet import DOCKER, DockerFleet
from outrider.demo.fleet import APP_ID, CHANNEL
from outrider.demo.programs import ProgramMissing
from tests.live.live_fixture import LiveFixture
from tests.support import docker_images
from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail
from tests.support.servers import etcd_binary
from tests.support.socket_proxy import SocketProxy
from tests.support.waiting import eventually


class Containers(LiveFixture, DockerFleet):
    """The live fixture's words, for a fleet of containers."""

    def publish(self, version: str, kind: str = "good") -> None:
        image = self.package(version, healthy=kind == "good")
        self.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={image}")
        self.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")

    def containers(self, instance: str) -> list[tuple[str, str]]:
        """Version and status of all containers of an instance, ended ones too."""
        found = docker_images.containers_of(self.state_dir(instance))
        return [(one.labels["outrider.version"], one.status) for one in found]


Start = Any


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a fleet with these instances and settings, on 1.0.0."""
    docker_client().close()
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fleets: list[Containers] = []

    def started(
        *instances: str, strategy: str = "start-first", settings: Mapping[str, Mapping[str, object]] = DOCKER
    ) -> Containers:
        fleet = Containers(tmp_path, list(instances), strategy=strategy, settings=settings)
        fleets.append(fleet)
        try:
            fleet.start()
        except ProgramMissing as missing:
            skip_or_fail(str(missing))
        fleet.create()
        for instance in instances:
            fleet.start_sidekick(instance)
        eventually(lambda: fleet.expect_all_on("1.0.0"), within_s=120, every_s=0.2)
        return fleet

    yield started
    for fleet in fleets:
        fleet.stop()
        assert [] == [one for name in fleet.instances for one in fleet.containers(name)], "left behind"
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_an_image_waits_for_its_digest_and_rolls_and_a_bad_one_leaves_nothing(start: Start) -> None:
    """
    1. the guide's command while the registry is away: the package is stored, and no sidekick is offered it
    2. the registry is back, the digest is known: both instances run it, and keep one container each
    3. a version whose health check fails is blocked, and nothing of it is left
    """
    fleet: Containers = start("web-a", "web-b")
    image = fleet.package("2.0.0")
    fleet.registry.stop()
    fleet.outrider("package", "create", f"--app-id={APP_ID}", "--version=2.0.0", f"--file={image}")
    fleet.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", "--version=2.0.0")
    why = f"nobody knows yet which image {image} is"
    eventually(lambda: all(why in one.why for one in fleet.presences().values()), within_s=60, every_s=0.2)
    with pytest.raises(DriverError, match="has no digest yet"):
        fleet.outrider("package", "resolve", f"--app-id={APP_ID}", "--version=2.0.0")

    fleet.start_registry()
    told = json.loads(fleet.outrider("package", "resolve", f"--app-id={APP_ID}", "--version=2.0.0", "--json"))
    eventually(lambda: fleet.expect_all_on("2.0.0"), within_s=120, every_s=0.2)

    assert told[0]["digest"].startswith("sha256:")
    assert ["linux/amd64"] == [one["platform"] for one in told[0]["platforms"]]
    for instance in fleet.instances:
        eventually(lambda instance=instance: [("2.0.0", "running")] == fleet.containers(instance))  # type: ignore[misc]

    fleet.publish("3.0.0", "bad")
    eventually(lambda: fleet.blocked() == ["3.0.0"], within_s=120, every_s=0.2)
    eventually(lambda: fleet.expect_all_on("2.0.0"), within_s=120, every_s=0.2)

    for instance in fleet.instances:
        eventually(lambda instance=instance: [("2.0.0", "running")] == fleet.containers(instance))  # type: ignore[misc]


def test_one_port_is_enough_when_the_old_container_stops_first(start: Start) -> None:
    fleet: Containers = start("web-a", strategy="stop-first")
    before = fleet.presences()["web-a"].url

    fleet.publish("2.0.0")
    eventually(lambda: fleet.expect_all_on("2.0.0"), within_s=120, every_s=0.2)

    assert before == fleet.presences()["web-a"].url
    eventually(lambda: [("2.0.0", "running")] == fleet.containers("web-a"))


def test_docker_that_is_lost_in_mid_swap_blames_no_release(start: Start, tmp_path: Path) -> None:
    """
    1. 2.0.0 soaks under traffic when Docker goes away, and takes its container along
    2. Docker comes back: the version before serves, and nothing is blocked
    3. 2.0.0 is tried again, and runs
    """
    proxy = SocketProxy(tmp_path / "docker.sock", "/var/run/docker.sock")
    settings = {
        **DOCKER,
        "docker": {"address": f"unix://{tmp_path}/docker.sock"},
        "soak": {"duration_s": 6.0},
        "service": {"retry_min_s": 0.5, "retry_max_s": 2.0},
    }
    fleet: Containers = start("web-a", settings=settings)
    fleet.publish("2.0.0")
    eventually(lambda: fleet.presences()["web-a"].state == "swapping.soaking", within_s=120, every_s=0.05)

    proxy.cut()
    (candidate,) = [
        one
        for one in docker_images.containers_of(fleet.state_dir("web-a"))
        if one.labels["outrider.version"] == "2.0.0"
    ]
    candidate.kill()
    eventually(lambda: fleet.presences()["web-a"].state.startswith("rollback"), within_s=60, every_s=0.1)
    assert [] == fleet.blocked()
    proxy.mend()
    eventually(lambda: fleet.expect_all_on("2.0.0"), within_s=200, every_s=0.2)

    assert [] == fleet.blocked()
    faults = {record.memory["fault"]["blame"] for record in fleet.records("web-a") if record.memory.get("fault")}
    assert faults == {"world"}
    eventually(lambda: [("2.0.0", "running")] == fleet.containers("web-a"))


def test_a_container_that_somebody_removes_is_started_again(start: Start) -> None:
    fleet: Containers = start("web-a")
    (one,) = docker_images.containers_of(fleet.state_dir("web-a"))

    one.remove(force=True)

    def another() -> bool:
        found = docker_images.containers_of(fleet.state_dir("web-a"))
        return [each.status for each in found] == ["running"] and found[0].id != one.id

    eventually(another, within_s=60, every_s=0.1)
    eventually(lambda: fleet.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    assert [] == fleet.blocked()
