"""Containers that were started and registered by hand, behind a real Traefik under load, and then come sidekicks."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from outrider.demo.docker_fleet import DOCKER
from outrider.demo.fleet import HOST, SERVICE
from outrider.demo.load import LoadGenerator
from outrider.demo.programs import ProgramMissing, free_ports
from outrider.etcd.seam import Put
from tests.live.test_docker_fleet import Containers
from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

INSTANCES = ("web-a", "web-b")
PAGE = Path(__file__).parents[2] / "docs/use/adopt.md"
SERVERS = f"traefik/http/services/{SERVICE}"


class HandMade(Containers):
    """Each instance begins as a container that ``docker run`` started."""

    def run_by_hand(self, instance: str, number: int, port: int) -> None:
        """As the guide does: the container, and its server in Traefik's keys, written as Traefik's documents say."""
        docker_client().containers.run(
            f"{self.registry_host}/example:1.0.0",
            detach=True,
            name=self.name(instance),
            environment={"HOST": "0.0.0.0", "PORT": "8080"},
            ports={"8080/tcp": ("127.0.0.1", port)},
            restart_policy={"Name": "always"},
        )
        key = f"{SERVERS}/loadBalancer/servers/{number}/url"
        self.cluster.txn((), (Put(key=key, value=f"http://127.0.0.1:{port}".encode()),))

    def name(self, instance: str) -> str:
        return f"outrider-handmade-{self.folder.name[:30]}-{instance}"

    def by_hand(self, instance: str) -> Any:
        return docker_client().containers.get(self.name(instance))

    def config(self, instance: str) -> Path:
        path = self.folder / f"{instance}.toml"
        path.write_text(self._config(instance))
        return path

    def servers(self) -> dict[str, str]:
        """Last parts of the keys of Traefik's servers -> what is in them."""
        found = self.cluster.list(f"{SERVERS}/").entries
        return {e.key.removeprefix(f"{SERVERS}/"): e.value.decode() for e in found if "servers" in e.key}

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            for instance in self.instances:
                with contextlib.suppress(docker.errors.NotFound):
                    self.by_hand(instance).remove(force=True, v=True)


@pytest.fixture(params=["start-first", "stop-first"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    docker_client().close()
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fleet = HandMade(tmp_path, INSTANCES, strategy=request.param, settings=DOCKER)
    try:
        try:
            fleet.start()
        except ProgramMissing as missing:
            skip_or_fail(str(missing))
        fleet.create()
        yield fleet
    finally:
        fleet.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def test_containers_are_adopted_and_replaced_and_no_request_fails(fleet: HandMade, tmp_path: Path) -> None:
    """
    1. two containers run and are registered; traffic flows
    2. they are adopted: a look first, then both entries get their instance's name; nothing restarts
    3. a bad 2.0.0 is blocked, and the adopted container serves on or again
    4. 3.0.0 replaces them: they are stopped, stay, and would not come back
    """
    stops_first = "stop-first" in fleet.config("web-a").read_text()
    for number, instance in enumerate(INSTANCES):
        port = int((tmp_path / f"{instance}.port").read_text()) if stops_first and fleet.config(instance) else 0
        fleet.run_by_hand(instance, number, port or free_ports(1)[0])
    eventually(lambda: answered(fleet), within_s=60, every_s=0.2)
    load = LoadGenerator(f"{fleet.web_url}{fleet.path}", HOST, fleet.rate_per_s, posts=False).start()
    try:
        begun = {instance: fleet.by_hand(instance).attrs["State"]["StartedAt"] for instance in INSTANCES}
        before = fleet.servers()
        for instance in INSTANCES:
            look, adopt = typed_on_the_page(fleet.name(instance), fleet.config(instance))
            told = json.loads(fleet.outrider(*look, "--json"))
            assert ("1.0.0", True, False) == (told["version"], told["can_be_started_again"], told["adopted"])
            assert before == fleet.servers()
            said = fleet.outrider(*adopt, "--yes")
            assert f"adopted; start the sidekick of {instance}" in said
            before = fleet.servers()
        assert {f"loadbalancer/servers/{instance}/url" for instance in INSTANCES} == set(fleet.servers())

        for instance in INSTANCES:
            fleet.start_sidekick(instance)
        eventually(lambda: fleet.expect_all_on("1.0.0"), within_s=120, every_s=0.2)
        assert begun == {one: fleet.by_hand(one).attrs["State"]["StartedAt"] for one in INSTANCES}, "none restarted"
        assert not [one for instance in INSTANCES for one in fleet.containers(instance)]

        fleet.publish("2.0.0", "bad")
        eventually(lambda: fleet.blocked() == ["2.0.0"], within_s=120, every_s=0.2)
        eventually(lambda: fleet.expect_all_on("1.0.0"), within_s=120, every_s=0.2)
        assert ["running"] * 2 == [fleet.by_hand(instance).status for instance in INSTANCES]
        assert ["always"] * 2 == [policy(fleet, instance) for instance in INSTANCES]

        fleet.publish("3.0.0")
        eventually(lambda: fleet.expect_all_on("3.0.0"), within_s=120, every_s=0.2)
    finally:
        figures = load.stop()

    assert (0, {}) == (figures.failed, figures.failures), figures.examples
    assert {"1.0.0", "3.0.0"} == set(figures.versions)
    for instance in INSTANCES:
        assert [("3.0.0", "running")] == fleet.containers(instance)
        assert ("exited", "no") == (fleet.by_hand(instance).status, policy(fleet, instance))
        assert not (fleet.state_dir(instance) / "adopted.json").exists()


def typed_on_the_page(name: str, config: Path) -> list[list[str]]:
    """Arguments of the two commands of docs/use/adopt.md, for another container and another instance."""
    lines = [line.strip() for line in PAGE.read_text().splitlines()]
    commands = [line for line in lines if line.startswith("outrider adopt container example")]
    assert 2 == len(commands)
    words = {"example": name, "/etc/outrider/web-a.toml": str(config)}
    return [[words.get(word, word) for word in command.split()[1:]] for command in commands]


def policy(fleet: HandMade, instance: str) -> str:
    return str(fleet.by_hand(instance).attrs["HostConfig"]["RestartPolicy"]["Name"])


def answered(fleet: HandMade) -> bool:
    import requests

    return requests.get(f"{fleet.web_url}{fleet.path}", headers={"Host": HOST}, timeout=10).status_code == 200
