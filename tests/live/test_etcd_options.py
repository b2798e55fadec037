"""The options with which commands reach an etcd that speaks TLS and has users."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import EtcdServer, make_tls_files


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path / "etcd", tls=make_tls_files(tmp_path / "tls"), client_certificates=True)
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def lock_list(server: EtcdServer, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "outrider",
        "lock",
        "list",
        "--etcd",
        f"127.0.0.1:{server.port}",
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_command_shows_its_certificate_to_an_etcd_that_wants_one(server: EtcdServer) -> None:
    assert server.tls is not None
    authority = ("--etcd-ca-file", str(server.tls.ca))
    certificate = ("--etcd-cert-file", str(server.tls.client_cert), "--etcd-key-file", str(server.tls.client_key))

    allowed = lock_list(server, *authority, *certificate)
    refused = lock_list(server, *authority)

    assert (0, "") == (allowed.returncode, allowed.stderr)
    assert 1 == refused.returncode
    assert 1 == len(refused.stderr.strip().splitlines()), refused.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--etcd-cert-file", "/tmp/a"), "--etcd-cert-file and --etcd-key-file need each other"),
        (("--etcd-user", "root"), "--etcd-user and --etcd-password-file need each other"),
        (
            ("--etcd-user", "root", "--etcd-password-file", "/no/such"),
            "/no/such: can't be read: No such file",
        ),
        (("--etcd", "localhost"), "write HOST:PORT"),
    ],
)
def test_options_that_can_not_work_are_one_line(options: tuple[str, ...], complaint: str) -> None:
    command = [sys.executable, "-m", "outrider", "lock", "show", "a", "b", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert 1 == done.returncode
    assert complaint in done.stderr
    assert 1 == len(done.stderr.strip().splitlines())
