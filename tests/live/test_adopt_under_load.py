"""A unit and a process of a pid file, started and registered by hand behind a real Traefik under load, are adopted."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from outrider.demo.example import build_package
from outrider.demo.fleet import HOST, QUICK, SERVICE
from outrider.demo.load import LoadGenerator
from outrider.demo.programs import free_ports
from outrider.etcd.seam import Put
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.systemd_machine import SystemdMachine, systemd_machine
from tests.support.waiting import eventually

UNIT = "example-by-hand.service"
KIND = {"web-a": "unit", "web-b": "pid-file"}


class ByHand(LiveFixture):
    """``web-a`` begins as a unit, ``web-b`` as a process with a pid file; each is one server of Traefik's."""

    def __init__(self, folder: Path, machine: SystemdMachine) -> None:
        super().__init__(folder, list(KIND), settings=QUICK)
        self.machine, self.pid_file = machine, folder / "example.pid"
        self.process: subprocess.Popen[bytes] | None = None
        self.urls = {instance: f"http://127.0.0.1:{port}" for instance, port in zip(KIND, free_ports(2), strict=True)}

    def start_by_hand(self) -> None:
        home = self.folder / "by-hand"
        home.mkdir()
        with tarfile.open(build_package(self.folder / "made", "1.0.0")) as tar:
            for member in tar.getmembers():
                source = tar.extractfile(member)
                assert source is not None
                content = source.read()
                (home / member.name).write_bytes(content)
                self.machine.write(f"/opt/by-hand/{member.name}", content.decode())
        unit, process = (url.rpartition(":")[2] for url in self.urls.values())
        self.machine.write(
            f"/etc/systemd/system/{UNIT}",
            f"[Service]\nEnvironment=PORT={unit}\nExecStart=/usr/bin/python3 /opt/by-hand/server.py\nRestart=always\n"
            "[Install]\nWantedBy=multi-user.target\n",
        )
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "enable", "--now", UNIT)
        self.process = subprocess.Popen(
            [sys.executable, home / "server.py"], env={**os.environ, "PORT": process}, start_new_session=True
        )
        self.pid_file.write_text(f"{self.process.pid}\n")
        for number, url in enumerate(self.urls.values()):
            key = f"traefik/http/services/{SERVICE}/loadBalancer/servers/{number}/url"
            self.cluster.txn((), (Put(key=key, value=url.encode()),))

    def adopt(self, instance: str) -> str:
        config = self.folder / f"{instance}.toml"
        config.write_text(self._config(instance))
        name = UNIT if KIND[instance] == "unit" else str(self.pid_file)
        # the machine is a container here: what listens in it is not seen from outside
        told = ["--version=1.0.0", f"--url={self.urls[instance]}"]
        return self.outrider("adopt", KIND[instance], name, f"--config={config}", *told, "--yes")

    def started(self) -> dict[str, str]:
        """What tells each of the two from one that was started again."""
        assert self.process is not None
        unit = self.machine.run("systemctl", "show", UNIT, "--property=InvocationID,ActiveState").strip()
        return {"web-a": unit, "web-b": f"{self.process.pid} {self.process.poll()}"}

    def servers(self) -> dict[str, str]:
        """Names of Traefik's servers -> their addresses."""
        found = self.cluster.list(f"traefik/http/services/{SERVICE}/").entries
        return {e.key.split("/")[-2]: e.value.decode() for e in found if "/servers/" in e.key}

    def stop(self) -> None:
        super().stop()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.machine.run("systemctl", "disable", "--now", UNIT, check=False)
        self.machine.run("rm", "-rf", f"/etc/systemd/system/{UNIT}", "/opt/by-hand")
        self.machine.run("systemctl", "daemon-reload")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ByHand]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    machine = systemd_machine(tmp_path)
    machine.use(monkeypatch)
    fleet = ByHand(tmp_path, machine)
    try:
        fleet.start()
        fleet.create()
        yield fleet
    finally:
        fleet.stop()
        machine.clean()
        shutil.rmtree(tmp_path / "state", ignore_errors=True)


def test_a_unit_and_a_process_are_adopted_and_replaced_and_no_request_fails(fleet: ByHand) -> None:
    """
    1. both run and are registered; traffic flows, with POSTs
    2. they are adopted: both entries get their instance's name, and nothing restarts
    3. a bad 2.0.0 is blocked, and what was adopted serves on
    4. 3.0.0 replaces them: they have ended, and the unit would not come back at boot
    """
    fleet.start_by_hand()
    eventually(lambda: all(answers(url) for url in fleet.urls.values()), within_s=60, every_s=0.2)
    eventually(lambda: answers(fleet.web_url), within_s=60, every_s=0.2)
    load = LoadGenerator(f"{fleet.web_url}/", HOST, 60.0, posts=True).start()
    try:
        begun = fleet.started()
        for instance in KIND:
            assert f"adopted; start the sidekick of {instance}" in fleet.adopt(instance)
        assert fleet.urls == fleet.servers()

        for instance in KIND:
            fleet.start_sidekick(instance)
        eventually(lambda: fleet.expect_all_on("1.0.0"), within_s=120, every_s=0.2)
        assert begun == fleet.started(), "none was started again"

        fleet.publish("2.0.0", "unhealthy")
        eventually(lambda: fleet.blocked() == ["2.0.0"], within_s=120, every_s=0.2)
        eventually(lambda: fleet.expect_all_on("1.0.0"), within_s=120, every_s=0.2)
        assert (begun, fleet.urls) == (fleet.started(), fleet.servers())

        fleet.publish("3.0.0")
        eventually(lambda: fleet.expect_all_on("3.0.0"), within_s=120, every_s=0.2)
    finally:
        figures = load.stop()

    assert (0, {}) == (figures.failed, figures.failures), figures.examples
    assert {"1.0.0", "3.0.0"} == set(figures.versions)
    assert not set(fleet.urls.values()) & set(fleet.servers().values())
    assert fleet.process is not None
    assert fleet.process.poll() is not None
    told = [fleet.machine.run("systemctl", word, UNIT, check=False).strip() for word in ("is-active", "is-enabled")]
    assert ["inactive", "disabled"] == told


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/", headers={"Host": HOST}, timeout=10).status_code == 200
    except requests.RequestException:
        return False
