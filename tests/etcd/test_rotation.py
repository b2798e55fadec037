"""Passwords and certificates that change on disk while a process runs are read again."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from etcd3 import etcdrpc

from outrider.core.errors import ConfigError, DriverError, Refused
from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.credentials import Credentials
from outrider.etcd.seam import Endpoint, EtcdAddress
from tests.contracts.etcd.scripted_etcd import ScriptedEtcd
from tests.support.waiting import eventually


class Guarded(ScriptedEtcd):
    """Asks for a user; a change of the password makes the tokens so far worthless."""

    password = "one"
    tries = 0

    def Authenticate(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.tries += 1
        if request.password != self.password:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID")
        return etcdrpc.AuthenticateResponse(token=f"token-of-{self.password}")

    def Range(self, request: Any, context: Any) -> Any:  # noqa: N802
        if dict(context.invocation_metadata()).get("token") != f"token-of-{self.password}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
        return super().Range(request, context)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    server = Guarded()
    yield server
    server.stop()


def as_user(server: Guarded, file: Path, password: str) -> EtcdCluster:
    file.write_text(f"{password}\n")
    address = EtcdAddress(endpoints=(server.endpoint,), user="me", password=password, password_file=str(file))
    return connect(address)


def test_a_password_that_was_changed_is_read_from_its_file(guarded: Guarded, tmp_path: Path) -> None:
    """
    1. a process works with the password one
    2. the operator changes it in etcd, then in the file
    3. between the two it is refused; then it works again, without a restart
    """
    file = tmp_path / "password"
    cluster = as_user(guarded, file, "one")
    try:
        assert cluster.get("/x") is None

        guarded.password = "two"
        with pytest.raises(Refused, match="can't sign in"):
            cluster.get("/x")
        file.write_text("two")
        assert cluster.get("/x") is None

        guarded.password = "three"
        os.replace(_written(tmp_path / "new", "three\r\n"), file)
        assert cluster.get("/x") is None
    finally:
        cluster.close()


@pytest.mark.parametrize("spoil", ["gone", "empty", "binary"])
def test_while_the_file_can_not_be_read_the_password_of_the_start_is_used(
    guarded: Guarded, tmp_path: Path, spoil: str
) -> None:
    file = tmp_path / "password"
    cluster = as_user(guarded, file, "one")
    if spoil == "gone":
        file.unlink()
    else:
        file.write_bytes(b"" if spoil == "empty" else b"\xff\xfe")
    try:
        assert cluster.get("/x") is None
    finally:
        cluster.close()


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


class Files:
    """The client's certificates on disk, renewed by one authority after the other."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.cert, self.key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))

    def address(self, endpoint: Endpoint) -> EtcdAddress:
        return EtcdAddress(
            endpoints=(endpoint,), ca_file=str(self.ca), cert_file=str(self.cert), key_file=str(self.key), timeout_s=1.0
        )

    def renew(self, authority: trustme.CA, *, key: bool = True) -> None:
        mine = authority.issue_cert("client.example")
        authority.cert_pem.write_to_path(str(self.ca))
        mine.cert_chain_pems[0].write_to_path(str(self.cert))
        if key:
            mine.private_key_pem.write_to_path(str(self.key))


def serving(authority: trustme.CA, port: int = 0) -> ScriptedEtcd:
    """Takes clients of ``authority`` alone."""
    own = authority.issue_cert("127.0.0.1")
    pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
    return ScriptedEtcd(
        port=port,
        credentials=grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True),
    )


def test_certificates_that_were_renewed_are_used_without_a_restart(tmp_path: Path) -> None:
    """
    1. a process works with certificates of one authority
    2. etcd is restarted with those of another: the process is locked out
    3. the files are renewed: it works again
    """
    old, new, files = trustme.CA(), trustme.CA(), Files(tmp_path)
    files.renew(old)
    server = serving(old)
    cluster = connect(files.address(server.endpoint))
    try:
        assert cluster.get("/x") is None

        server.stop()
        server = serving(new, server.endpoint.port)
        with pytest.raises(DriverError):
            cluster.get("/x")
        files.renew(new)

        def works() -> bool:
            return cluster.get("/x") is None

        eventually(works)
    finally:
        cluster.close()
        server.stop()


def test_half_renewed_certificates_are_left_until_they_are_whole(tmp_path: Path) -> None:
    files, authority = Files(tmp_path), trustme.CA()
    files.renew(authority)
    credentials = Credentials(files.address(Endpoint(host="a", port=1)))
    before = credentials.proof()

    files.renew(authority, key=False)
    assert credentials.proof() is before, "the key is not the certificate's"
    files.cert.write_text("")
    assert credentials.proof() is before
    files.cert.unlink()
    assert credentials.proof() is before

    files.renew(authority)
    assert credentials.proof() is not before
    assert credentials.proof() is credentials.proof(), "no change, no new connection"


def test_a_certificate_and_a_key_that_do_not_belong_together_are_refused_at_the_start(tmp_path: Path) -> None:
    files, authority = Files(tmp_path), trustme.CA()
    files.renew(authority)
    files.renew(authority, key=False)

    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        connect(files.address(Endpoint(host="a", port=1)))
