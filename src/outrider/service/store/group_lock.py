"""The group lock: within this process, one thread at a time writes the rollout of a group.

Correctness does not need the lock: the transaction compares the rollout's revision with every other writer. But of a
hundred threads that try at once, ninety-nine lose, again and again. With the lock each thread wins at its first try,
and only other processes are rivals.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from outrider.core.errors import DriverError
from outrider.etcd.seam import Cluster
from outrider.service.store.changes import Change, Unaudited, apply

T = TypeVar("T")

STRIPES = 64


class NeedsGroupLock(Exception):
    """The attempt is about to write the rollout, but does not hold the group lock yet."""


class GroupLock:
    """One lock per group for the threads of this process; by chance, two groups may share a lock."""

    def __init__(self) -> None:
        self._locks = tuple(threading.Lock() for _ in range(STRIPES))

    def apply(self, cluster: Cluster, name: str, attempt: Callable[[Change, "Leases"], T], auditing: Unaudited) -> T:
        """As ``changes.apply``; the attempt runs again under the lock when it raises ``NeedsGroupLock``."""
        try:
            return _attempts(cluster, attempt, auditing, has_group_lock=False)
        except NeedsGroupLock:
            with self._locks[hash(name) % STRIPES]:
                return _attempts(cluster, attempt, auditing, has_group_lock=True)

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Hold the lock of a group while the block runs."""
        with self._locks[hash(name) % STRIPES]:
            yield


class Leases:
    """The leases of one change: the lease of a failed attempt is revoked.

    Attributes:
        has_group_lock: No other thread of this process writes the group's rollout now.
    """

    def __init__(self, cluster: Cluster, *, has_group_lock: bool) -> None:
        self._cluster, self._lease, self._key = cluster, 0, ""
        self.has_group_lock = has_group_lock

    def new(self, ttl_s: float, key: str) -> int:
        """A lease for the keys that this attempt writes, among them ``key``.

        Raises:
            NeedsGroupLock: wait for the group lock first.
        """
        if not self.has_group_lock:
            raise NeedsGroupLock
        self.give_back()
        self._lease, self._key = self._cluster.grant(ttl_s), key
        return self._lease

    def give_back(self) -> None:
        """Revoke the lease of an attempt that was not committed; when etcd does not answer, the lease expires.

        The attempt may have been committed all the same: its answer was lost, and another change followed. The lease is
        kept then; otherwise a grant would end that the next attempt still finds.
        """
        lease, self._lease = self._lease, 0
        if not lease:
            return
        try:
            entry = self._cluster.get(self._key)
            if entry is None or entry.lease != lease:
                self._cluster.revoke(lease)
        except DriverError:
            return


def _attempts(
    cluster: Cluster, attempt: Callable[[Change, Leases], T], auditing: Unaudited, *, has_group_lock: bool
) -> T:
    leases = Leases(cluster, has_group_lock=has_group_lock)

    def one(change: Change) -> T:
        leases.give_back()
        return attempt(change, leases)

    try:
        return apply(cluster, one, auditing)
    except DriverError:
        # Perhaps the key was written and has this lease: both expire unless the next attempt finds them.
        raise
    except BaseException:
        leases.give_back()
        raise
