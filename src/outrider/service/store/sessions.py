"""Sessions of the web page, and links that begin one.

A browser holds a random cookie; etcd has its SHA-256, under a lease that is renewed while the session is used. So a
session is valid at every service process, and ends everywhere at once. It is worth what its user's token is worth: a
user that is removed, or gets a new token, has no session any more.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from outrider.core.errors import Unauthorized
from outrider.model.damage import readable
from outrider.model.documents import Document, User
from outrider.model.keys import Keys
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import StoreContext
from outrider.service.store.users import digest_of

COOKIE_BYTES = 32
LINK_S = 60.0
LONGEST = timedelta(days=7)
"""A session ends after this, however much it is used."""
MOST_OF_A_USER = 20
"""Sessions of one user at the same time; a further one ends the oldest."""


class Session(Document, frozen=True, kw_only=True):
    """``sessions/{digest}``, under a lease.

    Attributes:
        user: Its name; one in parentheses, which no user can have, where there are no users yet.
        token_sha256: Of the user's token when the session began; empty where there are no users yet.
        begun: When it began.
        issuer: Of the identity provider where the user logged in; empty: the user has a token of ours.
        values: Of the role claim, by which such a user has a role.
        until: When such a session ends, however much it is used.
    """

    user: str
    token_sha256: str = ""
    begun: datetime
    issuer: str = ""
    values: tuple[str, ...] = ()
    until: datetime | None = None


class PageLink(Document, frozen=True, kw_only=True):
    """``page-links/{digest}``, under a lease: whoever knows its secret begins a session of ``user``, once."""

    user: str
    token_sha256: str = ""
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """A session with the cookie that only its browser has."""

    session: Session
    cookie: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """The sessions of one key prefix."""

    context: StoreContext
    auditing: Auditing

    def begin(self, user: User, *, for_s: float) -> NewSession:
        """Begin a session of a user who has shown the token; it lives ``for_s`` seconds from its last renewal.

        Raises:
            Unknown: etcd gives no answer.
        """
        return self._begin(self._new(user.name, user.token_sha256), for_s, link=None)

    def begin_by_provider(
        self, name: str, *, issuer: str, values: tuple[str, ...], for_s: float, longest: timedelta
    ) -> NewSession:
        """Begin a session of somebody who has logged in at the identity provider.

        Raises:
            Unknown: etcd gives no answer.
        """
        now = self.context.now()
        session = Session(user=name, begun=now, issuer=issuer, values=values, until=now + longest)
        return self._begin(session, for_s, link=None)

    def make_link(self, user: User | None, name: str) -> str:
        """Make a link, and return its secret.

        Args:
            user: Whose session it begins; None: there are no users yet.
            name: Of who asks for it, where there are none.
        """
        secret = secrets.token_urlsafe(COOKIE_BYTES)
        link = PageLink(
            user=name if user is None else user.name,
            token_sha256="" if user is None else user.token_sha256,
            until=self.context.now() + timedelta(seconds=LINK_S),
        )
        lease = self.context.cluster.grant(LINK_S)

        def attempt(change: Change) -> None:
            change.put(self.context.keys.page_link(digest_of(secret)), link, lease=lease)

        apply(self.context.cluster, attempt, self.auditing)
        return secret

    def redeem(self, secret: str, *, for_s: float) -> NewSession:
        """Begin the session of a link and use the link up: of two attempts one succeeds.

        Raises:
            Unauthorized: it was used, or its time is over.
            Unknown: etcd gives no answer.
        """
        link = unused_link(self.context, secret)
        return self._begin(self._new(link.user, link.token_sha256), for_s, link=secret)

    def _new(self, user: str, token_sha256: str) -> Session:
        return Session(user=user, token_sha256=token_sha256, begun=self.context.now())

    def _begin(self, session: Session, for_s: float, *, link: str | None) -> NewSession:
        cookie, keys, user = secrets.token_urlsafe(COOKIE_BYTES), self.context.keys, session.user
        lease = self.context.cluster.grant(for_s)

        def attempt(change: Change) -> None:
            if link is not None:
                key = keys.page_link(digest_of(link))
                if change.read_or_none(PageLink, key) is None:
                    raise Unauthorized(_USED)
                change.delete(key)
            own = [entry for entry, one in readable(Session, change.list(keys.sessions()).entries) if one.user == user]
            for entry in sorted(own, key=lambda one: one.create_revision)[: -(MOST_OF_A_USER - 1)]:
                change.guard_unread(entry)
                change.delete(entry.key)
            change.put(keys.session(digest_of(cookie)), session, lease=lease)

        try:
            apply(self.context.cluster, attempt, self.auditing)
        except Unauthorized:
            self.context.cluster.revoke(lease)
            raise
        return NewSession(session=session, cookie=cookie)

    def end(self, cookie: str) -> None:
        """End a session; every service process refuses its cookie within a second."""
        key = self.context.keys.session(digest_of(cookie))

        def attempt(change: Change) -> None:
            if change.exists(key):
                change.delete(key)

        apply(self.context.cluster, attempt, self.auditing)


_USED = "this link was used already, or is older than a minute; `outrider page` prints a new one"


def session_key(keys: Keys, cookie: str) -> str:
    """Where the session of a cookie is stored."""
    return keys.session(digest_of(cookie))


def unused_link(context: StoreContext, secret: str) -> PageLink:
    """The link with that secret.

    Raises:
        Unauthorized: there is none, it was used, or its time is over.
        Unknown: etcd gives no answer.
    """
    found = context.get_or_none(PageLink, context.keys.page_link(digest_of(secret)))
    if found is None or found.until <= context.now():
        raise Unauthorized(_USED)
    return found
