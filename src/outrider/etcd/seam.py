"""The seam to etcd: what outrider asks of a key-value store, and nothing else.

``etcd/client.py`` is the real one; the simulator has a fake; ``tests/contracts`` holds both to the same promises:

- Every call ends within its time limit, in an answer or in an error; nothing blocks forever.
- A write whose answer was lost raises ``Unknown``: it may have happened. Guard it, then read before you repeat it.
- One key is written at most once in a transaction (etcd refuses more).
- Watches deliver every change once, in order of revision, or ``Resynced`` when the store has compacted it away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from outrider.core.errors import Refused, Unknown

DENIED_RETRY_S = 15.0
"""Pause after what etcd doesn't permit: a person must change a role before another attempt can help."""


class Unreachable(Unknown):
    """No node of etcd answered.

    ``str()`` is ``etcd doesn't answer (list): 10.0.0.1:2379: connection refused; 10.0.0.2:2379: no answer in time``.
    """

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        """Name the call in a word, and for each node that was asked its address and what went wrong."""
        super().__init__(f"etcd doesn't answer ({what}): {'; '.join(problems)}")


class ReadOnly(Refused):
    """etcd answers questions and takes no writes: its database is full, or it has found itself corrupt.

    It stays so until a person has acted (alarms don't end by themselves).
    """

    kind = "read-only"

    def __init__(self, reason: str) -> None:
        """Name etcd's own ``reason``."""
        super().__init__(
            f"etcd takes no writes: {reason}; make room (`etcdctl compact`, `etcdctl defrag`), then"
            " `etcdctl alarm disarm`"
        )


class PermissionDenied(Refused):
    """etcd is there, and this user may not do that; a person must change a role or a user.

    ``str()`` is ``etcd permits user web-a (role web-a) no write of /outrider/v1/...: permission denied; ...``.
    """

    kind = "permission"
    evidence = "no-permission"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key with its value as stored.

    Attributes:
        create_revision: Store revision at which the key was created (it restarts when a deleted key is written anew).
        mod_revision: Store revision of the last write.
        lease: Lease id the key hangs on, 0 for none.
    """

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All entries below a prefix, by key, as they were at ``revision``."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedAt:
    """Holds when the key's create revision equals ``revision``; 0 means the key must not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModifiedAt:
    """Holds when the key's mod revision equals ``revision``; 0 means the key must not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotNewer:
    """Holds when no key below the prefix ``key`` was written after ``revision``; also when there is none."""

    key: str
    revision: int


Compare = CreatedAt | ModifiedAt | NotNewer


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Write ``value``; ``lease`` 0 keeps it forever."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove one key; removing what isn't there is no error."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePrefix:
    """Remove every key that starts with ``prefix``."""

    prefix: str


Op = Put | Delete | DeletePrefix


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnResult:
    """What a transaction did.

    Attributes:
        succeeded: All comparisons held and all operations were applied; else nothing was written.
        revision: Store revision after the transaction.
        found: When it didn't succeed, the entries of the compared keys that exist, read in the same transaction.
    """

    succeeded: bool
    revision: int
    found: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged:
    """One key was written (``entry``) or removed (``entry`` is None) at ``revision``.

    A removal does not say why: the key was deleted, or its lease ran out.

    Attributes:
        more: Another change of the same transaction follows.
    """

    key: str
    entry: Entry | None
    revision: int
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resynced:
    """Changes were compacted away before they could be delivered, or the store was restored.

    This is the whole prefix now. Compare, don't add.
    """

    listing: Listing


WatchEvent = KeyChanged | Resynced


class Watch(Protocol):
    """A running watch."""

    def look_again(self) -> None:
        """List the prefix anew and deliver that as ``Resynced``; returns at once. For a store that was restored.

        A watch notices an older copy by itself as long as the copy is behind it, and can't when it has overtaken it.
        """

    def close(self) -> None:
        """Stop it; after this returns nothing more is delivered. Safe to call twice, and from a delivery."""


class Cluster(Protocol):
    """A linearizable key-value store with leases and watches (etcd v3). Every method may be called by any thread.

    Raises (every method): ``Unknown`` without an answer in time; ``Refused`` when the store says no (permission,
    bad request, too large), as ``ReadOnly`` when it takes no writes at all, as ``PermissionDenied`` when it doesn't
    permit it to us.
    """

    def get(self, key: str) -> Entry | None:
        """Read one key, linearizably."""

    def list(self, prefix: str, *, exact: bool = False) -> Listing:
        """Read all keys below ``prefix`` (or just that key when ``exact``) at one revision, however many megabytes."""

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        """Apply all ``ops`` if all ``compares`` hold, else nothing, in one atomic step."""

    def grant(self, ttl_s: float) -> int:
        """Make a lease that lives ``ttl_s`` seconds (whole seconds, rounded up) without keep-alive; returns its id."""

    def keep_alive(self, lease: int) -> float:
        """Renew a lease; returns the seconds it now lives, 0.0 when it is gone already."""

    def revoke(self, lease: int) -> None:
        """End a lease and remove its keys; ending what is gone is no error."""

    def watch(
        self, prefix: str, from_revision: int, deliver: Callable[[WatchEvent], None], *, exact: bool = False
    ) -> Watch:
        """Deliver every change below ``prefix`` (or of just that key when ``exact``) from ``from_revision`` on.

        ``deliver`` runs on a thread of the watch's own, one event at a time; it may call the cluster. Resuming after
        a broken stream, a restart, a fail-over, a compaction or a silent stream is the watch's business (P8).
        Returns once the watch is registered or after the call's time limit, whichever is first; it goes on trying.
        """

    def close(self) -> None:
        """End all watches and connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One etcd node, ``host`` and ``port``."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAddress:
    """Where and how to reach etcd.

    Attributes:
        endpoints: Tried in turn; the one that answered last is tried first.
        tls: TLS even without a CA: then the authorities of this machine are trusted.
        ca_file, cert_file, key_file: PEM files; a CA alone means TLS without a client certificate. They are read again
            when they have changed and a new connection is needed.
        user, password: etcd's own users; the token is renewed when the server forgets it.
        password_file: Where the password came from; it is read again at each sign-in.
        timeout_s: Time limit of one call, over all endpoints together.
    """

    endpoints: tuple[Endpoint, ...]
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    timeout_s: float = 3.0
