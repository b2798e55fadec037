"""A new environment is rolled out as a release: three instances behind Traefik, under load."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, GROUP, HOST, workloads
from outrider.demo.load import LoadGenerator
from outrider.demo.turns import TurnWatch
from outrider.model.keys import group_scope
from outrider.runtimes.process.identity import environment_of, look_at
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

WHERE = f"{APP_ID}/{GROUP}"
RATE_PER_S = 60.0
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


def all_at(fleet: LiveFixture, release: str) -> bool:
    """Whether all instances run ``release`` and are at rest."""
    at_rest = [one for one in fleet.presences().values() if (one.release, one.state) == (release, "idle.waiting")]
    return len(at_rest) == len(fleet.instances)


def told(fleet: LiveFixture, instance: str, name: str) -> str | None:
    """A variable of the app that runs, as its process has it."""
    with workloads(fleet.state_dir(instance)) as runtime:
        (workload,) = runtime.running()
    pid = int(workload.handle.removeprefix("pid "))
    process = look_at(pid)
    assert process is not None
    return environment_of(process).get(name)


def test_a_change_drops_no_request_and_a_bad_one_reaches_one_instance_and_is_undone(fleet: LiveFixture) -> None:
    """
    1. a variable and a secret file are set: all three come to `1.0.0 with environment 1`, and no request fails
    2. environment 2 keeps the app from starting: one instance tries it, and the release is blocked, not the version
    3. `rollout undo` takes the group back; all three run with environment 1, which two of them never left
    4. the file changes: status says so, and a rolling restart applies it
    """
    secret = fleet.folder / "password"
    secret.write_text("first\n")
    load = LoadGenerator(fleet.web_url + fleet.path, HOST, RATE_PER_S).start()
    turns = TurnWatch(fleet.cluster, fleet.keys, group_scope(APP_ID, GROUP))
    try:
        fleet.outrider("env", "set", WHERE, "COLOUR=blue", f"--reference=PASSWORD=file:{secret}")
        eventually(lambda: all_at(fleet, "1.0.0 with environment 1"), within_s=LIMIT_S)
        assert ["blue"] * 3 == [told(fleet, one, "COLOUR") for one in fleet.instances]
        assert ["first"] * 3 == [told(fleet, one, "PASSWORD") for one in fleet.instances]

        # what undo goes back to is what the group has wholly taken
        finished = "rollout of 1.0.0 with environment 1: finished"
        eventually(lambda: finished in fleet.outrider("status", APP_ID), within_s=LIMIT_S)

        fleet.outrider("env", "set", WHERE, "PYTHONHOME=/nonexistent")
        eventually(lambda: "1.0.0 with environment 2" in fleet.outrider("release", "list", APP_ID), within_s=LIMIT_S)
        eventually(lambda: all_at(fleet, "1.0.0 with environment 1"), within_s=LIMIT_S)
        tried = {turn.instance for turn in turns.turns() if turn.release == "1.0.0 with environment 2"}
        assert 1 == len(tried), tried

        fleet.outrider("rollout", "undo", WHERE, "--yes")
        target = fleet.outrider("status", APP_ID)
        assert "target: 1.0.0 with environment 1" in target
        assert "blocked" not in target
        # told of another target, each asks once more
        eventually(lambda: all_at(fleet, "1.0.0 with environment 1"), within_s=LIMIT_S)
        assert len(fleet.instances) + 1 == len(turns.turns()), "nothing moves for it"

        secret.write_text("second\n")
        notice = "secret files changed since start (PASSWORD)"
        eventually(lambda: notice in fleet.outrider("status", APP_ID), within_s=60)
        fleet.outrider("rollout", "restart", WHERE, "--yes")
        eventually(lambda: all_at(fleet, "1.0.0 with environment 1, generation 1"), within_s=LIMIT_S)
        assert ["second"] * 3 == [told(fleet, one, "PASSWORD") for one in fleet.instances]
        eventually(lambda: notice not in fleet.outrider("status", APP_ID), within_s=60)
        assert 1 == turns.most_at_once
    finally:
        turns.close()
        figures = load.stop()

    assert 0 == figures.failed, figures.examples
    assert figures.requests > RATE_PER_S
