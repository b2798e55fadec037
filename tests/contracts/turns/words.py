"""Short words for the tests of the lock: instances that want turns, and a client that counts and can be troubled."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from outrider.core.errors import Unknown
from outrider.etcd.seam import Cluster, Compare, Entry, Listing, Op, TxnResult, Watch, WatchEvent
from outrider.model.documents import Contender
from outrider.model.keys import Keys, group_scope
from outrider.turns.claim import Denied, News, Queued, TurnGranted
from outrider.turns.lock import Permission, Turn, TurnLock
from outrider.turns.turns import free_turn, read_scope
from tests.support.waiting import eventually

APP, GROUP = "shop", "web"
SCOPE = group_scope(APP, GROUP)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TTL_S = 60.0  # no test waits for it: leases are revoked


@dataclass(slots=True)
class Client:
    """A ``Cluster`` that counts its calls and does to transactions what a test wants.

    Attributes:
        calls: Names of all calls made, in order.
        away: No call gets through.
        lost_answers: So many transactions happen and then raise ``Unknown``.
        away_after_loss: After a lost answer no further call gets through.
        late: So many transactions raise ``Unknown`` and wait in ``given_up`` to be carried out by the test.
        before_txn: Called once, before the next transaction.
    """

    store: Cluster
    calls: list[str] = field(default_factory=list)
    away: bool = False
    lost_answers: int = 0
    away_after_loss: bool = False
    late: int = 0
    given_up: list[tuple[tuple[Compare, ...], tuple[Op, ...]]] = field(default_factory=list)
    before_txn: Callable[[], None] | None = None

    def _count(self, name: str) -> None:
        self.calls.append(name)
        if self.away:
            raise Unknown("etcd is away")

    def get(self, key: str) -> Entry | None:
        self._count("get")
        return self.store.get(key)

    def list(self, prefix: str, *, exact: bool = False) -> Listing:
        self._count("list")
        return self.store.list(prefix, exact=exact)

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        self._count("txn")
        if self.before_txn is not None:
            before, self.before_txn = self.before_txn, None
            before()
        if self.late:
            self.late -= 1
            self.given_up.append((compares, ops))
            raise Unknown("given up")
        result = self.store.txn(compares, ops)
        if self.lost_answers:
            self.lost_answers -= 1
            self.away = self.away or self.away_after_loss
            raise Unknown("the answer was lost")
        return result

    def grant(self, ttl_s: float) -> int:
        self._count("grant")
        return self.store.grant(ttl_s)

    def keep_alive(self, lease: int) -> float:
        self._count("keep_alive")
        return self.store.keep_alive(lease)

    def revoke(self, lease: int) -> None:
        self._count("revoke")
        self.store.revoke(lease)

    def watch(
        self, prefix: str, from_revision: int, deliver: Callable[[WatchEvent], None], *, exact: bool = False
    ) -> Watch:
        self._count("watch")
        return self.store.watch(prefix, from_revision, deliver, exact=exact)

    def close(self) -> None:
        self.store.close()


class Start(Protocol):
    """Starts an instance; see ``Instance``."""

    def __call__(self, name: str, **where: Any) -> "Instance": ...


def contender(
    name: str, *, app: str = APP, group: str = GROUP, shared_scope: str = "", labels: dict[str, str] | None = None
) -> Contender:
    """An instance, of the group that most tests are about."""
    return Contender(app=app, group=group, instance=name, shared_scope=shared_scope, labels=labels or {})


class Instance:
    """One process of one instance.

    Attributes:
        news: What the lock delivered, oldest first.
    """

    def __init__(self, store: Cluster, keys: Keys, name: str, **where: Any) -> None:
        """``where``: other facts of its ``Contender`` than those of ``contender``."""
        self.client, self.keys, self.name = Client(store), keys, name
        self.lock = TurnLock(self.client, keys, contender(name, **where), clock=lambda: NOON)
        self.lease = store.grant(TTL_S)
        self.news: list[News] = []

    def acquire(
        self,
        update: str | None = None,
        *,
        slots: int = 1,
        conditions: tuple[Compare, ...] = (),
        permission: Permission | None = None,
        release: str = "2.0.0",
    ) -> None:
        self.lock.acquire(
            lease=self.lease,
            update=update or f"update-of-{self.name}",
            release=release,
            slots=slots,
            conditions=conditions,
            permission=permission,
            deliver=self.news.append,
        )

    def turn(self) -> Turn:
        """The turn, once it is granted."""
        last = eventually(lambda: self._last(TurnGranted))
        assert isinstance(last, TurnGranted)
        return last.turn

    def place(self) -> Queued:
        """The place in the queue, once there is one."""
        last = eventually(lambda: self._last(Queued))
        assert isinstance(last, Queued)
        return last

    def denial(self) -> Denied:
        """Why there is no turn, once that is known."""
        last = eventually(lambda: self._last(Denied))
        assert isinstance(last, Denied)
        return last

    def wait_at(self, rank: int) -> None:
        """Return when the instance is told that it stands at ``rank``."""
        eventually(lambda: isinstance(last := self._last(Queued), Queued) and last.rank == rank)

    def _last(self, kind: type[News]) -> News | None:
        return self.news[-1] if self.news and isinstance(self.news[-1], kind) else None


def free_by_hand(store: Cluster, keys: Keys, number: int) -> None:
    free_turn(store, keys, SCOPE, read_scope(store, keys, SCOPE), number, who="operator", at=NOON)


def has_both_watches(calls: list[str]) -> bool:
    """On the one ahead, and on its own place: the second is the last call before it rests."""
    return calls.count("watch") == 2
