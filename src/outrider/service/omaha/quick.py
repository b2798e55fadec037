"""``POST /v1/update`` in the event loop, for check-ins that change nothing; the others go on to the endpoint.

It refuses nothing and says nothing of errors: whatever isn't the usual is the endpoint's business.
"""

import hmac

from loguru import logger
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from outrider.core.errors import OmahaError, OutriderError
from outrider.core.omaha import MAX_REQUEST_BYTES, OmahaRequest, OmahaResponse, parse_request, render_response
from outrider.service.context import Context
from outrider.service.omaha.endpoint import count_checkins
from outrider.service.rollouts.checkins import Caller
from outrider.service.rollouts.identity import HEADER, read_claim
from outrider.service.rollouts.quick import QuickCheckins

_PATH = "/v1/update"


class QuickEndpoint:
    """Answers what it can at once."""

    def __init__(self, context: Context, checkins: QuickCheckins) -> None:
        self._context, self._checkins = context, checkins

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

    def at_once(self, scope: Scope, headers: Headers, body: bytes) -> bytes | None:
        """Answer a whole request without waiting; None: it needs more than a look."""
        asked = self._read(scope, headers, body)
        if asked is None:
            return None
        request, caller = asked
        response = self._checkins.at_once(request, caller)
        return self._written(request, caller, response) if isinstance(response, OmahaResponse) else None

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
        # an answer without an update names no address of ours
        claim = read_claim(headers.get(HEADER, ""), None)
        try:
            request = parse_request(body)
        except OmahaError:
            return None
        if len(request.apps) > self._context.limits.max_apps_per_request:
            return None
        return request, Caller(address=client[0] if client else "", base_url="", claim=claim)

    def _written(self, request: OmahaRequest, caller: Caller, response: OmahaResponse) -> bytes | None:
        try:
            count_checkins(self._context, request, caller)
        except OutriderError:
            return None
        for told in response.apps:
            logger.bind(app=told.app_id, address=caller.address).debug("no update, from the read model")
        return render_response(response)
