"""Rehearsals of docs/use/operations.md: an upgrade in mid-rollout, the way back, and an etcd that was lost."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider import __version__
from outrider.demo.fleet import APP_ID, CHANNEL, GROUP
from outrider.demo.programs import start_etcd
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
NEWER = "9.9.9"


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    made = LiveFixture(tmp_path / "fleet", ["web-a", "web-b"], environment={"PYTHONPATH": str(ROOT / "src")})
    try:
        made.start()
        made.create()
        for instance in made.instances:
            made.start_sidekick(instance)
        eventually(lambda: made.expect_all_on("1.0.0"), within_s=120, every_s=0.5)
        yield made
    finally:
        made.stop()


def newer_code(folder: Path) -> Path:
    """This code as another version of outrider; where Python finds it."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "statecharts", folder / "statecharts")
    module = folder / "src/outrider/__init__.py"
    module.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{NEWER}"', module.read_text()))
    return folder / "src"


def versions(fixture: LiveFixture) -> dict[str, str]:
    """Instance -> its version of outrider, as the command tells."""
    told = json.loads(fixture.outrider("versions", "--json"))
    return {one["name"].rpartition("/")[2]: one["outrider"] for one in told}


def run_with(fixture: LiveFixture, instance: str, code: Path) -> None:
    """Restart the sidekick of one instance with the outrider at ``code``, as its package does."""
    fixture.sidekicks[instance].stop()
    fixture._environment = {"PYTHONPATH": str(code)}
    fixture.start_sidekick(instance)


def test_an_upgrade_in_mid_rollout_and_the_way_back(
    fixture: LiveFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1. a rollout begins; the service and one sidekick are upgraded meanwhile; it ends on both versions of outrider
    2. the other one follows, and a rollout goes through
    3. all go back to the older outrider, which reads what the newer one wrote; a rollout goes through
    """
    old, new = ROOT / "src", newer_code(tmp_path / "newer")
    workloads = {instance: fixture.running(instance) for instance in fixture.instances}
    assert {"web-a": __version__, "web-b": __version__} == versions(fixture)

    fixture.publish("2.0.0")
    fixture.service.stop()
    monkeypatch.setenv("PYTHONPATH", str(new))
    fixture.start_service()
    run_with(fixture, "web-a", new)
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=180, every_s=0.5)
    assert {"web-a": NEWER, "web-b": __version__} == versions(fixture)
    assert all(fixture.running(instance) != workloads[instance] for instance in fixture.instances)

    run_with(fixture, "web-b", new)
    eventually(lambda: {"web-a": NEWER, "web-b": NEWER} == versions(fixture), within_s=120, every_s=0.5)
    fixture.publish("3.0.0")
    eventually(lambda: fixture.expect_all_on("3.0.0"), within_s=180, every_s=0.5)

    kept = {instance: fixture.running(instance) for instance in fixture.instances}
    fixture.service.stop()
    monkeypatch.setenv("PYTHONPATH", str(old))
    fixture.start_service()
    for instance in fixture.instances:
        run_with(fixture, instance, old)
    eventually(lambda: set(versions(fixture).values()) == {__version__}, within_s=120, every_s=0.5)
    eventually(lambda: fixture.expect_all_on("3.0.0"), within_s=120, every_s=0.5)
    assert kept == {instance: fixture.running(instance) for instance in fixture.instances}, "no app was touched"
    fixture.publish("4.0.0")
    eventually(lambda: fixture.expect_all_on("4.0.0"), within_s=180, every_s=0.5)
    assert [] == fixture.blocked()


def test_an_etcd_that_is_lost_is_restored_from_a_backup(fixture: LiveFixture, tmp_path: Path) -> None:
    """
    1. a backup is taken, by the command of the page
    2. etcd loses all it had, while the apps serve on
    3. the backup is restored into an empty etcd; sidekicks come back by themselves, and nothing was restarted
    4. the next rollout goes through
    """
    backup, payloads = tmp_path / "outrider.backup", f"--payload-dir={fixture.folder / 'payloads'}"
    fixture.outrider("database", "backup", str(backup), payloads)
    kept = {instance: fixture.running(instance) for instance in fixture.instances}

    fixture.service.stop()
    fixture.etcd.stop()
    shutil.rmtree(fixture.folder / "etcd")
    fixture.etcd = fixture._keep(start_etcd(fixture.folder, fixture.etcd.endpoint))
    fixture.etcd.wait_ready()
    # living sidekicks write their presences at once: they are not in the way
    fixture.outrider("database", "restore", str(backup), payloads, "--yes")
    fixture.start_service()

    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=180, every_s=0.5)
    assert kept == {instance: fixture.running(instance) for instance in fixture.instances}, "no app was touched"
    assert GROUP in fixture.outrider("status", APP_ID)
    fixture.publish("2.0.0")
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=180, every_s=0.5)
    assert CHANNEL in fixture.outrider("channel", "list", f"--app-id={APP_ID}")
