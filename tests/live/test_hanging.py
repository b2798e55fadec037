"""A release that proves healthy and then stops answering: blocked on one instance, however short the soak is set."""

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, CHANNEL, QUICK
from tests.live.live_fixture import LiveFixture
from tests.live.test_fleet_live import CHECKOUT
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

HEALTHY = '(200, "ok\\n") if next(HEALTHY_ANSWERS, None) is not None else (503, "unhealthy\\n")'
HANGS = '(200, "ok\\n") if next(HEALTHY_ANSWERS, None) is not None else time.sleep(3600)'


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    settings = {**QUICK, "soak": {"duration_s": 0.1}}
    fixture = LiveFixture(tmp_path, ["web-a", "web-b"], settings=settings, environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def make_hanging(package: Path) -> Path:
    """The same package, whose app answers no health check any more where it would have said 503."""
    with tarfile.open(package) as tar:
        files = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    program = files["server.py"].decode()
    assert HEALTHY in program
    files["server.py"] = program.replace(HEALTHY, HANGS).encode()
    with tarfile.open(package, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return package


def test_a_release_that_hangs_under_traffic_reaches_one_instance(fixture: LiveFixture) -> None:
    fixture.start()
    fixture.create()
    for instance in fixture.instances:
        fixture.start_sidekick(instance)
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    package = make_hanging(build_package(fixture.folder, "2.0.0", healthy_answers=3))

    fixture.outrider("package", "create", f"--app-id={APP_ID}", "--version=2.0.0", f"--file={package}")
    fixture.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", "--version=2.0.0")
    eventually(lambda: ["2.0.0"] == fixture.blocked(), within_s=90, every_s=0.2)
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)

    def gone_through(instance: str) -> set[str | None]:
        records = [one for one in fixture.records(instance) if one.memory.get("candidate")]
        return {one.target for one in records if one.memory["candidate"]["release"]["version"] == "2.0.0"}

    soaked = [instance for instance in fixture.instances if "swapping.soaking" in gone_through(instance)]
    assert 1 == len(soaked)
    assert {"swapping.soaking", "rollback.restoring", "rollback.blocking"} <= gone_through(soaked[0])
