"""A task runs once for a release: three sidekicks, a real etcd, and a runner that is killed."""

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, CHANNEL, GROUP
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

WHERE = f"{APP_ID}/{GROUP}"
LIMIT_S = 120.0


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    found = LiveFixture(tmp_path, ("a", "b", "c"))
    try:
        found.start()
        found.create()
        for instance in found.instances:
            found.start_sidekick(instance)
        eventually(lambda: found.all_on("1.0.0"), within_s=LIMIT_S)
        yield found
    finally:
        found.stop()


def publish(fleet: LiveFixture, version: str, script: str, *others: str) -> None:
    """A release whose payload has ``bin/migrate``, a shell script; its argument is the fleet's folder."""
    package = build_package(fleet.folder, version)
    with tarfile.open(package, "a") as tar:
        member = tarfile.TarInfo("bin/migrate")
        content = f'#!/bin/sh\necho "$OUTRIDER_INSTANCE" >> "$1/begun-{version}"\n{script}\n'.encode()
        member.size, member.mode = len(content), 0o755
        tar.addfile(member, io.BytesIO(content))
    tasks = [f"--task={task}" for task in (f"pre:migrate=bin/migrate {fleet.folder}", *others)]
    fleet.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={package}", *tasks)
    fleet.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")


def begun(fleet: LiveFixture, version: str) -> list[str]:
    """The instances on which the task has begun, each time."""
    path = fleet.folder / f"begun-{version}"
    return path.read_text().split() if path.exists() else []


def tells(fleet: LiveFixture, kind: str) -> str:
    """A task of the machine that leaves a line with the version."""
    return f"{kind}=/bin/sh -c 'echo $OUTRIDER_VERSION >> {fleet.folder}/{kind}'"


def told(fleet: LiveFixture, kind: str) -> list[str]:
    path = fleet.folder / kind
    return path.read_text().split() if path.exists() else []


def started(fleet: LiveFixture, version: str) -> list[str]:
    """The instances that have started a workload of the version."""
    return [
        instance
        for instance in fleet.instances
        for record in fleet.records(instance)
        for effect in record.effects
        if effect["name"] == "workload.start" and effect["installed"]["release"]["version"] == version
    ]


def say(fleet: LiveFixture, verb: str, version: str) -> None:
    fleet.outrider("task", verb, WHERE, f"--version={version}", "--task=migrate", "--why=looked at it", "--yes")


def test_a_task_runs_once_and_what_fails_or_is_lost_waits_for_a_person(fleet: LiveFixture) -> None:
    """
    1. 2.0.0: one of three runs the migration, all come to 2.0.0, and then one of them runs what follows
    2. 3.0.0: the migration fails: blocked, nothing was started, and one runs what follows a failure; mended and
       retried, all come to 3.0.0
    3. 4.0.0: its runner is killed: unknown, it is not run again; an operator says done, and all come to 4.0.0
    """
    others = (tells(fleet, "post"), tells(fleet, "on-failure"))
    publish(fleet, "2.0.0", "sleep 0.5; echo 3 migrations applied", *others)
    eventually(lambda: fleet.all_on("2.0.0"), within_s=LIMIT_S)
    assert 1 == len(begun(fleet, "2.0.0"))
    assert "done" in fleet.outrider("task", "list", WHERE)
    shown = fleet.outrider("task", "show", WHERE, "--version=2.0.0", "--task=migrate")
    assert "3 migrations applied" in shown
    eventually(lambda: fleet.outrider("task", "list", WHERE).count("done") == 2, within_s=LIMIT_S)
    assert (["2.0.0"], []) == (told(fleet, "post"), told(fleet, "on-failure"))

    publish(fleet, "3.0.0", 'test -e "$1/mended" || { echo no such table; exit 3; }', *others)
    eventually(lambda: fleet.blocked() == ["3.0.0"], within_s=LIMIT_S)
    eventually(lambda: fleet.all_on("2.0.0"), within_s=LIMIT_S)
    assert (1, []) == (len(begun(fleet, "3.0.0")), started(fleet, "3.0.0"))
    eventually(lambda: told(fleet, "on-failure") == ["3.0.0"], within_s=LIMIT_S)
    assert "no such table" in fleet.outrider("why", APP_ID, "a")
    (fleet.folder / "mended").touch()
    say(fleet, "retry", "3.0.0")
    eventually(lambda: fleet.all_on("3.0.0"), within_s=LIMIT_S)
    assert (2, []) == (len(begun(fleet, "3.0.0")), fleet.blocked())

    publish(fleet, "4.0.0", 'while ! test -e "$1/go"; do sleep 0.1; done')
    (runner,) = eventually(lambda: begun(fleet, "4.0.0"), within_s=LIMIT_S)
    os.kill(fleet.sidekicks[runner].pid, signal.SIGKILL)
    eventually(lambda: "unknown" in fleet.outrider("task", "list", WHERE), within_s=LIMIT_S)
    other = next(one for one in fleet.instances if one != runner)
    eventually(lambda: "nobody knows how far it came" in fleet.outrider("why", APP_ID, other), within_s=LIMIT_S)
    fleet.start_sidekick(runner)
    eventually(lambda: runner in fleet.presences(), within_s=LIMIT_S)
    assert ([runner], []) == (begun(fleet, "4.0.0"), started(fleet, "4.0.0"))
    (fleet.folder / "go").touch()
    say(fleet, "done", "4.0.0")
    eventually(lambda: fleet.all_on("4.0.0"), within_s=LIMIT_S)
    assert [runner] == begun(fleet, "4.0.0")
