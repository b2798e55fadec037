"""The guide's own command on machines that only unpack archives: nothing is fetched, nobody is held up."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, CHANNEL, GROUP
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

DIGEST = "sha256:" + "ab" * 32
"""No registry is asked for it: sidekicks are offered what has a digest."""
REASON = "2.0.0 is a container image; this machine's runtime (process) runs archives only: serve this group an archive"


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fixture = LiveFixture(tmp_path, ["web-a", "web-b"])
    try:
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def refused_by(fixture: LiveFixture, instance: str) -> bool:
    presence = fixture.presences()[instance]
    return presence.state == "idle.deferred" and presence.why.startswith(REASON)


def test_an_image_is_refused_by_the_machine_and_the_next_archive_rolls(fixture: LiveFixture) -> None:
    """
    1. two sidekicks run 1.0.0, of a group whose rollout the first failure halts
    2. the channel is pointed at a container image: both refuse it untried, and say so to operators and service
    3. the release isn't blocked, the rollout isn't halted, and the next archive reaches both
    """
    fixture.start()
    fixture.create()
    fixture.outrider("group", "policy", f"--app-id={APP_ID}", f"--group-id={GROUP}", "--max-failures=1")
    for instance in fixture.instances:
        fixture.start_sidekick(instance)
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=120, every_s=0.2)
    before = {instance: fixture.records(instance)[-1].number for instance in fixture.instances}

    fixture.outrider("package", "create", f"--app-id={APP_ID}", "--version=2.0.0", f"--file=coreos/example@{DIGEST}")
    fixture.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", "--version=2.0.0")
    for instance in fixture.instances:
        eventually(lambda instance=instance: refused_by(fixture, instance), within_s=60, every_s=0.2)  # type: ignore[misc]
    eventually(lambda: told(fixture) == {"web-a": ("error", 35), "web-b": ("error", 35)}, within_s=60, every_s=0.5)
    why = fixture.outrider("why", APP_ID, "web-a")
    status = fixture.outrider("status", APP_ID)
    steps = [record for record in fixture.records("web-a") if record.number > before["web-a"]]
    blocked = fixture.blocked()
    fixture.publish("2.0.1")
    eventually(lambda: fixture.expect_all_on("2.0.1"), within_s=120, every_s=0.2)

    assert REASON in why
    assert "last update failed: this machine can't run the release (error code 35)" in why
    assert "rollout of 2.0.0: running" in status
    assert REASON in status
    assert [] == blocked
    asked = [effect["name"] for record in steps for effect in record.effects]
    assert ["release.check", "report.result"] == asked


def told(fixture: LiveFixture) -> dict[str, tuple[str, int]]:
    """What ``instance list-updates`` says: status and code by instance."""
    rows = json.loads(fixture.outrider("instance", "list-updates", f"--app-id={APP_ID}", "--json"))
    return {row["id"]: (row["status"], row["error_code"]) for row in rows}
