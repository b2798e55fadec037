"""A plain ``systemctl kill`` of a sidekick's unit, with a real systemd: the app serves on as the very same process.

The sidekick of web-a runs in a container with systemd, as the units say and as the user that they name; etcd, the
update service and Traefik run here.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import QUICK
from tests.live.test_shutdown_systemd import PYTHON, SIDEKICK, Fleet
from tests.support.servers import etcd_binary
from tests.support.systemd_machine import ROOT, SystemdMachine, outrider_machine
from tests.support.waiting import eventually

APPS = "outrider-apps@web-a.service"
PROGRAM = f"""#!/bin/sh
cd "$OUTRIDER_INSTANCE_DIR"
pidfile=$OUTRIDER_WORKLOAD_DIR/pid
case $1 in
  start)
    mkdir -p "$OUTRIDER_WORKLOAD_DIR/root" && tar -xf "$OUTRIDER_PAYLOAD" -C "$OUTRIDER_WORKLOAD_DIR/root" || exit 65
    cd "$OUTRIDER_WORKLOAD_DIR/root"
    {PYTHON} server.py &
    echo $! >"$pidfile" ;;
  find) kill -0 "$(cat "$pidfile")" 2>/dev/null || exit 3 ;;
  stop) kill "$(cat "$pidfile")" ;;
esac
"""
RUNTIMES = {
    "process": {"process": {"command": [PYTHON, "server.py"]}},
    "command": {"command": {verb: ["/opt/program", verb] for verb in ("start", "find", "stop")}},
}


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str) -> Iterator[Fleet]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    settings = {**QUICK, "instance": {"runtime": runtime}, **RUNTIMES[runtime]}
    made = Fleet(tmp_path, ["web-a"], settings=settings, environment={"PYTHONPATH": str(ROOT)})
    try:
        made.start()
        made.create()
        yield made
    finally:
        made.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def machine(tmp_path: Path, fixture: Fleet) -> Iterator[SystemdMachine]:
    made = outrider_machine(tmp_path)
    try:
        # the app of these runtimes has to be seen by the sidekick
        made.run("rm", "/etc/systemd/system/outrider-sidekick@.service.d/app-elsewhere.conf")
        made.run("systemctl", "daemon-reload")
        made.write("/opt/program", PROGRAM)
        made.run("chmod", "755", "/opt/program")
        made.write("/etc/outrider/instances/web-a.toml", fixture.configuration("web-a"))
        made.run("systemctl", "start", SIDEKICK)
        yield made
    finally:
        made.remove()


def processes(machine: SystemdMachine, unit: str) -> set[int]:
    """Pids in a unit's cgroup and below it."""
    path = machine.run("systemctl", "show", "--property=ControlGroup", "--value", unit).strip()
    lines = machine.run("/bin/sh", "-c", "grep -H . /proc/[0-9]*/cgroup 2>/dev/null", check=False).splitlines()
    found = (line.split(":") for line in lines)
    return {int(words[0].split("/")[2]) for words in found if path and f"{words[-1]}/".startswith(f"{path}/")}


def main_pid(machine: SystemdMachine) -> int:
    """0 when there is none; on a busy machine Docker sometimes loses what a command printed."""
    return int(machine.run("systemctl", "show", "--property=MainPID", "--value", SIDEKICK) or 0)


def test_a_plain_kill_of_the_sidekicks_unit_leaves_the_app_alone(fixture: Fleet, machine: SystemdMachine) -> None:
    """
    1. the app that the sidekick has started is in a unit of its own
    2. everything in the sidekick's unit is sent SIGTERM, then SIGKILL: the app serves on, the new sidekick finds it
    3. the next version replaces it, and is in that unit, too
    """

    def told() -> str:
        return machine.run("journalctl", "--no-pager", "-n", "60", "-u", SIDEKICK, "-u", APPS, check=False)

    def serves(version: str) -> bool:
        assert fixture.expect_all_on(version), told()
        return True

    eventually(lambda: serves("1.0.0"), within_s=120, every_s=0.2)
    app = eventually(lambda: processes(machine, APPS), within_s=60)
    eventually(lambda: {main_pid(machine)} == processes(machine, SIDEKICK), within_s=60)

    for words in (("kill",), ("kill", "--signal=KILL")):
        before = main_pid(machine)
        machine.run("systemctl", *words, SIDEKICK)
        eventually(lambda before=before: main_pid(machine) not in (0, before), within_s=60)  # type: ignore[misc]
        eventually(lambda: serves("1.0.0"), within_s=120, every_s=0.2)
        eventually(lambda: app == processes(machine, APPS), within_s=60)
    assert "Operation refused" in machine.run("systemctl", "restart", APPS, check=False), "as needrestart would do"

    fixture.publish("2.0.0")
    eventually(lambda: serves("2.0.0"), within_s=120, every_s=0.2)
    eventually(lambda: not app & processes(machine, APPS), within_s=60)
    eventually(lambda: processes(machine, APPS), within_s=60)
    eventually(lambda: {main_pid(machine)} == processes(machine, SIDEKICK), within_s=60)
