"""The auth middleware of the API: it admits a request, reads its precondition and answers with entity tags.

It is a layer around the whole application and decides by the path, not by the route: every endpoint below ``/api/`` is
behind it. Only the API's own description is open; Omaha, payloads and health are not below ``/api/``.

Without any user (readable or not), programs on this machine may do everything and other machines nothing. That is
enough to create the first user.
"""

import base64
import binascii
import ipaddress
import re
import uuid
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from outrider.core.errors import Forbidden, OutriderError, Unauthorized
from outrider.model.documents import Role, User
from outrider.model.keys import Keys
from outrider.service.api.etags import AnswerWithEtag, condition_of
from outrider.service.api.resources import resource_of
from outrider.service.context import admit
from outrider.service.problems import problem_of
from outrider.service.store.request import Principal, RequestContext, Seen
from outrider.service.store.users import KnownUsers, may

API = "/api/"
OPEN = frozenset({"/api/v1/openapi.json"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ADMINS_ALONE = re.compile(r"(?:[A-Z]+ /api/v1/(?:users|database)(?:/.*)?|DELETE /api/v1/apps/[^/]*)", re.DOTALL)
_APPROVERS_TOO = re.compile(r"POST /api/v1/apps/[^/]*/groups/[^/]*/rollout/(?:approve|reject)")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
MAX_DID = 1000
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def role_needed(method: str, path: str) -> Role:
    """The lowest role that may make the request."""
    if _ADMINS_ALONE.fullmatch(f"{method} {path}"):
        return "admin"
    if _APPROVERS_TOO.fullmatch(f"{method} {path}"):
        return "approver"
    return "viewer" if method in READING else "operator"


class AuthMiddleware:
    """ASGI middleware. ``open_to_all``: without users, other machines may do everything too."""

    def __init__(self, application: ASGIApp, known: KnownUsers, keys: Keys, *, open_to_all: bool = False) -> None:
        """Wrap ``application``."""
        self._application = application
        self._known = known
        self._keys = keys
        self._open_to_all = open_to_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(API) or scope["path"] in OPEN:
            await self._application(scope, receive, send)
            return
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        reading = method in READING
        resource = resource_of(self._keys, path)
        request_id, seen = _request_id(headers), Seen()
        answer = AnswerWithEtag(send, request_id, seen, resource, headers, reading=reading)
        try:
            asked = RequestContext(
                principal=await self._admit(scope, headers),
                did=f"{method} {path}"[:MAX_DID],
                request_id=request_id,
                condition=None if reading else condition_of(headers, resource),
                seen=seen,
            )
        except OutriderError as error:
            await _refusal(error, path, headers)(scope, receive, answer)
            return
        admit(scope, asked)
        await self._application(scope, receive, answer)

    async def _admit(self, scope: Scope, headers: Headers) -> Principal:
        if not self._known.loaded:
            await run_in_threadpool(self._known.load)
        address = scope["client"][0] if scope.get("client") else ""
        if not self._known.exist:
            if self._open_to_all or is_from_this_machine(address, headers):
                return Principal(name="(anybody)", role="admin", address=address)
            raise Forbidden(
                "there are no users yet, so the API answers only the service's own machine; "
                "create the first user there: outrider database init"
            )
        if not self._known.all():
            # Closed, not open: who damaged them may be a stranger (P13).
            raise Forbidden(
                f"no user can be read ({', '.join(self._known.damaged)}), so nobody is let in; with access to etcd,"
                " `outrider database init --again --name NAME` gives one of them a new token"
            )
        user = self._user(headers.get("authorization", ""))
        needed = role_needed(scope["method"], scope["path"])
        if not may(user.role, needed):
            raise Forbidden(f"this request needs the role {needed}; {user.name} has the role {user.role}")
        return Principal(name=user.name, role=user.role, address=address)

    def _user(self, authorization: str) -> User:
        scheme, _, credentials = authorization.strip().partition(" ")
        name, token = "", credentials.strip()
        if scheme.lower() == "basic":
            name, token = _read_basic(token)
        elif scheme.lower() != "bearer":
            raise Unauthorized("no token: send `Authorization: Bearer TOKEN`; `outrider admin-user create` creates one")
        user = self._known.of_token(token)
        if user is None or (name and name != user.name):
            raise Unauthorized("invalid or revoked token")
        return user


def _request_id(headers: Headers) -> str:
    asked = headers.get("x-request-id", "")
    return asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex


def is_from_this_machine(address: str, headers: Headers) -> bool:
    """Whether the request comes from a program on this machine, on its own account.

    A proxy on this machine forwards requests of others, and says so in a header. A page from anywhere can make a
    browser on this machine send a request; the browser says so in ``Origin``.
    """
    if any(name in headers for name in _FORWARDED) or not _is_loopback(address):
        return False
    origin = headers.get("origin")
    try:
        host = urlsplit(origin).hostname if origin is not None else "localhost"
    except ValueError:
        return False
    return host == "localhost" or _is_loopback(host or "")


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return bool((getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback)


def _read_basic(credentials: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(credentials, validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise Unauthorized("invalid `Authorization: Basic`: send base64 of USER:TOKEN") from error
    name, colon, token = text.partition(":")
    if not colon or not name:
        raise Unauthorized("invalid `Authorization: Basic`: send base64 of USER:TOKEN")
    return name, token


def _refusal(error: OutriderError, path: str, headers: Headers) -> Response:
    response = problem_of(error, path)
    if isinstance(error, Unauthorized):
        # Basic is offered only to a client that tried it: a browser would ask a person for a password.
        basic = headers.get("authorization", "").lower().startswith("basic")
        response.headers["WWW-Authenticate"] = 'Basic realm="outrider"' if basic else 'Bearer realm="outrider"'
    return response
