"""Who is there: the sessions of the page, their CSRF tokens, and what their users may do.

The roles are those of the API, by the operation of the API that a page shows or an action carries out. Who comes
through the service's Unix socket, or while there never was a user and the service is open to all, needs no session.

A CSRF token is made of the session's cookie, which no other site can read. Besides, a browser says where a form comes
from (``Origin``, ``Sec-Fetch-Site``), and a form from elsewhere is refused.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from outrider.core.errors import Forbidden, OutriderError, Unauthorized
from outrider.model.damage import read_or_none
from outrider.model.documents import User
from outrider.oidc.tokens import Identity
from outrider.service.api.app_limits import check_apps
from outrider.service.api.auth import AccessRules, check_role, no_users_left
from outrider.service.api.hosts import check_host, is_of_a_foreign_page
from outrider.service.connections import peer_of
from outrider.service.context import Context
from outrider.service.store.request import Principal
from outrider.service.store.sessions import LONGEST, Session, session_key

COOKIE = "outrider_session"
SECURE_COOKIE = "__Host-outrider_session"
"""With TLS: a browser takes it over https alone, and from no neighbour below the same domain."""
RENEWALS = 24
"""A session that is used is renewed so often in its time."""
MAX_RENEWED = 10_000

FIRST_HOUR = (
    "there are no users yet. On the service's own machine, `outrider page` prints a link that lets you in, and"
    " `outrider database init` makes the first user"
)
LOG_IN = "log in with your token, or with `outrider page`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who looks at the page.

    Attributes:
        cookie: Of the session, or a random one where nobody needs a session; CSRF tokens are made of it.
        has_session: There is a session that can be ended.
    """

    principal: Principal
    cookie: str
    has_session: bool

    def may(self, method: str, path: str) -> bool:
        """Whether the API would let this user do that; ``path`` may have a query."""
        try:
            self.check(method, path)
        except Forbidden:
            return False
        return True

    def check(self, method: str, path: str) -> None:
        """As the API does.

        Raises:
            Forbidden: the user's role is too low, or holds for other apps alone.
        """
        path, _, query = path.partition("?")
        check_role(self.principal, method, path)
        check_apps(self.principal, method, path, query.encode())

    def app_of(self, query: Mapping[str, str]) -> str:
        """The app that a query names; without one the first of those that the role holds for; empty: all."""
        return query.get("app", "").strip() or next(iter(self.principal.apps), "")

    @property
    def csrf(self) -> str:
        """What every form of this visitor contains."""
        return hmac.new(self.cookie.encode(), b"outrider csrf", hashlib.sha256).hexdigest()

    def signed(self, text: str) -> str:
        """A mark that only the service can make for this visitor: of what the browser keeps for the next page."""
        return hmac.new(self.cookie.encode(), b"outrider note" + text.encode(), hashlib.sha256).hexdigest()


