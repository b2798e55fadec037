"""The real store behind the seam: etcd v3, on the stubs of ``etcd3`` with channels, time limits and watches of our own.

Which promise is kept where: which node, time limits, tokens: ``etcd/channel.py``; watches: ``etcd/watch.py``; here is
what each call says to etcd.
"""

import builtins
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from etcd3 import etcdrpc

from outrider.core.errors import Refused, Unknown
from outrider.etcd.channel import Connection, Nodes
from outrider.etcd.errors import Compacted, TooLarge
from outrider.etcd.permissions import Asked, Denials, asked_in, explained
from outrider.etcd.seam import Compare, Entry, EtcdAddress, Listing, Op, PermissionDenied, TxnResult, WatchEvent
from outrider.etcd.watch import EtcdWatch
from outrider.etcd.watch_stream import WatchStream
from outrider.etcd.wire import compare_message, encode_key, entry_of, op_message, prefix_range
from outrider.pool import ElasticPool

PAGE_ENTRIES = 1000


def connect(address: EtcdAddress, *, on_bug: Callable[[BaseException], None] | None = None) -> "EtcdCluster":
    """A connection to etcd; nothing is sent yet, so etcd may be away.

    Args:
        on_bug: Gets what the delivery of a watch raised, from the watch's thread.

    Raises:
        ConfigError: no endpoints, half of a pair of settings, or a PEM file that can't be read.
    """
    return EtcdCluster(Nodes(address), on_bug)


