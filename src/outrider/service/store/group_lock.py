"""The group lock: one at a time per group within this process, for those who write a group's rollout.

Exactness doesn't need it: the transaction compares the rollout's revision, whoever else writes. But of a hundred
threads that try at once ninety-nine lose, again and again; in a line each wins at the first try, and only the other
processes are rivals.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from outrider.core.errors import DriverError
from outrider.etcd.seam import Cluster
from outrider.service.store.changes import Change, Unaudited, apply

T = TypeVar("T")

STRIPES = 64


class NeedsGroupLock(Exception):
    """The attempt is going to write the rollout, and doesn't hold the group lock yet."""


class GroupLock:
    """Lets the threads of this process pass one by one, per group; groups may share a line by chance."""

    def __init__(self) -> None:
        self._locks = tuple(threading.Lock() for _ in range(STRIPES))

    def apply(self, cluster: Cluster, name: str, attempt: Callable[[Change, "Leases"], T], auditing: Unaudited) -> T:
        """As ``changes.apply``; the attempt runs again under the lock when it raises ``NeedsGroupLock``."""
        try:
            return _attempts(cluster, attempt, auditing, has_group_lock=False)
        except NeedsGroupLock:
            with self._locks[hash(name) % STRIPES]:
                return _attempts(cluster, attempt, auditing, has_group_lock=True)


class Leases:
    """The leases of one change: one of an attempt that came to nothing is given back.

    Attributes:
        has_group_lock: Nobody else in this process writes the group's rollout now.
    """

    def __init__(self, cluster: Cluster, *, has_group_lock: bool) -> None:
        self._cluster, self._lease, self._key = cluster, 0, ""
        self.has_group_lock = has_group_lock

    def new(self, ttl_s: float, key: str) -> int:
        """A lease for what this attempt writes, ``key`` among it.

        Raises:
            NeedsGroupLock: wait for the group lock first.
        """
        if not self.has_group_lock:
            raise NeedsGroupLock
        self.give_back()
        self._lease, self._key = self._cluster.grant(ttl_s), key
        return self._lease

    def give_back(self) -> None:
        """End the lease of an attempt that wasn't committed; when etcd doesn't answer it ends by itself.

        It may have been committed all the same: the answer was lost, and others wrote after it. Then it is kept, or a
        grant would end that the next attempt finds standing.
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
        # Perhaps it was written, and then its key hangs on the lease: both end by themselves if nobody comes.
        raise
    except BaseException:
        leases.give_back()
        raise