class Doors:
    """Lets visitors in. Safe to use from several threads."""

    def __init__(self, context: Context, rules: AccessRules) -> None:
        self._context, self._rules = context, rules
        self._renewed: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def session_s(self) -> float:
        """Seconds that a session lives without being used."""
        return self._context.limits.max_session_h * 3600.0

    def visitor(self, request: Request) -> Visitor:
        """Who sends the request.

        Raises:
            Misdirected: the request was sent to another name.
            Unauthorized: there is no session, or it has ended.
            Forbidden: there were users, and none can be read.
            Unknown: etcd gives no answer.
        """
        known, peer = self._context.known_users, peer_of(request.scope)
        self.check_host(request)
        known.load()
        address = request.client.host if request.client else ""
        cookie = cookie_of(request)
        if not known.ever_existed:
            open_visitor = self._without_users(request, peer, address, cookie)
            if open_visitor is not None:
                return open_visitor
        session = self._session(cookie) if cookie else None
        if session is not None and session.issuer:
            principal = self._principal_by_provider(session, address)
            return Visitor(principal=principal, cookie=cookie, has_session=True)
        if known.ever_existed and not known.all() and self._rules.tokens is None:
            raise no_users_left(known)
        if session is None:
            raise Unauthorized(
                FIRST_HOUR if not known.ever_existed else "log in with your token, or with `outrider page`"
            )
        principal = self.principal_of(session.user, session.token_sha256, address)
        return Visitor(principal=principal, cookie=cookie, has_session=True)

    def _without_users(self, request: Request, peer: int | None, address: str, cookie: str) -> Visitor | None:
        if peer is None and (not self._rules.open_to_all or is_of_a_foreign_page(request.headers, self._rules.hosts)):
            return None
        name = "(anybody)" if peer is None else "(this machine)"
        principal = Principal(name=name, role="admin", address=address)
        return Visitor(principal=principal, cookie=cookie or secrets.token_urlsafe(32), has_session=False)

    def check_host(self, request: Request) -> None:
        """Refuse a request that was sent to another name.

        Raises:
            Misdirected: it was.
        """
        if peer_of(request.scope) is None:
            check_host(request.headers.get("host", ""), self._rules.hosts)

    def principal_of(self, name: str, token_sha256: str, address: str) -> Principal:
        """The principal of a session or a link.

        Raises:
            Unauthorized: the user has gone or has a new token, or users exist now and the session is of nobody.
        """
        known = self._context.known_users
        known.load()
        if not token_sha256 and not known.ever_existed:
            return Principal(name=name, role="admin", address=address)
        user = known.all().get(name)
        if user is None or not token_sha256 or not hmac.compare_digest(user.token_sha256, token_sha256):
            raise Unauthorized("your session has ended: its user was removed, or has a new token")
        return Principal(name=user.name, role=user.role, address=address, apps=user.apps)

    def _principal_by_provider(self, session: Session, address: str) -> Principal:
        """The principal of somebody who logged in at the identity provider: with the role that the rules give now.

        Raises:
            Unauthorized: another provider counts now, or none.
            Forbidden: the rules give no role any more.
        """
        tokens = self._rules.tokens
        if tokens is None or tokens.settings.issuer != session.issuer:
            raise Unauthorized("your session has ended: its identity provider doesn't count here any more")
        granted = tokens.granted(Identity(name=session.user, values=session.values))
        return Principal(name=session.user, role=granted.role, address=address, apps=granted.apps)

    def user_of_token(self, token: str) -> User:
        """The user with that token.

        Raises:
            Unauthorized: nobody has it.
        """
        known = self._context.known_users
        known.load()
        if not known.ever_existed:
            raise Unauthorized(FIRST_HOUR)
        user = known.of_token(token.strip())
        if user is None:
            raise Unauthorized("invalid or revoked token")
        return user

    def _session(self, cookie: str) -> Session | None:
        context = self._context.stores.context
        key = session_key(context.keys, cookie)
        model = self._context.read_model
        entry = model.entry(key) if model is not None else None
        if entry is None:
            entry = context.cluster.get(key)
        session = None if entry is None else read_or_none(Session, key, entry.value)
        if entry is None or session is None or session.begun + LONGEST <= context.now():
            return None
        if session.until is not None and session.until <= context.now():
            return None
        self._renew(key, entry.lease)
        return session

    def _renew(self, key: str, lease: int) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._renewed.get(key, float("-inf")) < self.session_s / RENEWALS:
                return
            self._renewed[key] = now
            self._renewed.move_to_end(key)
            if len(self._renewed) > MAX_RENEWED:
                self._renewed.popitem(last=False)
        try:
            self._context.stores.context.cluster.keep_alive(lease)
        except OutriderError:
            with self._lock:
                self._renewed.pop(key, None)


def cookie_of(request: Request) -> str:
    """The session's cookie; empty without one."""
    return request.cookies.get(SECURE_COOKIE if is_secure(request) else COOKIE, "")[:200]


def is_secure(request: Request) -> bool:
    """The browser reached the service by https."""
    return request.url.scheme == "https"


def check_origin(headers: Headers, public_url: str | None) -> None:
    """Refuse a form that a page from elsewhere sends.

    Raises:
        Forbidden: it does.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    own = {headers.get("host", "").lower()}
    if public_url is not None:
        own.add(urlsplit(public_url).netloc.lower())
    is_own = origin is None or urlsplit(origin).netloc.lower() in own
    if not is_own or site not in (None, "same-origin", "none"):
        raise Forbidden("this form was sent by another page; nothing was done")


def check_csrf(visitor: Visitor, sent: str) -> None:
    """Refuse a form that does not contain the visitor's token.

    Raises:
        Forbidden: it does not.
    """
    if not hmac.compare_digest(visitor.csrf.encode(), sent.encode("utf-8", "surrogateescape")):
        raise Forbidden("this form is of another session, or from elsewhere; nothing was done; load the page again")
