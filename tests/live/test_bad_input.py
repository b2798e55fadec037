"""Releases that a real sidekick must not run: each is told in one line, and nothing is lost by it."""

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, CHANNEL, OUTRIDER
from outrider.model.keys import group_scope
from tests.live.live_fixture import LiveFixture
from tests.support.file_server import Files
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFixture]:
    """One instance on 1.0.0."""
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    fixture = LiveFixture(tmp_path, ["web-a"])
    try:
        fixture.start()
        fixture.create()
        fixture.start_sidekick("web-a")
        eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
        yield fixture
    finally:
        fixture.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def publish(fixture: LiveFixture, version: str, files: Files, *, size: int, sha256: str) -> None:
    fixture.outrider(
        *("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--url={files.url}"),
        *(f"--size={size}", f"--sha256={sha256}"),
    )
    fixture.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")


def tar_with(name: str, content: bytes = b"x") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def tar_through(name: str, link: str) -> bytes:
    """An archive that would write a file through a link of its own."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, link
        tar.addfile(member)
        tar.addfile(tarfile.TarInfo(f"{name}/evil"))
    return packed.getvalue()


def says(fixture: LiveFixture, told: str) -> bool:
    why = fixture.presences()["web-a"].why
    assert told in why, why
    return True


def test_payloads_that_are_not_what_was_promised_never_run(fixture: LiveFixture, tmp_path: Path) -> None:
    """
    1. releases come one after the other: wrong hash, wrong size, cut off on the way
    2. for each, presence says why in words; the instance serves on, nothing is blocked, no turn is left
    3. the same bytes with the right promise are installed
    """
    good = build_package(tmp_path / "good", "2.0.0").read_bytes()
    sha256 = hashlib.sha256(good).hexdigest()
    files = Files(good)
    try:
        for version, size, promised, cut_at, told in (
            ("1.1.0", len(good), "0" * 64, None, "SHA-256 is"),
            ("1.2.0", len(good) + 7, sha256, None, "bytes"),
            ("1.3.0", len(good), sha256, 1000, "connection closed before the end"),
        ):
            files.cut_at, files.ranges = cut_at, cut_at is None  # with ranges the rest would be fetched, rightly
            publish(fixture, version, files, size=size, sha256=promised)
            eventually(partial(says, fixture, told), within_s=60, every_s=0.1)
            presence = fixture.presences()["web-a"]
            assert ("1.0.0", 1) == (presence.version, len(presence.why.splitlines()))
            assert 1 == len(fixture.running("web-a"))

        files.cut_at, files.ranges = None, True
        publish(fixture, "2.0.0", files, size=len(good), sha256=sha256)
        eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=60, every_s=0.2)

        assert () == fixture.cluster.list(fixture.keys.blocks(APP_ID)).entries
    finally:
        files.close()


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        pytest.param(tar_with("../outside"), "outside", id="dots"),
        pytest.param(tar_through("inside", "/etc"), "which is a link", id="link"),
        pytest.param(tar_with("readme.txt"), "server.py", id="no-program"),
        pytest.param(b"this is no archive", "tar", id="no-tar"),
    ],
)
def test_an_archive_that_must_not_be_unpacked_is_blocked(fixture: LiveFixture, payload: bytes, told: str) -> None:
    files = Files(payload)
    try:
        publish(fixture, "2.0.0", files, size=len(payload), sha256=hashlib.sha256(payload).hexdigest())
        eventually(lambda: fixture.cluster.list(fixture.keys.blocks(APP_ID)).entries, within_s=60, every_s=0.2)
        eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    finally:
        files.close()

    why = fixture.presences()["web-a"].why
    assert told in why
    assert 1 == len(why.splitlines())
    assert 1 == len(fixture.running("web-a"))
    assert not (fixture.state_dir("web-a") / "workloads" / "outside").exists()
    assert () == fixture.cluster.list(fixture.keys.turns(group_scope(APP_ID, "production"))).entries


def test_an_app_that_the_service_does_not_know_is_said_by_its_sidekick(fixture: LiveFixture) -> None:
    """It goes on asking: an operator may create the app later."""
    text = (fixture.folder / "web-a.toml").read_text().replace(APP_ID, "no-such-app").replace("web-a", "web-b")
    config = fixture.folder / "stranger.toml"
    config.write_text(text)

    program = fixture.start_sidekick("web-b", [*OUTRIDER, "sidekick", "run", "--config", config])

    eventually(lambda: "instance.app" in program.log.read_text())
    assert program.ended is None
    assert "Traceback" not in program.log.read_text()


def test_garbage_on_the_omaha_endpoint_is_refused_and_the_service_goes_on(fixture: LiveFixture) -> None:
    for body in (b"", b"{}", b"<request", b'<!DOCTYPE x [<!ENTITY a "b">]><request protocol="3.0"/>', b"\xff" * 100):
        answer = requests.post(f"{fixture.service_url}/v1/update/", data=body, timeout=60)
        assert (400, 1) == (answer.status_code, len(answer.text.strip().splitlines())), body
    assert 413 == requests.post(f"{fixture.service_url}/v1/update/", data=b"x" * 2_000_000, timeout=60).status_code

    fixture.publish("2.0.0")
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=60, every_s=0.2)
