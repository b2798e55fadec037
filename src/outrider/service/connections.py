"""One connection to the service, below HTTP: who is at its other end, and how long it may keep us waiting.

Built on uvicorn's own protocol over h11. What is found out here reaches the application as ``scope["state"]``.

A connection is either served, or we wait for its client: for a header, for a body, or until it has read what we sent.
Waiting has a limit. When there are as many connections as may be, a new one takes the place of the one for which we
have waited longest: so connections that say nothing, or a byte now and then, keep nobody out.
"""

import asyncio
import os
import socket
from typing import Any, ClassVar, Literal

import h11
from loguru import logger
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from outrider import unix_sockets
from outrider.service.limits import Limits, option_of

_PEER = "outrider_peer_uid"
UPLOADS = "/api/v1/payloads"
WINDOW_BYTES = 64 * 1024
"""An upload may take long, but so much of it comes in each ``max_body_s``."""
STALLED_S = 60.0
"""A client that has read nothing for so long makes room for a new one before those that read."""

Phase = Literal["header", "body", "served"]


def peer_of(scope: Scope) -> int | None:
    """The user at the other end of the Unix socket; None: the request came over the network."""
    uid = scope.get("state", {}).get(_PEER)
    return uid if isinstance(uid, int) else None


class Connection(H11Protocol):
    """One connection. At the Unix socket the kernel says whose it is; a stranger's is closed at once."""

    limits: ClassVar[Limits] = Limits()

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._phase: Phase = "header"
        self._timer: asyncio.TimerHandle | None = None
        self._received_bytes = 0
        self.waiting_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connected: socket.socket | None = transport.get_extra_info("socket")
        if connected is not None and connected.family == socket.AF_UNIX:
            uid = unix_sockets.peer_uid(connected)
            if uid not in (0, os.geteuid()):
                # the file's mode keeps others out already, unless somebody has changed it
                logger.bind(uid=uid).warning("connection to the Unix socket by another user refused")
                transport.abort()
                return
            self.app_state = {**self.app_state, _PEER: uid}
        elif connected is not None:
            # header and body are two packets: without it the second waits for the client's delayed ACK, 40 ms; asyncio
            # sets it only where the listening socket names its protocol
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait_for("header", self.limits.max_header_s)
        if len(self.connections) > self.limits.max_connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            if self._phase != "header" or self._timer is None:  # the first byte of the next request
                self._wait_for("header", self.limits.max_header_s)
        elif self.cycle.more_body:
            if self._phase != "body":
                self._wait_for("body", self.limits.max_body_s)
        else:
            self._serve()

    def on_response_complete(self) -> None:
        self._serve()
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            # uvicorn ends a connection that stays silent; one that says a byte gets the time for a header
            self._phase, self.waiting_since = "header", self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._serve()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.waiting_since = self.loop.time() + STALLED_S

    def resume_writing(self) -> None:
        super().resume_writing()
        self.waiting_since = None

    def _serve(self) -> None:
        """It isn't the client's turn any more."""
        self._phase, self.waiting_since = "served", None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_for(self, phase: Phase, within_s: float) -> None:
        self._serve()
        self._phase, self.waiting_since = phase, self.loop.time()
        self._received_bytes = 0
        self._timer = self.loop.call_later(within_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._phase == "body" and self.scope["path"] == UPLOADS and self._received_bytes >= WINDOW_BYTES:
            self._wait_for("body", self.limits.max_body_s)
            return
        name = "max_header_s" if self._phase == "header" else "max_body_s"
        self._refuse(
            408, "Request Timeout", f"no whole {self._phase} within {getattr(self.limits, name)} s ({option_of(name)})"
        )

    def _make_room(self) -> None:
        """Close the connection for which we wait longest; this one, if we wait for none."""
        now = self.loop.time()
        waiting = [
            (each.waiting_since, id(each), each)
            for each in self.connections
            if isinstance(each, Connection) and each is not self and each.waiting_since is not None
            if each.waiting_since <= now
        ]
        longest = min(waiting)[2] if waiting else self
        many = f"{self.limits.max_connections} connections already ({option_of('max_connections')})"
        longest._refuse(503, "Service Unavailable", many)

    def _refuse(self, status: int, reason: str, why: str) -> None:
        """Say why, unless an answer has begun, and close. The application hears of a client that has gone."""
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not answering and self.conn.our_state is not h11.ERROR:
            body = f"{why}\n".encode()
            head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            self.transport.write(f"{head}Retry-After: 10\r\nConnection: close\r\n\r\n".encode() + body)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._serve()
        self.connections.discard(self)
        self.transport.close()


def connections_within(limits: Limits) -> type[Connection]:
    """The class of a service's connections."""
    return type("LimitedConnection", (Connection,), {"limits": limits})
