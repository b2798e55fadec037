"""TLS of the service: a certificate that is read again when its files change, without a restart.

Each handshake takes the newest context, so that what is renewed counts from the next connection on, and what is removed
from the clients' authorities no longer counts. Files that can't be used keep what was loaded before.
"""

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from outrider.core.errors import ConfigError

LOOK_S = 10.0
"""Between two looks at the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where certificate and key are.

    Attributes:
        client_ca: PEM file of the authorities of clients' certificates; None: clients need none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def load(self) -> ssl.SSLContext:
        """A context with what the files hold now.

        Raises:
            ConfigError: one can't be read or used, or the key is another certificate's.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        for option, path in (
            ("--tls-cert", self.certificate),
            ("--tls-key", self.key),
            ("--tls-client-ca", self.client_ca),
        ):
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigError(f"{option} {path}: " + ("can't be read" if path.exists() else "no such file"))
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except ssl.SSLError as error:
            reason = {
                "KEY_VALUES_MISMATCH": f"does not belong to --tls-key {self.key}",
                "NO_START_LINE": "is not a certificate in PEM, or the key isn't one",
            }.get(error.reason or "", f"it, or --tls-key, can't be used ({error.reason or error})")
            raise ConfigError(f"--tls-cert {self.certificate}: {reason}") from error
        except OSError as error:
            raise ConfigError(f"--tls-cert {self.certificate}: {error.strerror or error}") from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (ssl.SSLError, OSError) as error:
                raise ConfigError(f"--tls-client-ca {self.client_ca}: not a PEM file of certificates") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @property
    def state(self) -> tuple[object, ...]:
        """Another one when a file has changed."""
        found: list[object] = []
        for path in (self.certificate, self.key, self.client_ca):
            try:
                status = None if path is None else path.stat()
            except OSError:
                status = None
            found.append(None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)


class Tls:
    """The context for a server, and the newest one behind it. Safe to use from several threads."""

    def __init__(self, files: TlsFiles) -> None:
        """Load.

        Raises:
            ConfigError: as ``TlsFiles.load``.
        """
        self._files, self._state = files, files.state
        self._newest = files.load()
        self._mutex = threading.Lock()
        self.context = files.load()
        self.context.sni_callback = self._choose

    def look(self, *, again: bool = False) -> bool:
        """Load again when a file has changed, or ``again`` in any case; whether something new counts now."""
        with self._mutex:
            state = self._files.state
            if state == self._state and not again:
                return False
            self._state = state
            try:
                self._newest = self._files.load()
            except ConfigError as problem:
                logger.bind(cause=str(problem)).error("certificate not read again; the one before stays")
                return False
        logger.bind(file=str(self._files.certificate)).info("certificate read again")
        return True

    @contextmanager
    def followed(self, interval_s: float = LOOK_S) -> Iterator[None]:
        """Look at the files now and then."""
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(interval_s):
                self.look()

        thread = threading.Thread(target=follow, name="certificates", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, first: ssl.SSLContext) -> None:
        """Called in each handshake, also of clients that name no server."""
        connection.context = self._newest
