"""sd_notify against a real datagram socket."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.sd_notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The receiving end, and what ``NOTIFY_SOCKET`` says of it."""
    name = f"outrider-{uuid.uuid4().hex}"
    address, told = (
        (str(tmp_path / "notify"), str(tmp_path / "notify")) if request.param == "path" else (f"\0{name}", f"@{name}")
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(5)
        yield receiver, told


def test_every_notice_arrives_in_systemds_words(systemd: tuple[socket.socket, str]) -> None:
    receiver, told = systemd
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": told})

    assert all((notifier.ready("idle on 1.0.0"), notifier.status("swapping"), notifier.alive(), notifier.stopping()))

    expected = [b"READY=1\nSTATUS=idle on 1.0.0", b"STATUS=swapping", b"WATCHDOG=1", b"STOPPING=1"]
    assert expected == [receiver.recv(1000) for _ in expected]


def test_a_status_is_one_line_and_cannot_smuggle_an_assignment(systemd: tuple[socket.socket, str]) -> None:
    receiver, told = systemd

    Notifier.from_environment({"NOTIFY_SOCKET": told}).status("waits\nREADY=1\n  for  a turn")

    assert b"STATUS=waits READY=1 for a turn" == receiver.recv(1000)


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_systemd_nothing_is_sent_and_nobody_watches(environment: dict[str, str]) -> None:
    notifier = Notifier.from_environment({**environment, "WATCHDOG_USEC": "30000000"})

    assert not notifier.ready("x")
    assert not notifier.alive()
    assert notifier.watchdog_interval_s is None


@pytest.mark.parametrize(
    ("more", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_sign_of_life_is_due_after_half_of_systemds_time(more: dict[str, str], interval_s: float | None) -> None:
    assert interval_s == Notifier.from_environment({"NOTIFY_SOCKET": "/run/x", **more}).watchdog_interval_s


def test_a_socket_that_is_gone_or_full_disturbs_nobody(tmp_path: Path) -> None:
    gone = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert not gone.alive()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "full"))
        full = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "full")})
        sent = 0
        while full.alive():
            sent += 1
            assert sent < 100_000
        assert sent > 0
