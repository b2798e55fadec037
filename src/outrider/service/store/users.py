"""Users: who may use the API, and the tokens that prove it.

A token is shown once, when it is made; etcd has its SHA-256. Whoever may write to etcd may do everything anyway.
"""

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loguru import logger

from outrider.core.errors import ConfigError, Conflict, NotFound, OutriderError
from outrider.etcd.seam import Cluster, Entry, Resynced, WatchEvent
from outrider.model.documents import Role, User, decode
from outrider.model.keys import Keys
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import StoreContext

TOKEN_PREFIX = "or_"  # noqa: S105 - what every token begins with, so that people and scanners of secrets know it
TOKEN_BYTES = 32
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
"""Each may do what the ones before it may."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def new_token() -> str:
    """A token that nobody has had before."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> str:
    """What is stored of a token: 64 hex digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def may(role: Role, needed: Role) -> bool:
    """Whether ``role`` includes ``needed``."""
    return ROLES.index(role) >= ROLES.index(needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """A user with the token that was just made. ``created``: there was no such user before."""

    user: User
    token: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """The users of one key prefix."""

    context: StoreContext
    auditing: Auditing

    def list(self) -> tuple[User, ...]:
        """All users, by name."""
        return self.context.children(User, self.context.keys.users())

    def get(self, name: str) -> User:
        """One user.

        Raises:
            NotFound: there is none.
        """
        found = self.context.get(User, self.context.keys.user(_checked_name(name)))
        if found is None:
            raise NotFound(_absent(name))
        return found

    def create(self, name: str, role: Role | None = None) -> NewUser:
        """Make a user, or give an existing one a new token: the old one ends.

        Args:
            name: 1 to 64 letters, digits or ``. _ @ + -``.
            role: None keeps what the user has; a new one becomes an operator.

        Raises:
            ConfigError: the name can't be one.
            Conflict: nobody would be admin.
        """
        key, token, now = self.context.keys.user(_checked_name(name)), new_token(), self.context.now()

        def attempt(change: Change) -> NewUser:
            old = change.read(User, key)
            user = User(
                name=name,
                role=role or (old.role if old else "operator"),
                token_sha256=digest_of(token),
                token_end=token[-4:],
                created=old.created if old else now,
                token_created=now,
            )
            if user.role != "admin":
                self._keep_an_admin(change, without=name)
            change.put(key, user)
            return NewUser(user=user, token=token, created=old is None)

        return apply(self.context.cluster, attempt, self.auditing)

    def begin(self, name: str) -> NewUser:
        """Make the first user, an admin.

        Raises:
            Conflict: there are users already.
        """
        if users := self.list():
            raise Conflict(f"there are users already ({', '.join(user.name for user in users[:5])}): nothing was done")
        return self.create(name, "admin")

    def delete(self, name: str) -> User:
        """Remove a user; the token ends within a second, in every service process.

        Raises:
            NotFound: there is none.
            Conflict: nobody would be admin any more.
        """
        key = self.context.keys.user(_checked_name(name))

        def attempt(change: Change) -> User:
            old = change.require(User, key, _absent(name))
            self._keep_an_admin(change, without=name)
            change.delete(key)
            return old

        return apply(self.context.cluster, attempt, self.auditing)

    def _keep_an_admin(self, change: Change, without: str) -> None:
        """Some other admin is there, and still is when the change is made."""
        for entry in change.list(self.context.keys.users()).entries:
            user = decode(User, entry.key, entry.value)
            if user.role == "admin" and user.name != without:
                change.guard(User, entry)
                return
        raise Conflict(f"{without!r} would leave no admin, and nobody could make one; make another admin first")


class KnownUsers:
    """The users as a service process knows them: read once, then kept up to date by a watch.

    A request costs no read of etcd, and a revoked token stops as soon as etcd has told. While etcd is away what was
    known stays: nothing can be read or changed then anyway.
    """

    def __init__(self, cluster: Cluster, keys: Keys) -> None:
        """Read nothing yet: etcd may be away."""
        self._cluster, self._prefix = cluster, keys.users()
        self._loading = threading.Lock()
        self._users: Mapping[str, User] | None = None

    @property
    def loaded(self) -> bool:
        return self._users is not None

    def load(self) -> None:
        """Read the users, unless that is done.

        Raises:
            Unknown: etcd gives no answer.
        """
        with self._loading:
            if self._users is not None:
                return
            listing = self._cluster.list(self._prefix)
            self._users = _decoded(listing.entries)
            if not self._users:
                logger.warning("no users yet: the API answers this machine alone; begin with: outrider database init")
            try:
                self._cluster.watch(self._prefix, listing.revision + 1, self._heard)
            except OutriderError:
                self._users = None
                raise

    def all(self) -> Mapping[str, User]:
        """The users by name. ``load`` comes first."""
        assert self._users is not None, "not loaded"
        return self._users

    def of_token(self, token: str) -> User | None:
        """Whose token that is. Every user is compared, in constant time: how long it takes tells nothing."""
        digest, found = digest_of(token), None
        for user in self.all().values():
            if hmac.compare_digest(user.token_sha256, digest):
                found = user
        return found

    def _heard(self, event: WatchEvent) -> None:
        # A new mapping each time: readers on other threads have the old one or the new one, never half of it.
        if isinstance(event, Resynced):
            self._users = _decoded(event.listing.entries)
            return
        others = {name: user for name, user in self.all().items() if name != event.key.removeprefix(self._prefix)}
        self._users = others if event.entry is None else others | _decoded((event.entry,))


def _decoded(entries: Iterable[Entry]) -> dict[str, User]:
    users = {}
    for entry in entries:
        try:
            user = decode(User, entry.key, entry.value)
        except Conflict as error:
            logger.bind(error_kind=error.kind, cause=str(error)).error("user not understood, not let in")
            continue
        users[user.name] = user
    return users


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"user {name!r}: use 1 to 64 letters, digits or . _ @ + - and begin with a letter or a digit")
    return name


def _absent(name: str) -> str:
    return f"no user {name!r}; `admin-user list` shows them, `admin-user create` adds one"
