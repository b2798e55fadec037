"""The application without a socket: one request in, one answer out."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from outrider.service.payloads.folder import PayloadFolder
from tests.sim.fake_etcd import FakeCluster
from tests.support.applications import new_application


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back; names of headers are in lower case. ``cookies``: each ``Set-Cookie``."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: tuple[str, ...] = ()


def application_over(client: FakeCluster, folder: Path, *, prepare: bool = True, **options: Any) -> FastAPI:
    """The application over an etcd in memory. ``prepare``: payloads can be stored in ``folder``."""
    payloads = PayloadFolder(folder=folder)
    if prepare:
        payloads.prepare()
    return new_application(client, payloads, **options)


def ask(application: ASGIApp, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """One request, as a command makes it at the Unix socket."""
    return asyncio.run(ask_in_loop(application, method, path, body, at_socket=True, **headers))


async def ask_in_loop(
    application: ASGIApp,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    scheme: str = "http",
    at_socket: bool = True,
    **headers: str,
) -> Answer:
    """As ``ask``, for who has a loop already. ``at_socket``: as a command makes it at the Unix socket."""
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    where, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": where,
        "raw_path": where.encode(),
        "query_string": query.encode(),
        "headers": [
            (name.encode(), value.encode("latin-1")) for name, value in ({"host": "localhost"} | named).items()
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {"outrider_peer_uid": os.geteuid()} if at_socket else {},
    }
    incoming = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent: list[Message] = []

    answered = asyncio.Event()

    async def receive() -> Message:
        if (message := next(incoming, None)) is not None:
            return message
        await answered.wait()  # the client stays until it has its answer
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            answered.set()

    # A task of its own, as a server gives each request: what it sets for itself ends with it.
    await asyncio.ensure_future(application(scope, receive, send))
    start, *parts = sent
    return Answer(
        status=start["status"],
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]},
        cookies=tuple(value.decode() for name, value in start["headers"] if name == b"set-cookie"),
        body=b"".join(part.get("body", b"") for part in parts),
    )
