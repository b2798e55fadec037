"""The shipped units with their sandboxes, on a machine with a real systemd: each does its work, and is confined.

Update service, sidekick and balancer agent run on the machine; etcd, a first update service, Traefik and HAProxy run
here. The sidekick's app runs in units of its own.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from outrider.balancers.agent.haproxy import HaproxyDriver
from outrider.demo.balancers import Haproxy, start_haproxy
from outrider.demo.fleet import QUICK
from outrider.demo.programs import ProgramMissing, free_ports
from outrider.etcd.seam import Put
from outrider.model.balancer_agents import ServerEntry
from outrider.model.documents import encode
from tests.live.live_fixture import LiveFixture
from tests.support.requirements import skip_or_fail
from tests.support.servers import etcd_binary
from tests.support.systemd_machine import PYTHON, ROOT, SystemdMachine, outrider_machine
from tests.support.waiting import eventually

UNITS = ROOT / "units"
SERVE, SIDEKICK, AGENT = "outrider-serve.service", "outrider-sidekick@web-a.service", "outrider-balancer-agent@haproxy.service"  # fmt: skip  # noqa: E501
SERVICE, SERVER = "lb", "http://127.0.0.1:9"
GROUP_ID = 61234
"""Of HAProxy's group, on the machine and here."""


class Fleet(LiveFixture):
    """One instance, on the machine."""

    def configuration(self) -> str:
        return self._config("web-a")


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    settings = {
        **QUICK,
        "instance": {"runtime": "systemd"},
        "systemd": {"command": [PYTHON, "server.py"], "poll_interval_s": 0.2},
        "probe": {**QUICK["probe"], "deadline_s": 30.0},
        "workload": {"stop_grace_s": 2.0},
    }
    made = Fleet(tmp_path, ["web-a"], settings=settings, environment={"PYTHONPATH": str(ROOT)})
    try:
        made.start()
        made.create()
        yield made
    finally:
        made.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Haproxy]:
    with ExitStack() as stack:
        try:
            made = start_haproxy(tmp_path / "haproxy", SERVICE)
        except ProgramMissing as missing:
            skip_or_fail(str(missing))
        stack.callback(made.stop)
        made.wait_ready()
        made.socket.chmod(0o660)
        shutil.chown(made.socket, group=GROUP_ID)
        for folder in (made.socket.parent, tmp_path, tmp_path.parent):
            folder.chmod(0o755)
        yield made


@pytest.fixture
def machine(tmp_path: Path, fixture: Fleet) -> Iterator[SystemdMachine]:
    """Set up as docs/use/install.md and runtimes.md say."""
    made = outrider_machine(tmp_path)
    try:
        made.run("groupadd", "--gid", str(GROUP_ID), "haproxy")
        made.run("usermod", "--append", "--groups", "systemd-journal", "outrider")
        # how fast a machine starts a service is no fact about the unit
        made.write(f"/etc/systemd/system/{SERVE}.d/busy.conf", "[Service]\nTimeoutStartSec=300\n")
        made.write("/etc/polkit-1/rules.d/50-outrider.rules", (UNITS / "outrider.rules").read_text())
        made.run("systemctl", "daemon-reload")
        yield made
    finally:
        made.remove()


def told_by(machine: SystemdMachine, unit: str) -> str:
    return machine.run("journalctl", "--no-pager", "-n", "60", "-u", unit, check=False)


