"""Users of the API, with their tokens and roles.

A token is shown once, when it is created; etcd has its SHA-256. A program that can write to etcd needs no token.
A Hawk key, for CoreUpdate's clients, is made only where it is asked for, and etcd has the key itself.

A marker says that there was a user. It is written with the first one, and outlives all of them: users that were wiped
out, by whatever means, open nothing. Only ``database init`` removes it, when an operator with access to etcd says so.
"""

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loguru import logger

from outrider.core.errors import ConfigError, Conflict, NotFound, OutriderError
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.seam import Cluster, CreatedAt, Entry, Put, Resynced, Watch, WatchEvent
from outrider.model.damage import read_or_none, readable
from outrider.model.documents import Document, Role, User, encode
from outrider.model.keys import Keys
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import StoreContext, app_id_of

TOKEN_PREFIX = "or_"  # noqa: S105 - every token begins with it, so people and secret scanners recognise one
HAWK_PREFIX = "orh_"
TOKEN_BYTES = 32
ROLES: tuple[Role, ...] = ("viewer", "approver", "operator", "admin")
"""Each role includes the roles before it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def new_token(prefix: str = TOKEN_PREFIX) -> str:
    """Create a random token."""
    return prefix + secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> str:
    """The digest that is stored instead of a token: 64 hex digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def may(role: Role, needed: Role) -> bool:
    """Whether ``role`` includes ``needed``."""
    return ROLES.index(role) >= ROLES.index(needed)


