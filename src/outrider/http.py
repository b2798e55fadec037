"""HTTP requests that end in time as a whole, and the one GET for what an app or a balancer tells about itself.

requests' own timeout counts anew with every read, so a peer that sends a byte now and then would hold us forever. A
session with a ``Deadline`` mounted has its sockets shut down when the time is up, whatever it waits for.

Proxies and credentials in the environment are left alone: these addresses are on our own machines, and a proxy in
between would answer for itself.
"""

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter
from urllib3 import disable_warnings
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from outrider.core.errors import DriverError

MAX_BYTES = 4 * 1024 * 1024
"""More than any of these answers is long; a service of 10 000 servers is about 1 MB in Traefik's API."""

JSON: Mapping[str, str] = {"Accept": "application/json"}
_HEADERS: Mapping[str, str] = {"Accept-Encoding": "identity", "Connection": "close"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: the HTTP status and the body, or of a longer one than was allowed one byte more than that."""

    status: int
    body: bytes


class NoAnswer(DriverError):
    """No whole answer came. ``str()`` is the reason in the words of the network library or the system."""

    kind: ClassVar[str] = "no-answer"


class OutOfTime(NoAnswer):
    """No whole answer came in time."""


def get(
    url: str,
    *,
    timeout_s: float,
    max_bytes: int = MAX_BYTES,
    headers: Mapping[str, str] = JSON,
    verify: bool | str = True,
    server_name: str = "",
) -> Answer:
    """GET ``url`` once, on a connection of its own, without following redirects.

    Args:
        timeout_s: For all of it, from the connection to the last byte.
        max_bytes: Of a longer body one byte more than that is read, to tell it from one that is as long.
        verify: Of https, whether the server's certificate is checked, or the PEM file of its authorities.
        server_name: Of https, the name that is asked for and that the certificate must have; else the URL's host.

    Raises:
        OutOfTime: it wasn't done after ``timeout_s`` seconds.
        NoAnswer: unreachable, broken off, or not HTTP.
    """
    if verify is False:
        # An operator has asked for it; urllib3 would warn on stderr with each request.
        disable_warnings(InsecureRequestWarning)
    with requests.Session() as session, Deadline(timeout_s, server_name) as deadline:
        session.trust_env = False
        session.mount("http://", deadline)
        session.mount("https://", deadline)
        try:
            with session.get(
                url,
                timeout=timeout_s,
                allow_redirects=False,
                stream=True,
                headers={**_HEADERS, **headers},
                verify=verify,
            ) as response:
                body = read_body(response, max_bytes)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            if deadline.passed or isinstance(error, requests.Timeout):
                raise OutOfTime(f"no answer in {timeout_s:g} s") from error
            raise NoAnswer(str(error)) from error
        # cut off by us, a body without a stated length looks complete
        if deadline.passed:
            raise OutOfTime(f"no answer in {timeout_s:g} s")
        return Answer(status=response.status_code, body=body)


def ask(url: str, *, timeout_s: float) -> Answer | None:
    """As ``get``; None when there was no answer, or one that is longer than ``MAX_BYTES``."""
    try:
        answer = get(url, timeout_s=timeout_s)
    except NoAnswer:
        return None
    return answer if len(answer.body) <= MAX_BYTES else None


class Deadline(HTTPAdapter):
    """Ends a request as a whole when its time is up.

    requests' own timeout counts anew with every read, so a peer that sends a byte now and then would hold us forever.
    """

    def __init__(self, timeout_s: float, server_name: str = "") -> None:
        super().__init__(max_retries=0)
        self.passed = False
        self._server_name = server_name
        self._timeout_s = timeout_s
        self._connections: list[Any] = []
        self._sockets: list[socket.socket] = []
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="http-deadline", daemon=True)

    def __enter__(self) -> "Deadline":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    def get_connection_with_tls_context(self, *args: Any, **keywords: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **keywords)
        if self._server_name and pool.scheme == "https":
            pool.assert_hostname = self._server_name
            pool.conn_kw["server_hostname"] = self._server_name
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
