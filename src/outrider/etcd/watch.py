"""A watch that loses nothing and repeats nothing, over whatever happens to servers and connections (P8).

Theory. etcd numbers every change; a watch is a position in that row. We keep ``complete``, the revision up to which
everything was handed over, and the keys already seen at the one revision after it, because a transaction's changes
share a revision and may come in several messages. A watch is registered again at ``complete`` *inclusive*, and what is
known already is dropped: so the second half of a revision is not lost, and neither is a removal at exactly the
revision of a compaction (etcd has forgotten it, etcd-io/etcd#18089, #19179; asked one earlier, it says "compacted").

Threads. All watches of a connection share one stream (``etcd/watch_stream.py``), whose reader moves the position and
never waits for a watch. Deliveries are a serial queue of the watch's own, so one may take its time, call the store, or
close the watch, and delays no other watch. One whose deliveries are far behind leaves the stream until they have caught
up. What may hang, a listing or the question what is denied, is done on the pool while the watch is off the stream.
"""

import random
import threading
from collections.abc import Callable
from typing import Any, Protocol

from etcd3 import etcdrpc
from loguru import logger

from outrider.core.errors import DriverError, Refused
from outrider.etcd.seam import DENIED_RETRY_S, Listing, PermissionDenied, Resynced, WatchEvent
from outrider.etcd.wire import change_of, is_fragment
from outrider.pool import ElasticPool, SerialQueue

MAILBOX = 10_000  # events waiting for delivery, before the watch leaves the stream

_FRAGMENT = b"\x40\x01"  # field 8 of WatchCreateRequest, true; the client's stubs are older than this field
_STOP_WAIT_S = 5.0


class Broken(Exception):
    """The watch or its stream ended, for a reason that trying again may heal."""


class Stream(Protocol):
    """What a watch needs of the stream that it shares."""

    def want(self, watch: "EtcdWatch") -> None:
        """Register the watch, at its position; on the stream that is open or on the next one."""

    def want_later(self, watch: "EtcdWatch", delay_s: float) -> None:
        """The same, after a while."""

    def leave(self, watch: "EtcdWatch") -> None:
        """Take the watch off the stream; nothing more comes to it."""

    def renew(self, token: str | None) -> None:
        """Open another stream unless the one that is open was opened with another token than this."""

    def forget(self, watch: "EtcdWatch") -> None:
        """The watch is over."""


