"""An etcd that lives in memory: the store, its clients, and the trouble between them.

``FakeEtcd`` is the store; ``FakeEtcd.client()`` gives one ``Cluster`` per pretended process, so each can be cut off on
its own. ``tests/contracts/test_cluster.py`` holds it to the promises of the real one.

Deliveries come in two ways. ``threaded=True``: every watch has its thread, as the real one. ``threaded=False``: nothing
is delivered until the test says so (``deliver_next``, ``settle``), in an order that the test may choose: a simulation
with a seed is then repeatable. Lease time passes only by ``ManualClock.advance``.

Trouble, per client: ``cut_off``/``mend`` (no call gets through, watches stand still and resume later), ``lose_answers``
(the call happens, its answer doesn't arrive), ``hold``/``release`` (calls hang until their time limit), and
``trouble``, a function of one's own that is asked before and after every call and may raise.
"""

import itertools
import math
import threading
import traceback
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from outrider.core.errors import Refused, Unknown
from outrider.etcd.seam import (
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    Entry,
    KeyChanged,
    Listing,
    ModifiedAt,
    NotNewer,
    Op,
    Put,
    ReadOnly,
    Resynced,
    TxnResult,
    WatchEvent,
)
from tests.sim.manual_clock import ManualClock

MAX_TXN_OPS = 128  # etcd's --max-txn-ops
MAX_REQUEST_BYTES = 1_572_864  # etcd's --max-request-bytes

Moment = Literal["before", "after"]
Trouble = Callable[[str, Moment], None]


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    ends_at: float