class UsersExisted(Document, frozen=True, kw_only=True):
    """``cluster/users-existed``: there was a user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """A user with the new token. ``created``: the user is new. ``hawk_key`` is empty where none was asked for."""

    user: User
    token: str
    created: bool

    @property
    def hawk_key(self) -> str:
        return self.user.hawk_key


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

    def create(
        self, name: str, role: Role | None = None, apps: Sequence[str] | None = None, *, hawk: bool = False
    ) -> NewUser:
        """Create a user, or replace the token of an existing one: the old token, and an old Hawk key, are revoked.

        Args:
            name: 1 to 64 letters, digits or ``. _ @ + -``.
            role: None keeps the user's role; a new user becomes an operator.
            apps: The role holds for these alone; empty: for all; None keeps what holds, for a new user all.
            hawk: Make a Hawk key, too, by which CoreUpdate's clients sign their requests.

        Raises:
            ConfigError: the name, or that of an app, is invalid; or an admin's role would be limited to apps.
            Conflict: no admin would be left.
        """
        key, token, now = self.context.keys.user(_checked_name(name)), new_token(), self.context.now()
        wanted = None if apps is None else tuple(sorted({app_id_of(app) for app in apps}))
        marker, hawk_key = self.context.keys.users_existed(), new_token(HAWK_PREFIX) if hawk else ""

        def attempt(change: Change) -> NewUser:
            old = change.read_or_none(User, key)  # one that can't be read is replaced: that is how it is mended
            user = User(
                name=name,
                role=role or (old.role if old else "operator"),
                apps=wanted if wanted is not None else old.apps if old else (),
                token_sha256=digest_of(token),
                token_end=token[-4:],
                hawk_key=hawk_key,
                created=old.created if old else now,
                token_created=now,
            )
            if user.role == "admin" and user.apps:
                raise ConfigError(
                    f"user {name!r}: an admin makes users of every role, so that role can't be limited to apps; choose"
                    " operator, or all apps"
                )
            if user.role != "admin":
                self._keep_an_admin(change, without=name)
            change.put(key, user)
            change.read_or_none(UsersExisted, marker)
            change.put(marker, UsersExisted())
            return NewUser(user=user, token=token, created=old is None)

        return apply(self.context.cluster, attempt, self.auditing)

    def begin(self, name: str) -> NewUser:
        """Create the first user, an admin.

        Raises:
            Conflict: there are users already.
        """
        prefix = self.context.keys.users()
        # By the keys: a user that can't be read is a user, else anybody who could damage one would become the admin.
        if names := [entry.key.removeprefix(prefix) for entry in self.context.cluster.list(prefix).entries]:
            raise Conflict(f"users exist already ({', '.join(names[:5])}); nothing was done")
        return self.create(name, "admin")

    def forget_that_they_existed(self) -> None:
        """Let the Unix socket do without a token again, as before the first user; services hear it at their start.

        Raises:
            Conflict: there are users.
        """
        prefix = self.context.keys.users()
        if names := [entry.key.removeprefix(prefix) for entry in self.context.cluster.list(prefix).entries]:
            raise Conflict(f"users exist ({', '.join(names[:5])}); nothing was done")

        def attempt(change: Change) -> None:
            if change.exists(self.context.keys.users_existed()):
                change.delete(self.context.keys.users_existed())

        apply(self.context.cluster, attempt, self.auditing)

    def delete(self, name: str) -> User:
        """Remove a user; every service process refuses the token within a second.

        Raises:
            NotFound: there is none.
            Conflict: no admin would be left.
        """
        key = self.context.keys.user(_checked_name(name))

        def attempt(change: Change) -> User:
            old = change.read_or_none(User, key)
            if old is None:
                if change.exists(key):
                    raise Conflict(f"user {name!r} can't be read; `admin-user create {name}` gives it a new token")
                raise NotFound(_absent(name))
            self._keep_an_admin(change, without=name)
            change.delete(key)
            return old

        return apply(self.context.cluster, attempt, self.auditing)

    def _keep_an_admin(self, change: Change, without: str) -> None:
        """Guard another admin, who must still exist when the change is made."""
        for entry, user in readable(User, change.list(self.context.keys.users()).entries):
            if user.role == "admin" and user.name != without:
                change.guard(User, entry)
                return
        raise Conflict(f"{without!r} is the last admin; create another admin first")


class KnownUsers:
    """The users as a service process knows them: read once, then kept up to date by a watch.

    A request costs no read of etcd, and a revoked token is refused as soon as the watch reports it. While etcd is away
    the known users stay valid: the API can neither read nor change anything then.
    """

    def __init__(self, cluster: Cluster, keys: Keys) -> None:
        """Read nothing yet, because etcd may be away."""
        self._cluster, self._prefix, self._marker = cluster, keys.users(), keys.users_existed()
        self._ever_existed = False
        self._loading = threading.Lock()
        self._users: Mapping[str, User | None] | None = None
        self._watch: Watch | None = None
        self._epoch = EpochWatch(cluster, keys, self._look_again)

    @property
    def loaded(self) -> bool:
        return self._users is not None

    @property
    def exist(self) -> bool:
        """Whether there is any user, readable or not. ``load`` comes first."""
        return bool(self._known())

    @property
    def ever_existed(self) -> bool:
        """Whether there is or was any user, as far as etcd or this process remembers. ``load`` comes first."""
        return self._ever_existed or self.exist

    @property
    def damaged(self) -> tuple[str, ...]:
        """The names of users that can't be read; empty before ``load``."""
        return tuple(sorted(name for name, user in (self._users or {}).items() if user is None))

    def load(self) -> None:
        """Read the users, unless they are read already.

        Raises:
            Unknown: etcd gives no answer.
        """
        with self._loading:
            if self._users is not None:
                return
            self._epoch.read()
            listing = self._cluster.list(self._prefix)
            marked = self._cluster.get(self._marker) is not None
            users = self._decoded(listing.entries)
            if users and not marked:
                self._mark()  # made by an earlier version, or by hand
            self._ever_existed = marked or bool(users)
            self._users = users
            if not self._ever_existed:
                logger.warning(
                    "no users yet: only the service's Unix socket may be used; make the first user with:"
                    " outrider database init"
                )
            try:
                self._watch = self._cluster.watch(self._prefix, listing.revision + 1, self._heard)
            except OutriderError:
                self._users = None
                raise
            self._epoch.start()

    def _mark(self) -> None:
        put = Put(key=self._marker, value=encode(UsersExisted()))
        try:
            self._cluster.txn((CreatedAt(key=self._marker, revision=0),), (put,))
        except OutriderError as error:
            logger.bind(error_kind=error.kind, cause=str(error), retry=True).warning("users not marked as existing")

    def all(self) -> Mapping[str, User]:
        """The users that can be read, by name. ``load`` comes first."""
        return {name: user for name, user in self._known().items() if user is not None}

    def _known(self) -> Mapping[str, User | None]:
        assert self._users is not None, "not loaded"
        return self._users

    def of_token(self, token: str) -> User | None:
        """The user with that token, or None. Compares every user in constant time, so the duration reveals nothing."""
        digest, found = digest_of(token), None
        for user in self.all().values():
            if hmac.compare_digest(user.token_sha256, digest):
                found = user
        return found

    def _look_again(self, why: str) -> None:
        """etcd was restored: a user that was removed or made since is there, or isn't, as the restored etcd says."""
        with self._loading:
            if self._watch is not None:
                self._watch.look_again()

    def _heard(self, event: WatchEvent) -> None:
        if isinstance(event, Resynced) or event.entry is not None:
            self._ever_existed = self._ever_existed or not isinstance(event, Resynced) or bool(event.listing.entries)
        # A new mapping each time: readers on other threads see the old one or the new one, never a part of it.
        if isinstance(event, Resynced):
            self._users = self._decoded(event.listing.entries)
            return
        others = {name: user for name, user in self._known().items() if name != event.key.removeprefix(self._prefix)}
        self._users = others if event.entry is None else others | self._decoded((event.entry,))

    def _decoded(self, entries: Iterable[Entry]) -> dict[str, User | None]:
        """By the names in the keys: a user that can't be read stays a user whom nobody can be."""
        return {entry.key.removeprefix(self._prefix): read_or_none(User, entry.key, entry.value) for entry in entries}


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"user {name!r}: use 1 to 64 letters, digits or . _ @ + - and begin with a letter or a digit")
    return name


def _absent(name: str) -> str:
    return f"no user {name!r}; `admin-user list` shows them, `admin-user create` adds one"