class EtcdWatch:
    """A running watch; implements ``Watch``."""

    def __init__(
        self,
        stream: Stream,
        pool: ElasticPool,
        key: bytes,
        range_end: bytes,
        from_revision: int,
        deliver: Callable[[WatchEvent], None],
        read: Callable[[], Listing],
        revision: Callable[[], int],
        *,
        timeout_s: float,
        on_bug: Callable[[BaseException], None] | None = None,
        denied: Callable[[str], PermissionDenied] = PermissionDenied,
    ) -> None:
        """Prepare; ``start`` runs it. ``read`` lists what is watched.

        Args:
            revision: The store's, linearizably; raises ``PermissionDenied`` when we may not read what is watched.
            timeout_s: How long ``start`` waits.
            on_bug: Gets what a delivery raised; it is logged in any case, and the deliveries go on.
            denied: Words what etcd doesn't permit.
        """
        self._shared, self._pool, self._timeout_s = stream, pool, timeout_s
        self._on_bug, self._denied = on_bug, denied
        self._key, self._range_end = key, range_end
        self._deliver, self._read, self.revision = deliver, read, revision
        self.name = key.decode(errors="replace")
        self._complete = from_revision - 1
        self._open = 0
        self._seen: set[bytes] = set()
        self._resumes = False
        self._starting = True
        self._failures = 0
        self._changed = threading.Condition()
        self._waiting = 0
        self._is_paused = self._relists = self._lists = False
        self._errands = 0
        self._deliveries = SerialQueue(pool)
        self._closing, self._settled = threading.Event(), threading.Event()
        self._refused: Refused | None = None

    # --- what its owner calls ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Return when etcd has registered the watch, or after the time limit.

        A connection may be closed by another thread while its watches begin: then this one never begins.

        Raises:
            Refused: etcd doesn't permit it; the watch is over.
        """
        self._shared.want(self)
        self._settled.wait(self._timeout_s)
        with self._changed:
            self._starting = False
            refused = self._refused
        if refused is not None:
            self.close()
            raise refused

    def look_again(self) -> None:
        """See ``Watch``."""
        self._list_anew()

    def stop(self) -> None:
        """Begin to close, without waiting."""
        self._closing.set()
        self._settled.set()
        self._deliveries.clear()
        self._shared.leave(self)

    def close(self) -> None:
        """See ``Watch``. A delivery under way is waited for: don't hold a lock that it takes."""
        self.stop()
        if not self._deliveries.join(_STOP_WAIT_S):
            logger.bind(watch=self.name).warning("a delivery of a closed watch still runs")
        if not self._deliveries.is_own_thread:
            with self._changed:
                if not self._changed.wait_for(lambda: self._errands == 0, self._timeout_s):
                    logger.bind(watch=self.name).warning("a call of a closed watch still runs")
        self._shared.forget(self)

    # --- what the stream calls --------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self._closing.is_set()

    def create_request(self) -> Any:
        """To register it at its position."""
        create = etcdrpc.WatchCreateRequest(
            key=self._key,
            range_end=self._range_end,
            # exact at first: asking for what exists already would cost up to 100 ms (etcd-io/etcd#16839)
            start_revision=max(self._complete, 1) if self._resumes else self._complete + 1,
            progress_notify=True,
        )
        create.MergeFromString(_FRAGMENT)
        return create

    def may_register(self) -> bool:
        """Whether it can be registered now; else it does first what it must, and then wants to be."""
        with self._changed:
            if self._closing.is_set() or self._is_paused or self._lists:
                return False
            if not self._relists:
                return True
        self._list_anew()
        return False

    def registered(self) -> None:
        """etcd has it."""
        self._resumes = True
        self._settled.set()

    def take(self, response: Any) -> None:
        """These changes came."""
        self._failures = 0
        following = [event.kv.mod_revision for event in response.events[1:]]
        following.append(response.events[-1].kv.mod_revision if is_fragment(response) else 0)
        for event, revision in zip(response.events, following, strict=True):
            self._take_event(event, more=event.kv.mod_revision == revision)
        with self._changed:
            self._is_paused = self._waiting > MAILBOX
            pauses = self._is_paused
        if pauses:
            self._shared.leave(self)
            self._go_on()  # the last delivery may have ended meanwhile

    def progressed(self, revision: int) -> None:
        """Everything up to ``revision`` has come."""
        self._failures = 0
        self._complete = max(self._complete, revision)

    def lost(self, why: str) -> None:
        """Changes can't be had any more, or the store is another one: everything is listed anew; off the stream."""
        self._list_anew(why)

    def rejected(self, reason: str, token: str | None) -> None:
        """etcd has ended it, or doesn't begin it; off the stream, which was opened with ``token``."""
        if "permission denied" in reason:
            self._run(lambda: self._look_at_denial(reason, token))
        else:
            self.failed(Broken(reason or "the server canceled the watch"))

    def failed(self, problem: Exception) -> None:
        """Try again after a while; off the stream."""
        if self._closing.is_set():
            return
        with self._changed:
            # later it may be an operator's slip that is mended soon; then nobody is left to be told
            if isinstance(problem, Refused) and self._starting:
                self._refused = problem
                self._closing.set()
                self._settled.set()
                return
        log = logger.bind(watch=self.name, error=str(problem), revision=self._complete, retry=True)
        denied = isinstance(problem, PermissionDenied)
        level = "ERROR" if denied else "DEBUG" if self._failures else "WARNING"
        log.log(level, "etcd does not permit the watch" if denied else "watch interrupted")
        self._shared.want_later(self, DENIED_RETRY_S if denied else pause_s(self._failures))
        self._failures = min(self._failures + 1, 10)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _take_event(self, event: Any, *, more: bool) -> None:
        kv = event.kv
        if kv.mod_revision <= self._complete:
            return
        if kv.mod_revision > self._open:
            self._open = kv.mod_revision
            self._complete = kv.mod_revision - 1
            self._seen.clear()
        if kv.key in self._seen:
            return
        self._seen.add(kv.key)
        self._post(change_of(event, more=more))

    def _post(self, event: WatchEvent) -> None:
        with self._changed:
            if self._closing.is_set():
                return
            self._waiting += 1
        self._deliveries.put(lambda: self._hand_over(event))

    def _hand_over(self, event: WatchEvent) -> None:
        try:
            if not self._closing.is_set():
                self._deliver(event)
        except Exception as error:  # noqa: BLE001 (a bug in one delivery must not cost the ones after it)
            logger.bind(watch=self.name).opt(exception=True).error("watch delivery failed")
            if self._on_bug is not None:
                self._on_bug(error)
        finally:
            with self._changed:
                self._waiting -= 1
            self._go_on()

    def _go_on(self) -> None:
        """Come back to the stream when the deliveries have caught up."""
        with self._changed:
            if not self._is_paused or self._waiting > MAILBOX // 2:
                return
            self._is_paused = False
        self._shared.want(self)

    def _list_anew(self, why: str = "the store was restored") -> None:
        with self._changed:
            self._relists = True
            if self._lists or self._closing.is_set():
                return
            self._lists = True
        self._shared.leave(self)
        self._run(lambda: self._list(why))

    def _list(self, why: str) -> None:
        """Read everything, hand that over, and go on from there."""
        with self._changed:
            self._relists = False
        try:
            listing = self._read()
        except DriverError as problem:
            with self._changed:
                self._relists, self._lists = True, False
            self.failed(problem)
            return
        self._complete, self._open, self._resumes = listing.revision, 0, True
        self._seen.clear()
        self._post(Resynced(listing=listing))
        logger.bind(watch=self.name, why=why, revision=self._complete).info("watch resynced")
        with self._changed:
            self._lists = False
        self._shared.want(self)

    def _look_at_denial(self, reason: str, token: str | None) -> None:
        """Whether we may not, or the stream's token has died meanwhile: etcd before 3.5.6 says the same of both."""
        try:
            if token is not None:
                self.revision()
                self._shared.renew(token)
                self.failed(Broken(reason))
                return
            problem: DriverError = self._denied(reason)
        except PermissionDenied:
            problem = self._denied(reason)
        except DriverError as error:
            problem = error
        self.failed(problem)

    def _run(self, errand: Callable[[], None]) -> None:
        """On the pool; ``close`` waits for it."""
        with self._changed:
            self._errands += 1

        def run() -> None:
            try:
                errand()
            finally:
                with self._changed:
                    self._errands -= 1
                    self._changed.notify_all()

        self._pool.run(run)


def pause_s(failures: int) -> float:
    """How long to wait after the first failure, the second, and so on."""
    longest_s = min(0.05 * 2.0**failures, 1.0)
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, no secret)
