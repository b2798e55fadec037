"""A real fleet on loopback: woken by watches, fenced after a pause, patient while etcd is away."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, GROUP
from outrider.etcd.seam import KeyChanged, WatchEvent
from outrider.model.keys import group_scope
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fixture = LiveFixture(tmp_path, ["web-a", "web-b", "web-c"], environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_promoted_channel_wakes_every_idle_sidekick_by_its_watch(fixture: LiveFixture) -> None:
    """
    1. three sidekicks that would poll once an hour are idle
    2. the channel is pointed at 2.0.0
    3. each goes from idle to checking by the target's change, asked once, and no timer had a part in it
    """
    fixture.start()
    fixture.create()
    for instance in fixture.instances:
        fixture.start_sidekick(instance)
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    before = {instance: fixture.records(instance)[-1].number for instance in fixture.instances}

    fixture.publish("2.0.0")
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=60, every_s=0.2)

    for instance in fixture.instances:
        after = [record for record in fixture.records(instance) if record.number > before[instance]]
        checks = [record for record in after if record.target == "checking" and record.source != "checking"]
        assert [("idle.waiting", "target.changed")] == [(record.source, record.event["name"]) for record in checks]
        assert not [record for record in after if record.event["name"] == "poll.due"]
    for program in fixture.sidekicks.values():
        program.stop(grace_s=20.0)
        assert 0 == program.ended, "SIGTERM must be heard, whatever thread it comes to"
    assert all(1 == len(fixture.running(instance)) for instance in fixture.instances), (
        "instances outlive their sidekicks"
    )


def test_a_sidekick_stopped_longer_than_its_lease_lives_cannot_change_the_traffic(fixture: LiveFixture) -> None:
    """
    1. a sidekick with a turn stops (SIGSTOP) right before it switches the traffic, for longer than its lease lives
    2. it goes on (SIGCONT) and sends the switch with the fence of the turn that it no longer holds: etcd refuses
    3. it makes its turn valid again, and only under the new fence the traffic moves
    """
    fixture.start()
    fixture.create()
    fixture.instances = ("web-a",)
    fixture.start_sidekick("web-a")
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    fixture.sidekicks["web-a"].stop()
    seen: list[WatchEvent] = []
    prefix = "traefik/http/services/example/loadbalancer/servers/"
    watch = fixture.cluster.watch(prefix, fixture.cluster.list(prefix).revision + 1, seen.append)
    command = [sys.executable, "-m", "tests.live.killed_sidekick", "--config", str(fixture.folder / "web-a.toml")]
    command += ["--kill-at", "swapping.switching", "--stop", "--done", str(fixture.folder / "stopped")]
    program = fixture.start_sidekick("web-a", command)

    fixture.publish("2.0.0")
    eventually(lambda: (fixture.folder / "stopped").exists(), within_s=60)
    waiter = fixture.keys.waiter(group_scope(APP_ID, GROUP), "web-a")
    eventually(lambda: fixture.cluster.get(waiter) is None)
    assert [] == seen, "nothing may have been written yet"
    os.kill(program.pid, signal.SIGCONT)
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=60, every_s=0.2)

    watch.close()
    turns = [record.event["turn"] for record in fixture.records("web-a") if record.event["name"] == "lock.acquired"]
    old, new = turns[-2], turns[-1]
    assert old["waiter_revision"] < new["waiter_revision"]
    writes = [event.revision for event in seen if isinstance(event, KeyChanged)]
    assert writes, "the traffic has moved in the end"
    assert min(writes) > new["waiter_revision"], "a write of the old turn was let through"


def test_a_sidekick_that_starts_before_etcd_waits_for_it(fixture: LiveFixture) -> None:
    """An outage at start is told in one line a time, loses nothing, and ends by itself."""
    fixture.start()
    fixture.create()
    fixture.instances = ("web-a",)
    fixture.start_sidekick("web-a")
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    fixture.sidekicks["web-a"].stop()
    assert 1 == len(fixture.running("web-a")), "the instance goes on without its sidekick"
    os.kill(fixture.etcd.pid, signal.SIGSTOP)

    program = fixture.start_sidekick("web-a")
    eventually(lambda: "etcd away" in program.log.read_text())
    assert program.ended is None
    assert 1 == len(fixture.running("web-a"))
    os.kill(fixture.etcd.pid, signal.SIGCONT)

    fixture.publish("2.0.0")
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=60, every_s=0.2)
    assert "Traceback" not in program.log.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", APP_ID),
        ("why", APP_ID, "web-a"),
        ("lock", "show", "a", "b"),
        ("lock", "release", "a", "b", "--slot", "0", "--yes"),
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_a_command_without_etcd_says_so_in_one_line(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "outrider", *arguments, "--etcd", "127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 1 == done.returncode
    assert "" == done.stdout
    assert 1 == len(done.stderr.strip().splitlines()), done.stderr
    assert "127.0.0.1:9" in done.stderr
