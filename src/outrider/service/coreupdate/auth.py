"""The auth middleware of CoreUpdate's API: whoever signs with the Hawk key of a user is that user.

A body isn't signed, so a request is taken over https or on the service's own machine alone. A nonce is kept in etcd for
as long as its time counts: a request that somebody has overheard is refused by every process.
"""

import ipaddress
import re
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from outrider.core.errors import Forbidden, OutriderError, Unauthorized
from outrider.etcd.seam import Cluster, CreatedAt, Put
from outrider.model.documents import Document, Role, User, encode
from outrider.model.keys import Keys
from outrider.service.api.auth import (
    FORWARDED,
    MAX_DID,
    READING,
    AccessRules,
    address_of,
    admitted_without_user,
    request_id_of,
)
from outrider.service.connections import peer_of
from outrider.service.context import admit
from outrider.service.coreupdate.hawk import WINDOW_S, Signed, is_signed, is_timely, parse_header, time_header
from outrider.service.problems import RETRY_HEADERS, status_of
from outrider.service.store.context import app_id_of, some
from outrider.service.store.request import Principal, RequestContext
from outrider.service.store.users import KnownUsers, may

BASE = "/_ah/api/update/v1"
UPLOAD = "/package-upload"
BACKUP = "/db/backup"
INIT = "/admin/v1/init"
NONCE_TTL_S = 2.0 * WINDOW_S + 10.0
"""A time counts from a minute before to a minute after it; the rest is for clocks of several processes."""
_ADMINS_ALONE = re.compile(rf"(?:[A-Z]+ {BASE}/admin(?:/.*)?|[A-Z]+ {BACKUP}|DELETE {BASE}/apps/[^/]*)", re.DOTALL)
_OF_AN_APP = re.compile(rf"{BASE}/apps/([^/]+)(?:/.*)?", re.DOTALL)
_APP_IN_BODY = re.compile(rf"POST {BASE}/apps/[^/]+/channels")
"""updateservicectl puts the channel's name into the path; the endpoint looks at the app in the body."""
_FOR_ALL = re.compile(
    rf"GET {BASE}/(?:apps|util/uuid|public/[a-z]+|clientupdates|clientupdatecount|appversions|client/history)"
    rf"|POST {UPLOAD}"
)
"""Lists that show a user's own apps alone, and a file that belongs to an app once a package names it."""


class HawkNonce(Document, frozen=True, kw_only=True):
    """``hawk-nonces/{user}/{digest}``: a request with this nonce was admitted."""


def is_of_coreupdate(path: str) -> bool:
    """Whether a path belongs to CoreUpdate's API."""
    return path == BASE or path.startswith(f"{BASE}/") or path in (UPLOAD, BACKUP, INIT)


def role_needed(method: str, path: str) -> Role:
    """The lowest role that may make the request."""
    if _ADMINS_ALONE.fullmatch(f"{method} {path}"):
        return "admin"
    return "viewer" if method in READING else "operator"


