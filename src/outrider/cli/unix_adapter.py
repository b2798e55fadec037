"""requests over the update service's Unix socket."""

from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError

from outrider import unix_sockets


class _Connection(HTTPConnection):
    socket_path: Path

    def _new_conn(self) -> Any:
        timeout_s = self.timeout if isinstance(self.timeout, int | float) else None
        try:
            return unix_sockets.connect(self.socket_path, timeout_s)
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error


class UnixAdapter(HTTPAdapter):
    """Sends every request through one Unix socket, whatever host its address names."""

    def __init__(self, path: Path) -> None:
        super().__init__(max_retries=0)
        connection = type("UnixConnection", (_Connection,), {"socket_path": path})
        self._pool = HTTPConnectionPool("localhost", maxsize=1)
        self._pool.ConnectionCls = connection

    def get_connection_with_tls_context(self, *args: Any, **keywords: Any) -> Any:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()
