"""One connection to the service, below HTTP: who is at its other end.

Built on uvicorn's own protocol over h11. What is found out here reaches the application as ``scope["state"]``.
"""

import asyncio
import os
import socket

from loguru import logger
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from outrider import unix_sockets

_PEER = "outrider_peer_uid"


def peer_of(scope: Scope) -> int | None:
    """The user at the other end of the Unix socket; None: the request came over the network."""
    uid = scope.get("state", {}).get(_PEER)
    return uid if isinstance(uid, int) else None


class Connection(H11Protocol):
    """One connection. At the Unix socket the kernel says whose it is; a stranger's is closed at once."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connected: socket.socket | None = transport.get_extra_info("socket")
        if connected is None or connected.family != socket.AF_UNIX:
            return
        uid = unix_sockets.peer_uid(connected)
        if uid not in (0, os.geteuid()):
            # the file's mode keeps others out already, unless somebody has changed it
            logger.bind(uid=uid).warning("connection to the Unix socket by another user refused")
            transport.abort()
            return
        self.app_state = {**self.app_state, _PEER: uid}