class HawkMiddleware:
    """ASGI middleware in front of the application; it looks at CoreUpdate's paths alone."""

    def __init__(
        self,
        application: ASGIApp,
        known: KnownUsers,
        cluster: Cluster,
        keys: Keys,
        rules: AccessRules,
        *,
        enabled: bool,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Wrap ``application``. Not ``enabled``: nothing of it is there."""
        self._application, self._known, self._cluster, self._keys = application, known, cluster, keys
        self._rules, self._enabled, self._now_s = rules, enabled, now_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not is_of_coreupdate(scope["path"]):
            await self._application(scope, receive, send)
            return
        method, path, headers = scope["method"], scope["path"], Headers(scope=scope)
        if not self._enabled:
            off = "CoreUpdate's API is off; `outrider serve --coreupdate-api` offers it"
            await answer(404, off, path)(scope, receive, send)
            return
        try:
            if path != INIT:  # it asks for no user, and does nothing
                asked = RequestContext(
                    principal=await self._admit(scope, headers),
                    did=f"{method} {path}"[:MAX_DID],
                    request_id=request_id_of(headers),
                )
                admit(scope, asked)
        except _BadTime as error:
            response = answer(401, str(error), path)
            response.headers["WWW-Authenticate"] = error.header
            await response(scope, receive, send)
            return
        except OutriderError as error:
            response = refusal(error, path)
            if isinstance(error, Unauthorized):
                response.headers["WWW-Authenticate"] = "Hawk"
            await response(scope, receive, send)
            return
        await self._application(scope, receive, send)

    async def _admit(self, scope: Scope, headers: Headers) -> Principal:
        anybody = await admitted_without_user(scope, headers, self._known, self._rules)
        if anybody is not None:
            return anybody
        if scope["scheme"] != "https" and not is_near(scope):
            raise Forbidden(
                "Hawk doesn't sign what a request carries, so this API is served over https, or on the service's own"
                " machine; use https (--tls-cert, or a proxy that --trusted-proxy names)"
            )
        user = await self._user(scope, headers)
        method, path = scope["method"], scope["path"]
        needed = role_needed(method, path)
        if not may(user.role, needed):
            raise Forbidden(f"this request needs the role {needed}; {user.name} has the role {user.role}")
        _check_app(user, method, path)
        return Principal(name=user.name, role=user.role, address=address_of(scope), apps=user.apps)

    async def _user(self, scope: Scope, headers: Headers) -> User:
        signed = parse_header(headers.get("authorization", ""))
        user = self._known.all().get(signed.user)
        key = user.hawk_key if user is not None else ""
        good = is_signed(
            key or "no key",
            signed,
            method=scope["method"],
            raw_path=scope.get("raw_path", scope["path"].encode()).decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            host=headers.get("host", ""),
            https=scope["scheme"] == "https",
        )
        if user is None or not key or not good:
            raise Unauthorized("invalid Hawk signature: another user, another key, or a user without a Hawk key")
        now_s = self._now_s()
        if not is_timely(signed, now_s):
            raise _BadTime(
                f"signed {abs(now_s - signed.at):.0f} s {'ago' if now_s > signed.at else 'ahead of time'}, and at most"
                f" {WINDOW_S} s count; set the clocks of this machine and of the service",
                time_header(key, now_s),
            )
        await run_in_threadpool(self._use_up, user.name, signed)
        return user

    def _use_up(self, name: str, signed: Signed) -> None:
        """Let the nonce count once, for all processes.

        Raises:
            Unauthorized: it was used already.
            Unknown: etcd gives no answer; the request isn't admitted.
        """
        key = self._keys.hawk_nonce(name, signed.nonce_digest)
        lease = self._cluster.grant(NONCE_TTL_S)
        put = Put(key=key, value=encode(HawkNonce()), lease=lease)
        if not self._cluster.txn((CreatedAt(key=key, revision=0),), (put,)).succeeded:
            self._cluster.revoke(lease)
            raise Unauthorized("this Hawk nonce was used already: the request is a repeat; sign it anew")


class _BadTime(Unauthorized):
    def __init__(self, problem: str, header: str) -> None:
        self.header = header
        super().__init__(problem)


def is_near(scope: Scope) -> bool:
    """Whether a request was made on the service's own machine, and nobody says that it only came through it."""
    headers = Headers(scope=scope)
    if any(name in headers for name in FORWARDED):
        return False
    return peer_of(scope) is not None or _is_loopback(address_of(scope))


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return bool((getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback)


def check_app(principal: Principal, app: str) -> str:
    """Return ``app`` if the principal's role holds for it.

    Raises:
        Forbidden: it holds for others alone.
    """
    if principal.apps and app_id_of(app) not in principal.apps:
        raise Forbidden(f"{principal.name}'s role holds for {some(principal.apps)} alone")
    return app


def _check_app(user: User, method: str, path: str) -> None:
    """Closed, not open: what isn't known to stay within the user's apps is refused."""
    if not user.apps or _FOR_ALL.fullmatch(f"{method} {path}") or _APP_IN_BODY.fullmatch(f"{method} {path}"):
        return
    found = _OF_AN_APP.fullmatch(path)
    if found is None or app_id_of(found[1]) not in user.apps:
        raise Forbidden(f"{user.name}'s role holds for {some(user.apps)} alone, and this request reaches further")


def refusal(error: OutriderError, path: str) -> Response:
    """One of our errors, as updateservicectl prints it."""
    response = answer(status_of(error), str(error), path)
    if error.retry:
        response.headers.update(RETRY_HEADERS)
    return response


def answer(status: int, text: str, path: str) -> Response:
    """A refusal: in the form of Google's APIs below the base, where the client looks for it; elsewhere as text."""
    line = " ".join(text.split())
    if path.startswith(BASE):
        return JSONResponse({"error": {"code": status, "message": line}}, status_code=status)
    return PlainTextResponse(f"{line}\n", status_code=status)
