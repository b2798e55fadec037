"""A whole sidekick whose versions are systemd units: an update, a bad release, and D-Bus lost in mid-swap."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, CHANNEL, QUICK
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.systemd_machine import ROOT, SystemdMachine, systemd_machine
from tests.support.waiting import eventually

INSTANCE = "web-a"
SETTINGS = {
    **QUICK,
    "instance": {"runtime": "systemd"},
    "systemd": {"command": ["/usr/bin/python3", "server.py"], "poll_interval_s": 0.2},
    # 3.11 starts slowly on a busy machine, and each start is on one
    "probe": {**QUICK["probe"], "deadline_s": 30.0},
    "workload": {"stop_grace_s": 2.0},
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemdMachine]:
    found = systemd_machine(tmp_path)
    found.use(monkeypatch)
    yield found
    found.run("systemctl", "start", "dbus.socket", "dbus.service")
    found.clean()


@pytest.fixture
def fixture(tmp_path: Path, machine: SystemdMachine, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fixture = LiveFixture(tmp_path, [INSTANCE], settings=SETTINGS, environment={"PYTHONPATH": str(ROOT)})
    try:
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path / "state", ignore_errors=True)


def publish_broken(fixture: LiveFixture, version: str) -> None:
    """A release whose app ends at once."""
    path, text = fixture.folder / f"broken-{version}.tar", b"print('no licence', flush=True)\nraise SystemExit(3)\n"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("server.py")
        member.size, member.mode = len(text), 0o644
        tar.addfile(member, io.BytesIO(text))
    fixture.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={path}")
    fixture.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")


def causes(fixture: LiveFixture) -> list[str]:
    """Why workloads failed or ended, by the journal."""
    events = (json.loads(json.dumps(record.event)) for record in fixture.records(INSTANCE))
    words = {"workload.failed": "cause", "workload.exited": "status"}
    return [str(event[words[event["name"]]]) for event in events if event["name"] in words]


def versions(machine: SystemdMachine) -> list[str]:
    """Of the units that run."""
    return [name.partition("@")[2].split("-")[2] for name in machine.units("outrider-app-*")]


def test_a_sidekick_updates_units_and_survives_a_bad_release_and_the_loss_of_d_bus(
    fixture: LiveFixture, machine: SystemdMachine
) -> None:
    """
    1. an instance goes from 1.0.0 to 2.0.0: one unit after the other, and only the new one is left
    2. 3.0.0 ends at once: 2.0.0 serves on, 3.0.0 is blocked, the report says how it ended, nothing is left of it
    3. D-Bus is away while the instance would swap to 4.0.0: 2.0.0 serves on, and nothing is blocked
    4. D-Bus is back: 4.0.0 runs, alone
    """
    fixture.start()
    fixture.create()
    fixture.start_sidekick(INSTANCE)
    eventually(lambda: fixture.expect_all_on("1.0.0"), every_s=0.2)

    fixture.publish("2.0.0")
    eventually(lambda: fixture.expect_all_on("2.0.0"), every_s=0.2)
    assert ["2.0.0"] == versions(machine)

    publish_broken(fixture, "3.0.0")
    eventually(lambda: fixture.blocked() == ["3.0.0"] and fixture.expect_all_on("2.0.0"), every_s=0.2)
    # on a busy machine it may have been started before it ends
    assert any("exit 3" in cause for cause in causes(fixture)), causes(fixture)
    assert ["2.0.0"] == versions(machine)
    assert "" == machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "outrider-app-*")

    machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
    fixture.publish("4.0.0")
    eventually(lambda: any("D-Bus can't be reached" in cause for cause in causes(fixture)), every_s=0.2)
    assert ["2.0.0"] == versions(machine)
    assert ["3.0.0"] == fixture.blocked()

    machine.run("systemctl", "start", "dbus.socket", "dbus.service")
    eventually(lambda: fixture.expect_all_on("4.0.0"), every_s=0.2)
    assert ["4.0.0"] == versions(machine)
    assert ["3.0.0"] == fixture.blocked()