class FakeEtcd:
    """The store: keys with revisions, leases, a history that watches read, compaction."""

    def __init__(self, clock: ManualClock | None = None, *, threaded: bool = True) -> None:
        self.clock = clock or ManualClock()
        self.threaded = threaded
        self.changed = threading.Condition(threading.RLock())
        self.revision = 1  # an empty etcd is at revision 1
        self.compacted = 0
        self.entries: dict[str, Entry] = {}
        self.leases: dict[int, _Lease] = {}
        self.watches: list[FakeWatch] = []
        self._history: list[KeyChanged] = []
        self._dropped = 0
        self._lease_ids = itertools.count(1001)
        self.full = False  # NOSPACE: etcd refuses every put, also one whose comparison would not hold
        self.clock.on_moved(self.expire)

    def client(self, name: str = "client", *, timeout_s: float = 3.0) -> "FakeCluster":
        """A connection of its own, to be cut off on its own. ``timeout_s`` is how long ``hold`` makes a call hang."""
        return FakeCluster(self, name, timeout_s)

    def restore(self, entries: Mapping[str, Entry], revision: int | None = None) -> None:
        """Be an older copy of this store, as after ``etcdctl snapshot restore``.

        Nobody is told: the copy has overtaken everybody who watches, so no watch can notice it by itself.

        Args:
            entries: What is in it.
            revision: What it has come to since; default: the present one.
        """
        with self.changed:
            self.entries = dict(entries)
            self.revision = max(self.revision, revision or 0)
            self.leases.clear()

    def compact(self, revision: int | None = None) -> None:
        """Forget what happened before ``revision`` (default: the present one). Connected watches have it already."""
        with self.changed:
            revision = self.revision if revision is None else revision
            for watch in self.watches:
                watch.take_over()
            self.compacted = max(self.compacted, revision)
            keep = bisect_left(self._history, self.compacted, key=lambda change: change.revision)
            self._dropped += keep
            del self._history[:keep]

    def expire(self) -> None:
        """End the leases whose time is up."""
        with self.changed:
            for lease in [id for id, lease in self.leases.items() if lease.ends_at <= self.clock()]:
                self.end_lease(lease)

    def end_lease(self, lease: int) -> bool:
        """Remove a lease and, in one revision, its keys."""
        with self.changed:
            if self.leases.pop(lease, None) is None:
                return False
            self.apply([Delete(key=key) for key, entry in sorted(self.entries.items()) if entry.lease == lease])
            return True

    def apply(self, ops: list[Put | Delete]) -> None:
        """Write ``ops`` at one new revision; nothing changes the revision when there is nothing to change."""
        with self.changed:
            ops = [op for op in ops if isinstance(op, Put) or op.key in self.entries]
            if not ops:
                return
            self.revision += 1
            for op in ops:
                entry: Entry | None = None
                if isinstance(op, Put):
                    old = self.entries.get(op.key)
                    entry = Entry(
                        key=op.key,
                        value=op.value,
                        create_revision=old.create_revision if old else self.revision,
                        mod_revision=self.revision,
                        lease=op.lease,
                    )
                    self.entries[op.key] = entry
                else:
                    del self.entries[op.key]
                self._history.append(KeyChanged(key=op.key, entry=entry, revision=self.revision))
            self.changed.notify_all()

    def listing(self, covers: Callable[[str], bool]) -> Listing:
        with self.changed:
            found = tuple(entry for key, entry in sorted(self.entries.items()) if covers(key))
            return Listing(entries=found, revision=self.revision)

    def new_lease(self, ttl_s: float) -> int:
        with self.changed:
            lease = next(self._lease_ids)
            self.leases[lease] = _Lease(ttl_s=ttl_s, ends_at=self.clock() + ttl_s)
            return lease

    def position_of(self, revision: int) -> int:
        """Where the first change at or after ``revision`` stands in the history."""
        return self._dropped + bisect_left(self._history, revision, key=lambda change: change.revision)

    @property
    def end(self) -> int:
        return self._dropped + len(self._history)

    def change_at(self, position: int) -> KeyChanged:
        return self._history[position - self._dropped]

    def waiting(self) -> "list[FakeWatch]":
        """The watches that have something to deliver now."""
        with self.changed:
            return [watch for watch in self.watches if watch.has_next()]

    def deliver_next(self, choose: Callable[[list["FakeWatch"]], "FakeWatch"] = lambda watches: watches[0]) -> bool:
        """Deliver one event of one watch, which ``choose`` picks (``random.Random(seed).choice``); False when idle."""
        assert not self.threaded, "the watches of a threaded store deliver by themselves"
        waiting = self.waiting()
        return bool(waiting) and choose(waiting).deliver_one()

    def settle(self, limit: int = 100_000) -> int:
        """Deliver until nothing is left; returns how many. Fails after ``limit``: then they feed themselves."""
        for count in range(limit):
            if not self.deliver_next():
                return count
        raise AssertionError(f"{limit} deliveries and still no rest")


