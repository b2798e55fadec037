"""A copy of etcd that stands still: for answers that read much, and must not keep the read model waiting meanwhile."""

from bisect import bisect_left
from collections.abc import Callable, Mapping

from outrider.etcd.seam import Compare, Entry, Listing, Op, TxnResult, Watch, WatchEvent


class FrozenCopy:
    """All entries of one revision behind the seam. Implements ``Cluster`` as far as reading goes."""

    def __init__(self, revision: int, entries: Mapping[str, Entry]) -> None:
        self.revision = revision
        self._entries = entries
        self._keys = sorted(entries)

    def get(self, key: str) -> Entry | None:
        """As ``Cluster.get``."""
        return self._entries.get(key)

    def list(self, prefix: str, *, exact: bool = False) -> Listing:
        """As ``Cluster.list``."""
        if exact:
            entry = self._entries.get(prefix)
            return Listing(entries=() if entry is None else (entry,), revision=self.revision)
        found = []
        for number in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[number]
            if not key.startswith(prefix):
                break
            found.append(self._entries[key])
        return Listing(entries=tuple(found), revision=self.revision)

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        """Read the compared keys, as a transaction does whose comparison can't hold."""
        assert not ops, "a copy is only read"
        found = (self._entries.get(compare.key) for compare in compares)
        return TxnResult(succeeded=False, revision=self.revision, found=tuple(one for one in found if one is not None))

    def grant(self, ttl_s: float) -> int:
        raise AssertionError("a copy is only read")

    def keep_alive(self, lease: int) -> float:
        raise AssertionError("a copy is only read")

    def revoke(self, lease: int) -> None:
        raise AssertionError("a copy is only read")

    def watch(
        self, prefix: str, from_revision: int, deliver: Callable[[WatchEvent], None], *, exact: bool = False
    ) -> Watch:
        raise AssertionError("a copy is only read")

    def close(self) -> None:
        raise AssertionError("a copy is only read")
