"""What proves us to etcd, and etcd to us: certificates and passwords, read again when their files change.

Certificates and passwords are rotated while processes run. A connection keeps the certificates with which it was made,
so a new one is made when the files have changed and the old connection is in doubt. Where the new files can't be used
(rotation writes one after the other), the ones that were read before are used on.
"""

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from loguru import logger

from outrider.core.errors import ConfigError
from outrider.etcd.address import read_password
from outrider.etcd.seam import EtcdAddress

_FileStates = tuple[tuple[int, int, int] | None, ...]

_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""The machine's authorities on Debian, Red Hat, Alpine; gRPC alone knows only those that it brings along."""


@dataclass(frozen=True, slots=True)
class Proof:
    """gRPC's credentials as the files were at ``states``; None without TLS."""

    channel: Any
    states: _FileStates


class Credentials:
    """Reads the files of one address. Safe to use from several threads."""

    def __init__(self, address: EtcdAddress) -> None:
        """Read the certificates.

        Raises:
            ConfigError: a file is missing, or half of a pair.
        """
        self._address = address
        self._lock = threading.Lock()
        if (address.user is None) != (address.password is None):
            raise ConfigError("etcd: user and password need each other: give both or none")
        if (address.cert_file is None) != (address.key_file is None):
            raise ConfigError("etcd: cert_file and key_file need each other: give both or none")
        if address.cert_file is not None and address.ca_file is None and not address.tls:
            raise ConfigError("etcd: cert_file needs ca_file, the authority that signed the server's certificate")
        self._files = tuple(Path(path) for path in (address.ca_file, address.cert_file, address.key_file) if path)
        states = self._states()
        self._proof = Proof(_channel_credentials(address), states)

    def proof(self) -> Proof:
        """The certificates as they are now; the earlier ones where the files can't be used."""
        with self._lock:
            states = self._states()
            if states != self._proof.states:
                try:
                    self._proof = Proof(_channel_credentials(self._address), states)
                except ConfigError as error:
                    logger.bind(cause=str(error)).warning("the new certificates for etcd can't be used")
                else:
                    logger.info("the certificates for etcd have changed and were read again")
            return self._proof

    def password(self) -> str | None:
        """The user's password: as the file says now, else as it was given."""
        if self._address.password_file is None:
            return self._address.password
        try:
            return read_password(Path(self._address.password_file))
        except ValueError as error:
            logger.bind(cause=f"{self._address.password_file}: {error}").warning("the password for etcd can't be read")
            return self._address.password

    def _states(self) -> _FileStates:
        return tuple(_state_of(path) for path in self._files)


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def _channel_credentials(address: EtcdAddress) -> Any:
    if address.ca_file is None and not address.tls:
        return None
    authorities = _read("ca_file", address.ca_file) if address.ca_file else _authorities_of_this_machine()
    key, certificate = _read("key_file", address.key_file), _read("cert_file", address.cert_file)
    if address.cert_file is not None:
        _check_pair(address.cert_file, address.key_file)
    return grpc.ssl_channel_credentials(root_certificates=authorities, private_key=key, certificate_chain=certificate)


def _check_pair(cert_file: str, key_file: str | None) -> None:
    """gRPC says nothing useful about a certificate and a key that don't belong together."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert_file, key_file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(f"etcd: cert_file {cert_file} and key_file {key_file} can't be used: {reason}") from error


def _authorities_of_this_machine() -> bytes | None:
    """None: gRPC uses its own list."""
    for path in (ssl.get_default_verify_paths().cafile, *_BUNDLES):
        if path and Path(path).is_file():
            return Path(path).read_bytes()
    return None


def _read(setting: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"etcd: {setting} {path}: {error.strerror}") from error
    if b"-----BEGIN" not in content:
        raise ConfigError(f"etcd: {setting} {path} is not a PEM file")
    return content
