"""The auth middleware of the API: it admits a request, reads its precondition and answers with entity tags.

It is a layer around the whole application and decides by the path, not by the route: every endpoint below ``/api/`` is
behind it. Only the API's own description, and where to log in, are open; Omaha, payloads and health are not below
``/api/``.

While there never was a user, the service's own Unix socket alone needs no token: it is for the user that runs the
service, and root. The network is asked for a token from the first moment, whatever the address, and there is none yet.
Once there was a user, everybody needs a token; that all users are gone or can't be read opens nothing (P13).
"""

import base64
import binascii
import pwd
import re
import uuid
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from outrider.core.errors import Forbidden, OutriderError, Unauthorized
from outrider.model.documents import Role, User
from outrider.model.keys import Keys
from outrider.oidc.tokens import Tokens, looks_like_one
from outrider.service.api.app_limits import check_apps
from outrider.service.api.etags import AnswerWithEtag, condition_of
from outrider.service.api.hosts import check_host, is_of_a_foreign_page
from outrider.service.api.resources import resource_of
from outrider.service.connections import peer_of
from outrider.service.context import admit
from outrider.service.problems import problem_of
from outrider.service.store.request import Principal, RequestContext, Seen
from outrider.service.store.users import KnownUsers, may

API = "/api/"
OPEN = frozenset({"/api/v1/openapi.json", "/api/v1/identity-provider"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ADMINS_ALONE = re.compile(r"(?:[A-Z]+ /api/v1/(?:users|database)(?:/.*)?|DELETE /api/v1/apps/[^/]*)", re.DOTALL)
_VIEWERS_TOO = re.compile(r"POST /api/v1/page-links")
"""It changes nothing but the user's own session."""
_APPROVERS_TOO = re.compile(r"POST /api/v1/apps/[^/]*/groups/[^/]*/rollout/(?:approve|reject)")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
MAX_DID = 1000
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def role_needed(method: str, path: str) -> Role:
    """The lowest role that may make the request."""
    if _ADMINS_ALONE.fullmatch(f"{method} {path}"):
        return "admin"
    if _APPROVERS_TOO.fullmatch(f"{method} {path}"):
        return "approver"
    if _VIEWERS_TOO.fullmatch(f"{method} {path}"):
        return "viewer"
    return "viewer" if method in READING else "operator"


METRICS = "/metrics"


def no_users_left(known: KnownUsers) -> Forbidden:
    """Why nobody is let in where there were users. Closed, not open: who damaged or removed them may be a stranger
    (P13).
    """
    return Forbidden(
        f"no user can be read ({', '.join(known.damaged)}), so nobody is let in; with access to etcd,"
        " `outrider database init --again --name NAME` gives one of them a new token"
        if known.exist
        else "there were users and none is left, so nobody is let in; with access to etcd, `outrider database"
        " init` makes the first one anew"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """How the service's own doors are set.

    Attributes:
        open_to_all: While there never was a user, the network may do everything too.
        hosts: Names in ``Host`` that lead here, in lower case, besides addresses and ``localhost``.
        protect_metrics: ``/metrics`` asks for a token, too.
        tokens: Of an identity provider, which count besides those of our own users.
    """

    open_to_all: bool = False
    hosts: frozenset[str] = frozenset()
    protect_metrics: bool = False
    tokens: Tokens | None = None


class AuthMiddleware:
    """ASGI middleware in front of the application."""

    def __init__(self, application: ASGIApp, known: KnownUsers, keys: Keys, rules: AccessRules) -> None:
        """Wrap ``application``."""
        self._application = application
        self._known = known
        self._keys = keys
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not self._is_guarded(scope["path"]):
            await self._application(scope, receive, send)
            return
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        reading = method in READING
        resource = resource_of(self._keys, path)
        request_id, seen = request_id_of(headers), Seen()
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

    def _is_guarded(self, path: str) -> bool:
        if path == METRICS:
            return self._rules.protect_metrics
        return path.startswith(API) and path not in OPEN

    async def _admit(self, scope: Scope, headers: Headers) -> Principal:
        address = address_of(scope)
        if (token := self._of_provider(headers)) is not None:
            return await self._admit_by_provider(scope, headers, token, address)
        anybody = await admitted_without_user(scope, headers, self._known, self._rules)
        if anybody is not None:
            return anybody
        user = self._user(headers.get("authorization", ""))
        check_role(user, scope["method"], scope["path"])
        check_apps(user, scope["method"], scope["path"], scope["query_string"])
        return Principal(name=user.name, role=user.role, address=address, apps=user.apps)

    def _of_provider(self, headers: Headers) -> str | None:
        """The token of the identity provider that a request shows; None: there is no provider, or no such token."""
        scheme, _, token = headers.get("authorization", "").strip().partition(" ")
        if self._rules.tokens is None or scheme.lower() != "bearer" or not looks_like_one(token.strip()):
            return None
        return token.strip()

    async def _admit_by_provider(self, scope: Scope, headers: Headers, token: str, address: str) -> Principal:
        assert self._rules.tokens is not None
        if peer_of(scope) is None:
            check_host(headers.get("host", ""), self._rules.hosts)
        principal = await run_in_threadpool(principal_of_token, self._rules.tokens, token, address)
        check_role(principal, scope["method"], scope["path"])
        check_apps(principal, scope["method"], scope["path"], scope["query_string"])
        return principal

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


def check_role(user: User | Principal, method: str, path: str) -> None:
    """Refuse what the user's role is too low for.

    Raises:
        Forbidden: it is.
    """
    needed = role_needed(method, path)
    if not may(user.role, needed):
        raise Forbidden(f"this request needs the role {needed}; {user.name} has the role {user.role}")


def principal_of_token(tokens: Tokens, token: str, address: str) -> Principal:
    """The principal of a request with a token of the identity provider.

    Raises:
        Unauthorized: it doesn't count.
        Forbidden: whoever has it has no role here.
        Unknown: the provider gives no answer, and its keys aren't known.
    """
    identity = tokens.identity(token)
    granted = tokens.granted(identity)
    return Principal(name=identity.name, role=granted.role, address=address, apps=granted.apps)


def address_of(scope: Scope) -> str:
    """The client's IP address; empty when unknown."""
    return scope["client"][0] if scope.get("client") else ""


async def admitted_without_user(
    scope: Scope, headers: Headers, known: KnownUsers, rules: AccessRules
) -> Principal | None:
    """The principal of a request while there never was a user; None: it must say which user makes it, and prove that.

    Raises:
        Misdirected: it was sent to another name.
        Unauthorized: there are no users yet, and it may do nothing.
        Forbidden: there are users, and none can be read.
        Unknown: etcd gives no answer.
    """
    peer = peer_of(scope)
    if peer is None:
        check_host(headers.get("host", ""), rules.hosts)
    if not known.loaded:
        await run_in_threadpool(known.load)
    if not known.ever_existed:
        return _first_hour(peer, address_of(scope), headers, rules)
    if not known.all():
        raise no_users_left(known)
    return None


def _first_hour(peer: int | None, address: str, headers: Headers, rules: AccessRules) -> Principal:
    """The principal while there never was a user."""
    proxied = next((name for name in FORWARDED if name in headers), None)
    if peer is not None and proxied is None:
        return Principal(name=f"({_user_name(peer)})", role="admin")
    if peer is None and rules.open_to_all and not is_of_a_foreign_page(headers, rules.hosts):
        return Principal(name="(anybody)", role="admin", address=address)
    raise Unauthorized(
        "there are no users yet, so only the service's Unix socket may be used, on its own machine and by the user"
        " that runs it; create the first user there: outrider database init"
    )


def request_id_of(headers: Headers) -> str:
    """The id of a request: the client's own, else a new one."""
    asked = headers.get("x-request-id", "")
    return asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a user id without a name, as in a container
        return f"uid {uid}"


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
