"""ASGI middleware before all others: whose request it is, how often, how large, and whether anybody still waits for it.

Refusals name the limit. What they cost is a header and one look into a table.
"""

import asyncio
import math
from contextlib import suppress

from loguru import logger
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.service.connections import UPLOADS, peer_of
from outrider.service.context import GONE
from outrider.service.limits import Buckets, Limits, Network, bucket_of, forwarded_address, option_of
from outrider.service.omaha.quick import QuickEndpoint
from outrider.service.problems import problem
from outrider.service.web.paths import is_page

API = "/api/"
COREUPDATE = ("/_ah/", "/package-upload", "/db/backup", "/admin/v1/init")
_COUNTED = ("/api/", "/v1/update", "/metrics", *COREUPDATE)
_FOUND, _COUNTS = "outrider_client_found", "outrider_counted"
"""Marks in the state of a request: its client is known, and it was counted."""


class ClientRules:
    """Whose request it is, and how often each may ask."""

    def __init__(self, limits: Limits, proxies: tuple[Network, ...]) -> None:
        self._proxies = proxies
        self._buckets = Buckets(limits.max_requests_per_s, limits.max_burst)

    def find_client(self, scope: Scope, headers: Headers) -> None:
        """Put the client's own address into the scope, where a trusted proxy names it."""
        client = scope.get("client")
        if client is None or not self._proxies or _FOUND in scope["state"]:
            return
        scope["state"][_FOUND] = True
        address = forwarded_address(client[0], ",".join(headers.getlist("x-forwarded-for")), self._proxies)
        if address == client[0]:
            return
        scope["client"] = (address, 0)
        if headers.get("x-forwarded-proto", "").lower() in ("http", "https"):
            scope["scheme"] = headers["x-forwarded-proto"].lower()

    def wait_s(self, scope: Scope, path: str) -> float:
        """Count the request, once; 0, or the seconds after which its address may ask again."""
        state = scope["state"]
        is_counted = path.startswith(_COUNTED) or is_page(path)
        if not is_counted or _COUNTS in state or peer_of(scope) is not None:
            return 0.0
        wait_s = self._buckets.take(bucket_of(scope["client"][0] if scope.get("client") else ""))
        if not wait_s:
            state[_COUNTS] = True
        return wait_s


class Inlet:
    """Knows each client's address, refuses what is too often or too large, and stops work that nobody waits for."""

    def __init__(
        self,
        application: ASGIApp,
        limits: Limits,
        rules: ClientRules,
        quick: QuickEndpoint | None = None,
    ) -> None:
        """``quick``: answers some requests at once."""
        self._quick, self._rules = quick, rules
        self._application, self._limits = application, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope.setdefault("state", {})
        self._rules.find_client(scope, headers)
        path: str = scope["path"]
        refusal = self._too_often(scope, path)
        most = self._limits.max_upload_bytes if path in UPLOADS else self._limits.max_json_bytes
        name = "max_upload_bytes" if path in UPLOADS else "max_json_bytes"
        announced = headers.get("content-length", "")
        is_api = path.startswith((API, *COREUPDATE))  # Omaha has a limit of its own
        too_large = f"more than {most} bytes ({option_of(name)})"
        if refusal is None and is_api and announced.isdigit() and int(announced) > most:
            refusal = _refusal(413, "too-large", too_large, path)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if self._quick is not None and self._quick.is_for(scope):
            first = await receive()
            if first["type"] == "http.request" and not first.get("more_body", False):
                answer = await self._quick.answer(scope, first.get("body", b""))
                if answer is not None:
                    await answer(scope, receive, send)
                    return
            receive = _beginning_with(first, receive)
        body = _Body(receive, most if is_api else math.inf)
        scope["state"][GONE] = body.gone
        await self._while_wanted(scope, body, send, too_large)

    def _too_often(self, scope: Scope, path: str) -> Response | None:
        wait_s = self._rules.wait_s(scope, path)
        if not wait_s:
            return None
        most, address = self._limits.max_requests_per_s, scope["client"][0] if scope.get("client") else ""
        why = f"more than {most} requests per second from {address} ({option_of('max_requests_per_s')}); come later"
        return _refusal(429, "throttled", why, path, after_s=math.ceil(wait_s) + 1)

    async def _while_wanted(self, scope: Scope, body: "_Body", send: Send, too_large: str) -> None:
        """Run the application until it is done, or its client is gone."""
        begun = False

        async def noting_send(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                if body.is_too_large:
                    return
                begun = True
            if begun:
                body.is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)
                await send(message)

        work = asyncio.ensure_future(self._application(scope, body.receive, noting_send))
        gone = asyncio.ensure_future(body.gone.wait())
        body.begin(scope["method"])
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                # a thread that is at work finishes: nothing is left half done
                with suppress(asyncio.CancelledError):
                    await work
                logger.bind(path=scope["path"]).debug("client gone, work stopped")
            elif not body.is_too_large:
                await work
        finally:
            gone.cancel()
            body.close()
            if not work.done():
                work.cancel()
        if body.is_too_large and not begun:
            with suppress(Exception):
                work.exception()
            await _refusal(413, "too-large", too_large, scope["path"])(scope, body.receive, send)


def _beginning_with(first: Message, receive: Receive) -> Receive:
    """``receive`` once more from ``first``, which was taken from it already."""
    waiting = [first]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


class _Body:
    """The request's body on its way to the application, and the news that the client is gone."""

    def __init__(self, receive: Receive, most: float) -> None:
        self._receive, self._most, self._bytes = receive, most, 0
        self._waiting: asyncio.Future[Message] | None = None
        self._first: asyncio.Future[Message] | None = None
        self.gone = asyncio.Event()
        self.is_too_large = self.is_answered = False

    def begin(self, method: str) -> None:
        """Listen for the end of the connection from the start, where no body is to come."""
        if method in ("GET", "HEAD", "DELETE", "OPTIONS"):
            self._first = asyncio.ensure_future(self._next())

    async def receive(self) -> Message:
        """The application's ``receive``."""
        if self._first is not None:
            first, self._first = self._first, None
            return await first
        if self._waiting is not None:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        return await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone.set()
            return message
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            self.is_too_large = True
            return {"type": "http.disconnect"}
        if not message.get("more_body", False) and self._waiting is None:
            self._waiting = asyncio.ensure_future(self._listen())
        return message

    async def _listen(self) -> Message:
        message = await self._receive()
        if not self.is_answered:  # afterwards nobody needs to wait
            self.gone.set()
        return message

    def close(self) -> None:
        for task in (self._first, self._waiting):
            if task is not None:
                task.cancel()


def _refusal(status: int, kind: str, why: str, path: str, *, after_s: int | None = None) -> Response:
    headers = {} if after_s is None else {"Retry-After": str(after_s), "X-Retry-After": str(after_s)}
    if status == 413:
        headers["Connection"] = "close"
    if path.startswith(API):
        return problem(status, kind, why, headers)
    return PlainTextResponse(f"{why}\n", status_code=status, headers=headers)
