"""A sidekick under a service manager: it says when it is ready, what it does, and that its loop is alive."""

import contextlib
import shutil
import socket
import threading
from pathlib import Path

import pytest

from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually


def test_it_reports_ready_status_and_a_beating_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    1. a sidekick starts with a notification socket and a watchdog of one second
    2. it sends READY once, its states as STATUS, and goes on sending WATCHDOG while it has nothing to do
    3. on SIGTERM it sends STOPPING
    """
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(0.2)
        over = threading.Event()

        def listen() -> None:  # without pause, as a manager does: the socket holds ten messages
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    heard.extend(manager.recv(4096).decode().splitlines())

        listening = threading.Thread(target=listen)
        listening.start()
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        fixture = LiveFixture(tmp_path / "fixture", ["web-a"], environment=environment)
        try:
            fixture.start()
            fixture.create()
            program = fixture.start_sidekick("web-a")
            eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)

            assert 1 == heard.count("READY=1")
            assert [line for line in heard if line.startswith("STATUS=swapping.probing: 1.0.0 must prove healthy")]
            beats = heard.count("WATCHDOG=1")
            eventually(lambda: heard.count("WATCHDOG=1") >= beats + 3)
            program.stop(grace_s=20.0)
            eventually(lambda: "STOPPING=1" in heard)
        finally:
            fixture.stop()
            over.set()
            listening.join()
            shutil.rmtree(tmp_path / "fixture", ignore_errors=True)
