"""The service's certificate: what can't be used is refused in a line, and what is renewed counts without a restart."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from outrider.core.errors import ConfigError
from outrider.service.tls import Tls, TlsFiles


def write_certificate(folder: Path, authority: trustme.CA, name: str = "127.0.0.1") -> TlsFiles:
    """A certificate of ``authority`` in the folder, in place of another one."""
    leaf = authority.issue_cert(name)
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    return TlsFiles(certificate=folder / "cert.pem", key=folder / "key.pem")


@contextmanager
def serving(tls: Tls) -> Iterator[int]:
    """A server that greets whoever comes through the handshake; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with suppress(OSError), tls.context.wrap_socket(connection, server_side=True) as wrapped:
                    wrapped.sendall(b"hello")

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def greeted(port: int, authority: trustme.CA, client: trustme.LeafCert | None = None, name: str | None = None) -> bool:
    """Whether a client that trusts ``authority`` alone is greeted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    authority.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=name) as wrapped:
                return wrapped.recv(5) == b"hello"
        except (ssl.SSLError, ConnectionError):
            return False


@pytest.mark.parametrize("name", [None, "updates.example"])
def test_a_renewed_certificate_counts_from_the_next_connection_on(tmp_path: Path, name: str | None) -> None:
    old, new = trustme.CA(), trustme.CA()
    tls = Tls(write_certificate(tmp_path, old))
    with serving(tls) as port:
        assert (True, False) == (greeted(port, old, name=name), tls.look())

        write_certificate(tmp_path, new)
        changed = tls.look()

        assert changed
        assert (False, True) == (greeted(port, old, name=name), greeted(port, new, name=name))


def test_half_written_files_keep_what_was_loaded(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = Tls(write_certificate(tmp_path, authority))
    with serving(tls) as port:
        (tmp_path / "cert.pem").write_text("-----BEGIN CERTIFICATE-----\n")

        assert not tls.look()
        assert greeted(port, authority)


def test_clients_need_a_certificate_of_their_authority_and_one_that_was_removed_counts_no_more(tmp_path: Path) -> None:
    authority, clients, others = trustme.CA(), trustme.CA(), trustme.CA()
    files = write_certificate(tmp_path, authority)
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    tls = Tls(TlsFiles(certificate=files.certificate, key=files.key, client_ca=tmp_path / "clients.pem"))
    ours, theirs = clients.issue_cert("web-1"), others.issue_cert("web-1")
    with serving(tls) as port:
        assert [False, True, False] == [greeted(port, authority, one) for one in (None, ours, theirs)]

        others.cert_pem.write_to_path(tmp_path / "clients.pem")
        tls.look()

        assert [False, False, True] == [greeted(port, authority, one) for one in (None, ours, theirs)]


def test_files_that_can_not_be_used_are_one_line_each(tmp_path: Path) -> None:
    files = write_certificate(tmp_path, trustme.CA())
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(other)
    (tmp_path / "empty.pem").write_text("")

    for wrong, words in (
        (TlsFiles(certificate=tmp_path / "none", key=files.key), "--tls-cert .*none: no such file"),
        (TlsFiles(certificate=files.certificate, key=other), "does not belong to --tls-key"),
        (
            TlsFiles(certificate=tmp_path / "empty.pem", key=files.key),
            "can't be used|isn't one",
        ),
        (
            TlsFiles(certificate=files.certificate, key=files.key, client_ca=tmp_path / "empty.pem"),
            "--tls-client-ca .*: not a PEM file",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            wrong.load()