def process(machine: SystemdMachine, unit: str) -> dict[str, str]:
    """What the kernel says of a unit's main process."""
    pid = machine.run("systemctl", "show", "--value", "-p", "MainPID", unit).strip()
    lines = machine.run("cat", f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_hardened_units_do_their_work(fixture: Fleet, machine: SystemdMachine, haproxy: Haproxy) -> None:
    """
    1. the update service answers as soon as its unit is started
    2. the agent, as a user of its own, puts a server into HAProxy and writes its file
    3. the sidekick, as a user of its own, runs one version as a unit and updates it to the next
    4. none of the three has a capability, and each is under a filter of system calls
    5. the journal has entries with priorities, fields and one sentence each
    """
    (port,) = free_ports(1)
    endpoint = f"127.0.0.1:{fixture.etcd.endpoint.port}"
    machine.write("/etc/outrider/serve.env", f"OUTRIDER_ETCD={endpoint}\nOUTRIDER_SERVE_LISTEN=127.0.0.1:{port}\n")
    machine.write(
        "/etc/outrider/balancer-agent-haproxy.env",
        f"OUTRIDER_ETCD={endpoint}\nOUTRIDER_BALANCER_AGENT_HAPROXY_SERVICES={SERVICE}\n"
        f"OUTRIDER_BALANCER_AGENT_HAPROXY_SOCKET_PATH=/run/haproxy/{haproxy.socket.name}\n",
    )
    machine.write(  # it is below /tmp here, where the agent has a folder of its own
        f"/etc/systemd/system/{AGENT}.d/test.conf", f"[Service]\nBindPaths={haproxy.socket.parent}:/run/haproxy\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.write("/etc/outrider/instances/web-a.toml", fixture.configuration())
    entry = ServerEntry(url=SERVER)
    fixture.cluster.txn((), (Put(key=fixture.keys.server_entry(SERVICE, "a"), value=encode(entry)),))
    for unit in (AGENT, SIDEKICK):
        machine.run("systemctl", "start", "--no-block", unit)
    machine.run("systemctl", "start", SERVE)
    assert 200 == requests.get(f"http://127.0.0.1:{port}/healthz", timeout=10).status_code, told_by(machine, SERVE)

    def answers() -> bool:
        try:
            said = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=10)
        except requests.ConnectionError as error:
            raise AssertionError(told_by(machine, SERVE)) from error
        assert said.status_code == 200, said.text
        return True

    driver = HaproxyDriver(socket_path=haproxy.socket, backend=SERVICE, state_file=Path("/nowhere"))

    def serves_in_haproxy() -> bool:
        assert ["127.0.0.1:9"] == [one.address for one in driver.look().slots if one.state == "ready"], (
            told_by(machine, AGENT)
        )  # fmt: skip
        return True

    def serves(version: str) -> bool:
        assert fixture.expect_all_on(version), told_by(machine, SIDEKICK)
        return True

    eventually(answers, within_s=60, every_s=0.5)
    eventually(serves_in_haproxy, within_s=60, every_s=0.5)
    assert "slot1" in machine.run("cat", "/var/lib/outrider-agent/haproxy-servers"), told_by(machine, AGENT)
    eventually(lambda: serves("1.0.0"), within_s=60, every_s=0.5)
    fixture.publish("2.0.0")
    eventually(lambda: serves("2.0.0"), within_s=60, every_s=0.5)

    for unit in (SERVE, AGENT, SIDEKICK):
        found = process(machine, unit)
        assert ("0000000000000000", "2", "1") == (found["CapEff"], found["Seccomp"], found["NoNewPrivs"]), unit
        assert "0" not in found["Uid"].split(), unit
        entries = [json.loads(line) for line in machine.run("journalctl", "-o", "json", "-u", unit).splitlines()]
        ours = [one for one in entries if "OUTRIDER_MESSAGE" in one]
        assert ours, unit
        assert {"2", "3", "4", "6", "7"} >= {one["PRIORITY"] for one in ours}
        assert not [one["MESSAGE"] for one in ours if not isinstance(one["MESSAGE"], str) or "\n" in one["MESSAGE"]]
    steps = machine.run("journalctl", "-o", "cat", "OUTRIDER_INSTANCE=web-a", "OUTRIDER_MESSAGE=step")
    assert re.search(r"^web-a: \S+ on \S+ to \S+", steps, re.MULTILINE), steps
