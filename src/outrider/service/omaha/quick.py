"""``POST /v1/update`` without a task and a thread for each request.

Check-ins that change nothing are answered at once, in the event loop; the others wait in their group's batch, and are
answered when that is committed. Whatever isn't the usual is the endpoint's business.
"""

import asyncio
import hmac
from collections.abc import Callable
from time import monotonic

from loguru import logger
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from outrider.core.errors import OmahaError, OutriderError
from outrider.core.omaha import (
    MAX_REQUEST_BYTES,
    AppAnswer,
    OmahaRequest,
    OmahaResponse,
    parse_request,
    render_response,
)
from outrider.service.admission import ANSWER_S, BUSY_S
from outrider.service.context import Context, base_url_in
from outrider.service.http1 import Answer, Pending
from outrider.service.omaha.endpoint import count_checkins, late, not_answered, written
from outrider.service.rollouts.checkins import Caller
from outrider.service.rollouts.identity import HEADER, read_claim
from outrider.service.rollouts.quick import Later, QuickCheckins

_PATH = "/v1/update"
_XML = b"content-type: text/xml\r\n"
Done = Callable[[Answer | None], None]


class QuickEndpoint:
    """Answers what it can at once."""

    def __init__(self, context: Context, checkins: QuickCheckins) -> None:
        self._context, self._checkins = context, checkins
        self._tasks: set[asyncio.Task[None]] = set()

    def is_for(self, scope: Scope) -> bool:
        """Whether this is a check-in, by method and address."""
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        # what announces too much, or nothing, is refused before it is read: by the endpoint
        if scope["query_string"]:  # such as cup2key: that answer is signed
            return False
        if scope["method"] != "POST" or not announced.isdigit() or int(announced) > MAX_REQUEST_BYTES:
            return False
        path, secret = scope["path"].removesuffix("/"), self._context.omaha_secret
        if secret is None:
            return bool(path == _PATH)
        given = path.removeprefix(f"{_PATH}/").encode("utf-8", "surrogateescape")
        return path.startswith(f"{_PATH}/") and hmac.compare_digest(given, secret.encode())

    def begin(self, scope: Scope, headers: Headers, body: bytes, pending: Pending, done: Done) -> Answer | bool | None:
        """Answer a whole request; True: ``done`` is told the answer in the event loop; None: the endpoint must."""
        asked = self._read(scope, headers, body)
        if asked is None:
            return None
        request, caller = asked
        response = self._checkins.at_once(request, caller)
        if isinstance(response, OmahaResponse):
            text = self._written(request, caller, response)
            return None if text is None else (200, _XML, text)
        if isinstance(response, Later):
            self._waits_for(asyncio.get_running_loop().create_task(self._later(request, caller, pending, done)))
            return True
        return True if self._submit(request, caller, pending, done) else None

    async def _later(self, request: OmahaRequest, caller: Caller, pending: Pending, done: Done) -> None:
        """As ``begin``, when the copy has come to what the client has seen; or it hasn't, in time."""
        response = await self._checkins.answer(request, caller)
        if not pending.is_wanted():
            return
        text = None if response is None else self._written(request, caller, response)
        if text is not None:
            done((200, _XML, text))
        elif not self._submit(request, caller, pending, done):
            done(None)

    def _waits_for(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _submit(self, request: OmahaRequest, caller: Caller, pending: Pending, done: Done) -> bool:
        """Let it be decided in a batch."""
        loop, came = asyncio.get_running_loop(), monotonic()
        try:
            count_checkins(self._context, request, caller)
        except OutriderError:
            return False

        def finish(answer: Answer | None) -> None:
            timer.cancel()
            if pending.is_wanted():
                done(answer)

        def told(outcome: Callable[[], AppAnswer | None]) -> None:
            answer: Answer | None
            try:
                app = outcome()
                response = None if app is None else OmahaResponse(apps=(app,))
                answer = None if response is None else written(response, caller, is_busy=monotonic() - came > BUSY_S)
            except OutriderError as error:
                answer = not_answered(error, caller)
            except Exception as error:  # noqa: BLE001 - it is logged where it was raised
                logger.bind(address=caller.address, cause=repr(error)).error("omaha request not answered")
                answer = 500, b"content-type: text/plain\r\n", b"internal error\n"
            try:
                loop.call_soon_threadsafe(finish, answer)
            except RuntimeError:  # the service has ended, and with it the connection
                return

        timer = loop.call_later(ANSWER_S, lambda: finish(late()))
        if self._context.checkins.submit(request, caller, told, pending.is_wanted):
            return True
        timer.cancel()
        return False

    async def answer(self, scope: Scope, body: bytes) -> Response | None:
        """As ``at_once``, but a copy that is a moment behind is waited for."""
        asked = self._read(scope, Headers(scope=scope), body)
        if asked is None:
            return None
        request, caller = asked
        response = await self._checkins.answer(request, caller)
        text = None if response is None else self._written(request, caller, response)
        return None if text is None else Response(text, headers={"Content-Type": "text/xml"})

    def _read(self, scope: Scope, headers: Headers, body: bytes) -> tuple[OmahaRequest, Caller] | None:
        if len(body) > MAX_REQUEST_BYTES:
            return None
        client = scope.get("client")
        claim = read_claim(headers.get(HEADER, ""), None)
        try:
            request = parse_request(body)
        except OmahaError:
            return None
        if len(request.apps) > self._context.limits.max_apps_per_request:
            return None
        base_url = base_url_in(self._context, scope, headers)
        return request, Caller(address=client[0] if client else "", base_url=base_url, claim=claim)

    def _written(self, request: OmahaRequest, caller: Caller, response: OmahaResponse) -> bytes | None:
        try:
            count_checkins(self._context, request, caller)
        except OutriderError:
            return None
        for told in response.apps:
            logger.bind(app=told.app_id, address=caller.address).debug("no update, from the read model")
        return render_response(response)