class EtcdCluster:
    """Implements ``Cluster``. ``timeout_s`` counts per call; for ``list`` per page of it."""

    def __init__(self, nodes: Nodes, on_bug: Callable[[BaseException], None] | None = None) -> None:
        self._nodes, self._on_bug = nodes, on_bug
        self._watches, self._pool = WatchStream(nodes), ElasticPool("outrider-etcd")
        self._denials = Denials()
        self._written: list[Callable[[int], None]] = []

    def tell_written(self, listener: Callable[[int], None]) -> None:
        """Call ``listener`` with etcd's revision after each transaction that wrote something."""
        self._written.append(listener)

    def tell_denials(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with what etcd doesn't permit at present, whenever that changes; empty: it permits all."""
        self._denials.tell(listener)

    def get(self, key: str) -> Entry | None:
        response = self._range("get", etcdrpc.RangeRequest(key=encode_key(key)))
        return entry_of(response.kvs[0]) if response.kvs else None

    def list(self, prefix: str, *, exact: bool = False) -> Listing:
        return self._list_all(*((encode_key(prefix), b"") if exact else prefix_range(prefix)))

    def _list_all(self, start: bytes, end: bytes) -> Listing:
        for _ in range(5):
            try:
                return self._list_pages(start, end)
            except Compacted:
                continue  # between two pages; a listing takes milliseconds, so one more try is enough in practice
        raise Unknown("etcd compacted its history five times during one listing; try again")

    def _list_pages(self, start: bytes, end: bytes) -> Listing:
        """Read page by page, all at the revision of the first one; smaller pages when one doesn't fit a message."""
        entries: builtins.list[Entry] = []
        revision, limit = 0, PAGE_ENTRIES
        while True:
            request = etcdrpc.RangeRequest(key=start, range_end=end, limit=limit, revision=revision)
            try:
                response = self._range("list", request)
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(limit // 8, 1)
                continue
            revision = revision or response.header.revision
            entries += map(entry_of, response.kvs)
            if not response.more:
                return Listing(entries=tuple(entries), revision=revision)
            start = response.kvs[-1].key + b"\0"

    def _range(self, what: str, request: Any) -> Any:
        asked = Asked(request.key, request.range_end, "read")
        with self._permitted(lambda: (asked,)):
            return self._call(what, lambda c: c.kv.Range, request, repeatable=True)

    @contextmanager
    def _permitted(self, asked: Callable[[], tuple[Asked, ...]]) -> Iterator[None]:
        """Name key, user and role where etcd permits it not, and remember that until it does."""
        try:
            yield
        except PermissionDenied as no:
            error = explained(self._nodes, asked())
            self._denials.denied(asked(), error)
            raise error from no
        self._denials.permitted(asked)

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        compared = dict.fromkeys(compare.key for compare in compares)
        request = etcdrpc.TxnRequest(
            compare=[compare_message(compare) for compare in compares],
            success=[op_message(op) for op in ops],
            failure=[etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=encode_key(key))) for key in compared],
        )
        with self._permitted(lambda: asked_in(compares, ops)):
            response = self._call("txn", lambda c: c.kv.Txn, request, repeatable=False)
        if response.succeeded and ops:
            for tell in self._written:
                tell(response.header.revision)
        found: tuple[Entry, ...] = ()
        if not response.succeeded:
            found = tuple(entry_of(kv) for each in response.responses for kv in each.response_range.kvs)
        return TxnResult(succeeded=response.succeeded, revision=response.header.revision, found=found)

    def grant(self, ttl_s: float) -> int:
        if ttl_s <= 0:
            raise ValueError(f"a lease lives longer than {ttl_s} s")
        request = etcdrpc.LeaseGrantRequest(TTL=math.ceil(ttl_s))
        response = self._call("grant", lambda c: c.lease.LeaseGrant, request, repeatable=False)
        return int(response.ID)

    def keep_alive(self, lease: int) -> float:
        request = etcdrpc.LeaseKeepAliveRequest(ID=lease)

        def ask(connection: Connection, limit_s: float, metadata: Any) -> Any:
            answers = connection.lease.LeaseKeepAlive(iter((request,)), timeout=limit_s, metadata=metadata)
            try:
                return next(answers, None)
            finally:
                answers.cancel()

        response = self._nodes.call("keep_alive", ask, repeatable=True)
        if response is None:
            raise Unknown("etcd doesn't answer (keep_alive): the server ended the stream")
        return float(response.TTL)

    def revoke(self, lease: int) -> None:
        try:
            self._call("revoke", lambda c: c.lease.LeaseRevoke, etcdrpc.LeaseRevokeRequest(ID=lease), repeatable=True)
        except Refused as no:
            if "lease not found" not in str(no):
                raise

    def watch(
        self, prefix: str, from_revision: int, deliver: Callable[[WatchEvent], None], *, exact: bool = False
    ) -> EtcdWatch:
        if from_revision < 1:
            raise ValueError("list first, then watch from the listing's revision + 1")
        start, end = (encode_key(prefix), b"") if exact else prefix_range(prefix)
        asked = Asked(start, end, "read")

        def denied(reason: str) -> PermissionDenied:
            error = explained(self._nodes, (asked,))
            self._denials.denied((asked,), error)
            return error

        def revision() -> int:
            request = etcdrpc.RangeRequest(key=start, range_end=end, limit=1, count_only=True)
            return int(self._call("get", lambda c: c.kv.Range, request, repeatable=True).header.revision)

        watch = EtcdWatch(
            self._watches,
            self._pool,
            start,
            end,
            from_revision,
            deliver,
            lambda: self._list_all(start, end),
            revision,
            timeout_s=self._nodes.timeout_s,
            on_bug=self._on_bug,
            denied=denied,
        )
        self._watches.add(watch)
        watch.start()
        return watch

    def close(self) -> None:
        watches = self._watches.close()
        for watch in watches:
            watch.stop()
        self._nodes.close()  # ends the calls that the watches may be in, so closing them takes no time
        for watch in watches:
            watch.close()
        self._watches.join()
        self._pool.close()

    def _call(self, what: str, method: Callable[[Connection], Any], request: Any, *, repeatable: bool) -> Any:
        def ask(connection: Connection, limit_s: float, metadata: Any) -> Any:
            return method(connection)(request, timeout=limit_s, metadata=metadata)

        return self._nodes.call(what, ask, repeatable=repeatable)
