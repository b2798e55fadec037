"""One HTTP request of the Omaha client: bounded in time as a whole, never redirected, its failures named."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from outrider.core.errors import DriverError, Unknown


@contextmanager
def exchange(
    url: str,
    body: bytes,
    *,
    timeout_s: float,
    user_agent: str,
    content_type: str = "text/xml; charset=utf-8",
    verify: bool | str = True,
) -> Iterator[requests.Response]:
    """POST ``body`` on a connection of its own; the response's body is still to be read, inside the ``with``.

    ``verify`` is what proves a TLS server: the machine's authorities, a PEM file of others, or nothing (False).

    Raises:
        DriverError: the request was never sent: no connection, or one that TLS refuses.
        Unknown: it was sent, and no whole answer came within ``timeout_s`` seconds. Reading the body inside the
            ``with`` block fails in the same ways.
    """
    headers = {
        "Content-Type": content_type,
        "User-Agent": user_agent,
        "Accept": "text/xml, application/xml",
        # No decoder, so no few bytes that unpack to gigabytes.
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    with requests.Session() as session, _Deadline(timeout_s) as deadline:
        # Nothing reads the environment after start (proxies, .netrc).
        session.trust_env = False
        session.verify = verify
        session.mount("http://", deadline)
        session.mount("https://", deadline)
        try:
            with session.post(
                url, data=body, headers=headers, timeout=timeout_s, allow_redirects=False, stream=True
            ) as response:
                yield response
            if deadline.passed:
                # Cut off by us, a body without a stated length looks complete.
                raise TimeoutError
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if deadline.passed:
                raise Unknown(f"{url}: no whole answer within {timeout_s:g} s") from error
            if _never_sent(error):
                raise DriverError(f"{url}: can't connect: {_innermost(error)}") from error
            raise Unknown(f"{url}: no answer: {_innermost(error)}") from error


class _Deadline(HTTPAdapter):
    """Ends a request as a whole when its time is up.

    requests' own timeout counts anew with every read, so a peer that sends a byte now and then would hold us forever.
    """

    def __init__(self, timeout_s: float) -> None:
        super().__init__(max_retries=0)
        self.passed = False
        self._timeout_s = timeout_s
        self._connections: list[Any] = []
        self._sockets: list[socket.socket] = []
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="upstream-deadline", daemon=True)

    def __enter__(self) -> "_Deadline":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    def get_connection_with_tls_context(self, *args: Any, **keywords: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **keywords)
        make = pool.ConnectionCls

        def make_and_remember(*made_args: Any, **made_keywords: Any) -> Any:
            connection = make(*made_args, **made_keywords)
            self._remember(connection)
            return connection

        pool.ConnectionCls = make_and_remember
        return pool

    def _remember(self, connection: Any) -> None:
        connect = connection.connect

        def connect_and_remember() -> None:
            connect()
            # http.client lets go of the socket, but reads on, when the body's length isn't stated.
            self._sockets.append(connection.sock)

        connection.connect = connect_and_remember
        self._connections.append(connection)

    def _watch(self) -> None:
        delay_s = self._timeout_s
        while not self._done.wait(delay_s):
            self.passed = True
            # Again and again: a connection that is only being made has no socket yet.
            delay_s = 0.1
            for sock in (*self._sockets, *(connection.sock for connection in self._connections)):
                if sock is not None:
                    # Not ssl's own shutdown, which isn't meant to be called beside a read.
                    with suppress(OSError):
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def read_body(response: requests.Response, limit: int) -> bytes:
    """Read a body as it was sent; of one that is longer than ``limit`` bytes, one byte more than that."""
    body = bytearray()
    # Until nothing comes: only that read tells an end from a connection that was cut.
    while len(body) <= limit and (piece := response.raw.read(limit + 1 - len(body), decode_content=False)):
        body += piece
    return bytes(body)


def _never_sent(error: BaseException) -> bool:
    unsent = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        urllib3.exceptions.SSLError,
        urllib3.exceptions.LocationParseError,
        requests.exceptions.InvalidURL,
    )
    return any(isinstance(cause, unsent) for cause in _causes(error))


def _innermost(error: BaseException) -> str:
    """The words of the operating system, not the chain of library objects around them."""
    causes = list(_causes(error))
    text = next((cause.strerror for cause in reversed(causes) if isinstance(cause, OSError) and cause.strerror), None)
    return text or str(causes[-1])[:200] or type(causes[-1]).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseException) and all(one is not other for other in seen):
            seen.append(one)
            yield one
            todo += [getattr(one, "reason", None), *one.args, one.__cause__, one.__context__]
