"""Runs the application: one uvicorn, sockets that we bind ourselves, one line when it serves."""

import contextlib
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

import uvicorn
from fastapi import FastAPI
from loguru import logger

from outrider.core.errors import ConfigError
from outrider.service.connections import connections_within
from outrider.service.context import Context
from outrider.service.rollouts.controller import rollout_controller
from outrider.service.rollouts.epoch import epoch_renewal
from outrider.service.rollouts.expiry import stranger_expiry
from outrider.service.tls import Tls
from outrider.service.web.application import Web

OTHER_FILES = 256
"""Payloads, etcd, webhooks, logs."""
GRACE_S = 3
"""Time for open requests after SIGTERM; an Omaha answer takes milliseconds, and a download resumes elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where to listen; port 0: a free port."""

    host: str
    port: int


def parse_listen(text: str) -> Listen:
    """Read ``HOST:PORT``; an IPv6 address needs brackets, and the default host is 127.0.0.1.

    Raises:
        ConfigError: the port is missing, or not 0 to 65535.
    """
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or "/" in host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ConfigError(f"listen {text!r}: write HOST:PORT, for example 127.0.0.1:8000")
    return Listen(host=host or "127.0.0.1", port=int(port))


def bind(listen: Listen) -> socket.socket:
    """Bind the service's socket.

    Raises:
        ConfigError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        return socket.create_server((listen.host, listen.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that can't be looked up at all, such as a..b
        # strerror already says "Address already in use"; a failed look-up of the name has its own words
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"listen {listen.host}:{listen.port}: {reason}") from error


def address_of(bound: socket.socket, scheme: str = "http") -> str:
    """The bound address as a URL."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def local_address_of(bound: socket.socket, scheme: str = "http") -> str:
    """The bound address as a URL for who is on this machine."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://localhost:{port}" if host in ("0.0.0.0", "::") else address_of(bound, scheme)  # noqa: S104


class _HttpServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, web: Web, on_ready: Callable[[], None], tls: Tls | None = None) -> None:
        super().__init__(config)
        self._on_ready, self._tls, self._web = on_ready, tls, web

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is None or sockets is None:
            await super().startup(sockets)
        else:
            await self._start_with_tls(self._tls, sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # pages follow without end, and nothing is lost when they come back
        self._web.live.end()
        await super().shutdown(sockets)

    async def _start_with_tls(self, tls: Tls, sockets: list[socket.socket]) -> None:
        """TLS for what leaves the machine; a Unix socket is proved by its peer."""
        local = [one for one in sockets if one.family == socket.AF_UNIX]
        servers = []
        if local:
            await super().startup(local)
            servers = self.servers
        self.config.ssl = tls.context
        await super().startup([one for one in sockets if one not in local])
        self.servers = [*servers, *self.servers]


def configuration(application: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the application."""
    limits = application.state.context.limits
    return uvicorn.Config(
        application,
        http=connections_within(limits, application.state.shortcut),
        loop="auto",  # uvloop, where it is installed
        # whose word about a client's address counts, the inlet decides
        proxy_headers=False,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=limits.max_idle_s,
    )


def _open_files_for(connections: int) -> None:
    """Let this process hold so many connections beside its other files; a shell's limit is often 1024."""
    wanted = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        logger.bind(open_files=hard, wanted=wanted).warning("too few open files for all connections (LimitNOFILE)")
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def serve(
    application: FastAPI, bound: Sequence[socket.socket], on_ready: Callable[[], None], tls: Tls | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then return within ``GRACE_S`` seconds; ``on_ready`` runs once it answers.

    While it serves, the rollout controller runs too. With ``tls``, SIGHUP reads the certificate again.
    """

    def end(number: int, frame: FrameType | None) -> None:
        # uvicorn raises the signal again after its shutdown; the end was requested, so the exit code is 0.
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if tls is not None:
        signal.signal(signal.SIGHUP, lambda *_: tls.look(again=True))
    context: Context = application.state.context
    _open_files_for(context.limits.max_connections)
    try:
        with (
            rollout_controller(
                context.stores.context,
                context.checkins.group_lock,
                model=context.read_model,
                destinations=context.analysis_destinations,
            ),
            epoch_renewal(context.stores.context),
            stranger_expiry(context.stores.context, context.limits),
            contextlib.nullcontext() if context.read_model is None else context.read_model.running(),
            application.state.touches.running(),
            contextlib.nullcontext() if tls is None else tls.followed(),
        ):
            _HttpServer(configuration(application), application.state.web, on_ready, tls).run(sockets=list(bound))
    finally:
        for each in bound:
            each.close()