class FakeWatch:
    """A running watch on a ``FakeEtcd``: reads the history from its own place on."""

    def __init__(
        self, client: "FakeCluster", prefix: str, revision: int, deliver: Callable[[WatchEvent], None], exact: bool
    ) -> None:
        self.client, self.prefix, self.exact = client, prefix, exact
        self._store = client.store
        self._deliver = deliver
        self._from_revision = revision
        self._position = self._store.position_of(revision)
        self._pending: deque[WatchEvent] = deque()
        self._closed = False
        self._thread: threading.Thread | None = None
        if self._store.threaded:
            self._thread = threading.Thread(target=self._run, name=f"outrider-fake-watch {prefix}", daemon=True)
            self._thread.start()

    def covers(self, key: str) -> bool:
        return key == self.prefix if self.exact else key.startswith(self.prefix)

    def has_next(self) -> bool:
        """Whether an event could be delivered now."""
        with self._store.changed:
            if self._closed or not self.client.connected:
                return False
            self._fetch(1)
            return bool(self._pending)

    def take_over(self) -> None:
        """Fetch everything that happened so far, as a connected stream has before the store forgets it."""
        if not self._closed and self.client.connected:
            self._fetch(None)

    def _fetch(self, wanted: int | None) -> None:
        store = self._store
        if self._from_revision < store.compacted:
            listing = store.listing(self.covers)
            self._pending.append(Resynced(listing=listing))
            self._from_revision, self._position = listing.revision + 1, store.end
        while self._position < store.end and (wanted is None or len(self._pending) < wanted):
            change = store.change_at(self._position)
            self._position += 1
            self._from_revision = max(self._from_revision, change.revision)
            if change.revision >= self._from_revision and self.covers(change.key):
                self._pending.append(replace(change, more=self._goes_on(change)))
        if self._position == store.end:
            self._from_revision = max(self._from_revision, store.revision + 1)

    def _goes_on(self, change: KeyChanged) -> bool:
        """Whether the same transaction has changed another key that is watched here."""
        store, position = self._store, self._position
        while position < store.end and store.change_at(position).revision == change.revision:
            if self.covers(store.change_at(position).key):
                return True
            position += 1
        return False

    def deliver_one(self) -> bool:
        """Deliver the next event, on the thread of the caller; False when there is none."""
        with self._store.changed:
            if not self.has_next():
                return False
            event = self._pending.popleft()
        self._deliver(event)
        return True

    def look_again(self) -> None:
        with self._store.changed:
            listing = self._store.listing(self.covers)
            self._pending.clear()
            self._pending.append(Resynced(listing=listing))
            self._from_revision, self._position = listing.revision + 1, self._store.end
            self._store.changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._store.changed:
                self._store.changed.wait_for(lambda: self._closed or self.has_next())
                if self._closed:
                    return
            try:
                self.deliver_one()
            except Exception:  # noqa: BLE001 (as the real one: a bug in one delivery doesn't cost the ones after it)
                traceback.print_exc()

    def close(self) -> None:
        with self._store.changed:
            self._closed = True
            if self in self._store.watches:
                self._store.watches.remove(self)
            self._store.changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


