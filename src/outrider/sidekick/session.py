"""What all instances of a process share: one connection to etcd, one lease, threads to borrow, and a clock."""

import threading
from typing import Protocol

from outrider.clocks import SuspendAwareClock
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.lease import LeaseKeeper
from outrider.etcd.seam import Cluster
from outrider.model.keys import Keys
from outrider.pool import ElasticPool


class Member(Protocol):
    """An instance whose keys hang on the session's lease. None of these may block."""

    def lease_granted(self) -> None:
        """There is a new lease."""

    def lease_lost(self, why: str) -> None:
        """What hung on the lease is lost, or may be any moment."""

    def store_restored(self) -> None:
        """etcd was set back: read everything anew. A new lease follows."""


class EtcdSession:
    """A connection with a lease, for one or more instances of one process; with the threads that they borrow.

    A lease that is lost is lost for all of them; an instance that ends removes its own keys, and nobody else's.
    """

    def __init__(self, cluster: Cluster, keys: Keys, ttl_s: float) -> None:
        """Prepare; ``start`` begins. The session closes ``cluster``."""
        self.cluster, self.keys = cluster, keys
        self.pool, self.clock = ElasticPool("outrider-work"), SuspendAwareClock()
        self._keeper = LeaseKeeper(cluster, ttl_s, on_granted=self._granted, on_lost=self._lost)
        self._epoch = EpochWatch(cluster, keys, self._restored)
        self._mutex = threading.Lock()
        self._members: list[Member] = []

    @property
    def lease(self) -> int | None:
        """The lease's id while it can be trusted, else None."""
        return self._keeper.lease

    @property
    def epoch(self) -> str:
        """The newest token of etcd's epoch that was seen."""
        return self._epoch.newest

    @property
    def silent_s(self) -> float | None:
        """Seconds since etcd last told something of its own accord; None: never."""
        return self._epoch.silent_s

    def start(self) -> None:
        """Begin to ask for a lease; returns at once."""
        self.clock.start()
        self._keeper.start()
        self._epoch.start()

    def join(self, member: Member) -> None:
        """Tell ``member`` of everything from now on; a lease that there is already is told to nobody."""
        with self._mutex:
            self._members.append(member)

    def leave(self, member: Member) -> None:
        """Tell it nothing more."""
        with self._mutex:
            self._members.remove(member)

    def close(self) -> None:
        """End the lease with all that hangs on it, and the connection."""
        self._epoch.close()
        self._keeper.close(revoke=True)
        self.cluster.close()
        self.clock.close()
        self.pool.close()

    def _all(self) -> tuple[Member, ...]:
        with self._mutex:
            return tuple(self._members)

    def _granted(self, lease: int) -> None:
        for member in self._all():
            member.lease_granted()

    def _lost(self, lease: int, why: str) -> None:
        for member in self._all():
            member.lease_lost(why)

    def _restored(self, why: str) -> None:
        """What was read is read anew, and what hung on the lease is written anew, under another."""
        for member in self._all():
            member.store_restored()
        self._keeper.forsake(f"etcd was restored: {why}")
