"""The guide's own command on machines that only unpack archives: nothing is fetched, nobody is held up."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.stage import APP_ID, CHANNEL, GROUP
from tests.live.live_stage import LiveStage
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

pytestmark = pytest.mark.live
REASON = "2.0.0 is a container image; this machine's runtime (process) runs archives only: serve this group an archive"


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveStage]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    stage = LiveStage(tmp_path, ["web-a", "web-b"])
    try:
        yield stage
    finally:
        stage.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def refused_by(stage: LiveStage, instance: str) -> bool:
    presence = stage.presences()[instance]
    return presence.state == "idle.held" and presence.why.startswith(REASON)


def test_an_image_is_refused_by_the_machine_and_the_next_archive_rolls(stage: LiveStage) -> None:
    """
    1. two sidekicks run 1.0.0, of a group whose roll-out the first failure halts
    2. the channel is pointed at a container image: both refuse it untried, and say so to operators and service
    3. the release isn't marked bad, the roll-out isn't halted, and the next archive reaches both
    """
    stage.start()
    stage.create()
    stage.outrider("group", "policy", f"--app-id={APP_ID}", f"--group-id={GROUP}", "--max-failures=1")
    for instance in stage.instances:
        stage.start_sidekick(instance)
    eventually(lambda: stage.expect_all_on("1.0.0"), within_s=120, every_s=0.2)
    before = {instance: stage.records(instance)[-1].number for instance in stage.instances}

    stage.outrider("package", "create", f"--app-id={APP_ID}", "--version=2.0.0", "--file=coreos/example:2.0.0")
    stage.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", "--version=2.0.0")
    for instance in stage.instances:
        eventually(lambda instance=instance: refused_by(stage, instance), within_s=60, every_s=0.2)  # type: ignore[misc]
    eventually(lambda: told(stage) == {"web-a": ("error", 35), "web-b": ("error", 35)}, within_s=60, every_s=0.5)
    why = stage.outrider("why", APP_ID, "web-a")
    status = stage.outrider("status", APP_ID)
    steps = [record for record in stage.records("web-a") if record.number > before["web-a"]]
    poison = stage.poison()
    stage.publish("2.0.1")
    eventually(lambda: stage.expect_all_on("2.0.1"), within_s=120, every_s=0.2)

    assert REASON in why
    assert "its last update was refused by its machine with error code 35" in why
    assert "roll-out of 2.0.0: running" in status
    assert REASON in status
    assert [] == poison
    asked = [effect["name"] for record in steps for effect in record.effects]
    assert ["release.check", "report.result"] == asked


def told(stage: LiveStage) -> dict[str, tuple[str, int]]:
    """What ``instance list-updates`` says: status and code by instance."""
    rows = json.loads(stage.outrider("instance", "list-updates", f"--app-id={APP_ID}", "--json"))
    return {row["id"]: (row["status"], row["error_code"]) for row in rows}