class FakeCluster:
    """One client of a ``FakeEtcd``; implements ``Cluster``.

    Attributes:
        trouble: Asked with the name of every call, ``"before"`` it happens and ``"after"`` it happened. What it raises
            is what the caller gets: before, the call doesn't happen; after, it did.
        calls: Names of all calls made, in order.
    """

    def __init__(self, store: FakeEtcd, name: str, timeout_s: float) -> None:
        self.store, self.name, self.timeout_s = store, name, timeout_s
        self.connected = True
        self.trouble: Trouble | None = None
        self.calls: list[str] = []
        self._lost_answers = 0
        self._gate = threading.Event()
        self._gate.set()
        self._closed = False

    def cut_off(self) -> None:
        """From now on no call gets through, and no watch delivers."""
        with self.store.changed:
            self.connected = False

    def mend(self) -> None:
        """Undo ``cut_off``; watches resume where they stood, or resync."""
        with self.store.changed:
            self.connected = True
            self.store.changed.notify_all()

    def lose_answers(self, count: int = 1) -> None:
        """The next ``count`` calls that write happen, and then raise ``Unknown``."""
        self._lost_answers = count

    def hold(self) -> None:
        """From now on calls hang, each until its time limit, and don't happen."""
        self._gate.clear()

    def release(self) -> None:
        """Undo ``hold``: the calls that still hang now happen."""
        self._gate.set()

    def get(self, key: str) -> Entry | None:
        with self._call("get"):
            return self.store.entries.get(key)

    def list(self, prefix: str, *, exact: bool = False) -> Listing:
        with self._call("list"):
            return self.store.listing(lambda key: key == prefix if exact else key.startswith(prefix))

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        # without operations it only reads what it compares
        with self._call("txn" if ops else "get", writes=bool(ops)):
            _refuse_bad(compares, ops)
            store = self.store
            if store.full and any(isinstance(op, Put) for op in ops):
                raise ReadOnly("mvcc: database space exceeded")
            if not all(self._holds(compare) for compare in compares):
                keys = dict.fromkeys(compare.key for compare in compares)
                found = tuple(store.entries[key] for key in keys if key in store.entries)
                return TxnResult(succeeded=False, revision=store.revision, found=found)
            writes: list[Put | Delete] = []
            for op in ops:
                if isinstance(op, DeletePrefix):
                    writes += [Delete(key=key) for key in sorted(store.entries) if key.startswith(op.prefix)]
                else:
                    if isinstance(op, Put) and op.lease and op.lease not in store.leases:
                        raise Refused(f"etcd (fake): requested lease not found: {op.lease}")
                    writes.append(op)
            store.apply(list(dict.fromkeys(writes)))
            return TxnResult(succeeded=True, revision=store.revision)

    def _holds(self, compare: Compare) -> bool:
        entry = self.store.entries.get(compare.key)
        match compare:
            case CreatedAt(revision=revision):
                return revision == (entry.create_revision if entry else 0)
            case ModifiedAt(revision=revision):
                return revision == (entry.mod_revision if entry else 0)
            case NotNewer(key=prefix, revision=revision):
                below = (one for key, one in self.store.entries.items() if key.startswith(prefix))
                return all(one.mod_revision <= revision for one in below)

    def grant(self, ttl_s: float) -> int:
        if ttl_s <= 0:
            raise ValueError(f"a lease lives longer than {ttl_s} s")
        with self._call("grant", writes=True):
            if self.store.full:
                raise ReadOnly("mvcc: database space exceeded")
            return self.store.new_lease(math.ceil(ttl_s))

    def keep_alive(self, lease: int) -> float:
        with self._call("keep_alive", writes=True):
            held = self.store.leases.get(lease)
            if held is None:
                return 0.0
            held.ends_at = self.store.clock() + held.ttl_s
            return held.ttl_s

    def revoke(self, lease: int) -> None:
        with self._call("revoke", writes=True):
            self.store.end_lease(lease)

    def watch(
        self, prefix: str, from_revision: int, deliver: Callable[[WatchEvent], None], *, exact: bool = False
    ) -> FakeWatch:
        if from_revision < 1:
            raise ValueError("list first, then watch from the listing's revision + 1")
        self.calls.append("watch")
        with self.store.changed:
            watch = FakeWatch(self, prefix, from_revision, deliver, exact)
            self.store.watches.append(watch)
            self.store.changed.notify_all()
        return watch

    def close(self) -> None:
        self._closed = True
        for watch in [watch for watch in self.store.watches if watch.client is self]:
            watch.close()

    @contextmanager
    def _call(self, name: str, *, writes: bool = False) -> Iterator[None]:
        self.calls.append(name)
        if not self._gate.wait(self.timeout_s):
            raise Unknown(f"etcd (fake) doesn't answer ({name}) in {self.timeout_s} s")
        if not self.connected or self._closed:
            raise Unknown(f"etcd (fake): no connection for {name}")
        if self.trouble is not None:
            self.trouble(name, "before")
        with self.store.changed:
            self.store.expire()
            yield
        if self.trouble is not None:
            self.trouble(name, "after")
        if writes and self._lost_answers:
            self._lost_answers -= 1
            raise Unknown(f"etcd (fake): the answer to {name} was lost")


def _refuse_bad(compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> None:
    """Refuse what etcd refuses before it looks at any key."""
    if max(len(compares), len(ops)) > MAX_TXN_OPS:
        raise Refused("etcd (fake): too many operations in txn request")
    if sum(len(op.value) for op in ops if isinstance(op, Put)) > MAX_REQUEST_BYTES:
        raise Refused("etcd (fake): request is too large")
    puts = [op.key for op in ops if isinstance(op, Put)]
    gone = [op.key for op in ops if isinstance(op, Delete)]
    prefixes = tuple(op.prefix for op in ops if isinstance(op, DeletePrefix))
    if len(set(puts)) < len(puts) or any(key in gone or key.startswith(prefixes) for key in puts):
        raise Refused("etcd (fake): duplicate key given in txn request")
