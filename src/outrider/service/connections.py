"""One connection to the service, below HTTP: who is at its other end, and how long it may keep us waiting.

How requests are read is in ``http1.py``. What is found out here reaches the application as ``scope["state"]``.

A connection is either served, or we wait for its client: for a header, for a body, or until it has read what we sent.
Waiting has a limit. When there are as many connections as may be, a new one takes the place of the one for which we
have waited longest: so connections that say nothing, or a byte now and then, keep nobody out.
"""

import asyncio
import os
import socket
from typing import Any, ClassVar, Literal

from loguru import logger
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from outrider import unix_sockets
from outrider.service.http1 import Shortcut, StrictProtocol
from outrider.service.limits import Limits, option_of

_PEER = "outrider_peer_uid"
UPLOADS = frozenset({"/api/v1/payloads", "/package-upload"})
WINDOW_BYTES = 64 * 1024
"""An upload may take long, but so much of it comes in each ``max_body_s``."""
STALLED_S = 60.0
"""A client that has read nothing for so long makes room for a new one before those that read."""


def is_upload(path: str) -> bool:
    """Whether a request for ``path`` may take long."""
    return path in UPLOADS or (path.startswith("/apps/") and path.endswith("/packages/upload"))


Phase = Literal["idle", "header", "body", "served"]


def peer_of(scope: Scope) -> int | None:
    """The user at the other end of the Unix socket; None: the request came over the network."""
    uid = scope.get("state", {}).get(_PEER)
    return uid if isinstance(uid, int) else None


class Connection(StrictProtocol):
    """One connection. At the Unix socket the kernel says whose it is; a stranger's is closed at once."""

    limits: ClassVar[Limits] = Limits()

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._phase: Phase = "header"
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        """When the phase ends; the timer may come earlier, and is set again then: most phases end much sooner."""
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
            # also the rest of a body whose answer was given without it
            if self.is_inside and self._phase != "header":
                self._wait_for("header", self.limits.max_header_s)
        elif self.cycle.more_body:
            if self._phase != "body":
                self._wait_for("body", self.limits.max_body_s)
        else:
            self._serve()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._serve()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.is_inside:
            self._wait_for("header", self.limits.max_header_s)
        else:
            self._wait_for("idle", self.limits.max_idle_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._serve()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.waiting_since = self.loop.time() + STALLED_S

    def resume_writing(self) -> None:
        super().resume_writing()
        self.waiting_since = None if self._phase == "served" else self.loop.time()

    def _serve(self) -> None:
        """It isn't the client's turn any more."""
        self._phase, self.waiting_since = "served", None

    def _wait_for(self, phase: Phase, within_s: float) -> None:
        now = self.loop.time()
        self._phase, self.waiting_since, self._received_bytes = phase, now, 0
        self._deadline = now + within_s
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(self._deadline, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._phase == "served" or self.transport.is_closing():
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._on_time)
            return
        self._too_slow()

    def _too_slow(self) -> None:
        if self._phase == "idle":
            self.transport.close()
            return
        if self._phase == "body" and is_upload(self.scope["path"]) and self._received_bytes >= WINDOW_BYTES:
            self._wait_for("body", self.limits.max_body_s)
            return
        name = "max_header_s" if self._phase == "header" else "max_body_s"
        self.refuse(408, f"no whole {self._phase} within {getattr(self.limits, name)} s ({option_of(name)})")

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
        longest.refuse(503, f"{self.limits.max_connections} connections already ({option_of('max_connections')})")

    def refuse(self, status: int, words: str) -> None:
        """Say why, unless an answer has begun, and close. The application hears of a client that has gone."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        is_open = cycle is not None and not cycle.response_complete
        # the rest of a body whose answer was given already is refused without a word: nothing more is awaited
        is_answered = cycle is not None and cycle.response_started and (is_open or cycle.more_body)
        if not is_answered:
            body = f"{words}\n".encode()
            head = (
                f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nRetry-After: 10\r\nConnection: close\r\n"
            )
            self.transport.write(STATUS_LINE[status] + head.encode() + b"\r\n" + body)
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self._serve()
        self.connections.discard(self)
        self.transport.close()


def connections_within(limits: Limits, shortcut: Shortcut | None = None) -> type[Connection]:
    """The class of a service's connections."""
    return type("LimitedConnection", (Connection,), {"limits": limits, "shortcut": shortcut})
