"""A watch that loses nothing and repeats nothing, over whatever happens to servers and connections (P8).

Theory. etcd numbers every change; a watch is a position in that row. We keep ``complete``, the revision up to which
everything was handed over, and the keys already seen at the one revision after it, because a transaction's changes
share a revision and may come in several messages. A broken stream is opened again at ``complete`` *inclusive*, and
what is known already is dropped: so the second half of a revision is not lost, and neither is a removal at exactly the
revision of a compaction (etcd has forgotten it, etcd-io/etcd#18089, #19179; asked one earlier, it says "compacted").

Threads. The *reader* opens streams and fills a bounded mailbox; the *dispatcher* delivers from it, so a delivery may
take its time, call the store, or close the watch. The cluster's one *watchdog* thread asks silent streams for progress
and ends those that stay silent: a frozen server keeps its TCP connections open and says nothing, forever.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import grpc
from etcd3 import etcdrpc
from loguru import logger

from outrider.core.errors import DriverError, Refused, Unknown
from outrider.etcd.channel import Connection, Nodes
from outrider.etcd.errors import is_stale_token
from outrider.etcd.seam import DENIED_RETRY_S, Listing, PermissionDenied, Resynced, WatchEvent
from outrider.etcd.wire import change_of, is_fragment

LOOK_S = 0.5  # how often the watchdog looks
PROBE_S = 2.5  # silence after which it asks for progress, and asks again
SILENT_S = 7.0  # silence after which it ends the stream: two unanswered questions
MAILBOX = 10_000  # events waiting for delivery, before the reader lets the server wait

_FRAGMENT = b"\x40\x01"  # field 8 of WatchCreateRequest, true; the client's stubs are older than this field
# Before 3.5.8 an answer to a progress request could overtake the events before it (etcd-io/etcd#15220): its revision
# says that the stream lives, but not how far it is.
_PROGRESS_IS_EXACT = (3, 5, 8)
_STOP_WAIT_S = 5.0


class _Broken(Exception):
    """The stream ended, for a reason that opening it again may heal."""


class _Reopen(Exception):
    """The watch has a new position; open the next stream there at once."""


class _Stream:
    """One open stream: the call, what it will send, and when it was heard last."""

    def __init__(self, connection: Connection, create: Any) -> None:
        self.connection = connection
        self.token = connection.token
        self.requests: SimpleQueue[Any] = SimpleQueue()
        self.requests.put(etcdrpc.WatchRequest(create_request=create))
        self.created = False
        self.silent = False
        self.busy = False
        self.asked = 0
        self.heard = time.monotonic()
        # without a leader, a member cut off from the others would keep the stream open and know of nothing
        metadata = (*connection.metadata(), ("hasleader", "true"))
        self.call = connection.watch.Watch(iter(self.requests.get, None), metadata=metadata)

    def hear(self) -> None:
        self.heard, self.asked = time.monotonic(), 0

    def look(self, created_within_s: float) -> None:
        """Ask for progress or give up, by how long nothing was heard."""
        silence_s = time.monotonic() - self.heard
        if self.busy:
            self.hear()
        elif silence_s > (SILENT_S if self.created else min(created_within_s, SILENT_S)):
            self.silent = True
            self.call.cancel()
        elif self.created and silence_s > PROBE_S * (self.asked + 1):
            self.asked += 1
            self.requests.put(etcdrpc.WatchRequest(progress_request=etcdrpc.WatchProgressRequest()))

    def end(self) -> None:
        self.call.cancel()
        self.requests.put(None)


class EtcdWatch:
    """A running watch; implements ``Watch``."""

    def __init__(
        self,
        nodes: Nodes,
        key: bytes,
        range_end: bytes,
        from_revision: int,
        deliver: Callable[[WatchEvent], None],
        read: Callable[[], Listing],
        closed: Callable[["EtcdWatch"], None],
        on_bug: Callable[[BaseException], None] | None = None,
        denied: Callable[[str], PermissionDenied] = PermissionDenied,
    ) -> None:
        """Prepare; ``start`` runs it. ``read`` lists what is watched, ``closed`` is told when it is over.

        ``on_bug`` gets what a delivery raised; it is logged in any case, and the deliveries go on. ``denied`` words
        what etcd doesn't permit.
        """
        self._on_bug, self._denied = on_bug, denied
        self._nodes, self._key, self._range_end = nodes, key, range_end
        self._deliver, self._read, self._on_closed = deliver, read, closed
        self._name = key.decode(errors="replace")
        self._complete = from_revision - 1
        self._open = 0
        self._seen: set[bytes] = set()
        self._store: tuple[int, int] | None = None  # which store we know, and the highest revision it named
        self._resumes = False
        self._starting = True
        self._failures = 0
        self._mail: deque[WatchEvent] = deque()
        self._mail_changed = threading.Condition()
        self._stream: _Stream | None = None
        self._closing, self._doubted = threading.Event(), threading.Event()
        self._settled = threading.Event()
        self._refused: Refused | None = None
        self._reader = threading.Thread(target=self._read_streams, name=f"outrider-watch {self._name}", daemon=True)
        self._dispatcher = threading.Thread(
            target=self._deliver_all, name=f"outrider-deliveries {self._name}", daemon=True
        )

    def start(self) -> None:
        """Return when etcd has registered the watch, or after the time limit.

        A connection may be closed by another thread while its watches begin: then this one never begins.

        Raises:
            Refused: etcd doesn't permit it; the watch is over.
        """
        with self._mail_changed:
            if self._closing.is_set():
                return
            self._reader.start()
            self._dispatcher.start()
        self._settled.wait(self._nodes.timeout_s)
        with self._mail_changed:
            self._starting = False
            refused = self._refused
        if refused is not None:
            self.close()
            raise refused

    def look(self) -> None:
        """The watchdog's turn."""
        stream = self._stream
        if stream is not None:
            stream.look(self._nodes.timeout_s)

    def forgive(self) -> None:
        """This process itself stood still: the silence so far says nothing about the server."""
        stream = self._stream
        if stream is not None:
            stream.hear()

    def look_again(self) -> None:
        """See ``Watch``."""
        with self._mail_changed:
            self._doubted.set()
            stream = self._stream
        if stream is not None:
            stream.end()

    def stop(self) -> None:
        """Begin to close, without waiting."""
        with self._mail_changed:
            self._closing.set()
            self._mail.clear()
            self._mail_changed.notify_all()
            stream = self._stream
        if stream is not None:
            stream.end()

    def close(self) -> None:
        """See ``Watch``. A delivery under way is waited for: don't hold a lock that it takes."""
        self.stop()
        for thread, limit_s in ((self._dispatcher, _STOP_WAIT_S), (self._reader, self._nodes.timeout_s)):
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(limit_s)
                if thread.is_alive():
                    logger.bind(watch=self._name, thread=thread.name).warning("a thread of a closed watch still runs")
        self._on_closed(self)

    def _read_streams(self) -> None:
        while not self._closing.is_set():
            try:
                with self._nodes.connected() as connection:
                    if self._doubted.is_set():
                        self._doubted.clear()
                        self._look_over()
                    self._follow(connection)
            except _Reopen as news:
                logger.bind(watch=self._name, why=str(news), revision=self._complete).info("watch resynced")
            except (_Broken, DriverError) as problem:
                self._failed(problem)
        self._settled.set()

    def _failed(self, problem: Exception) -> None:
        if self._closing.is_set():
            return
        with self._mail_changed:
            # later it may be an operator's slip that is mended soon; then nobody is left to be told
            if isinstance(problem, Refused) and self._starting:
                self._refused = problem
                self._closing.set()
                return
        log = logger.bind(watch=self._name, error=str(problem), revision=self._complete, retry=True)
        denied = isinstance(problem, PermissionDenied)
        level = "ERROR" if denied else "DEBUG" if self._failures else "WARNING"
        log.log(level, "etcd does not permit the watch" if denied else "watch interrupted")
        longest_s = DENIED_RETRY_S if denied else min(0.05 * 2**self._failures, 1.0)
        delay_s = longest_s * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, no secret)
        self._failures = min(self._failures + 1, 10)
        self._closing.wait(delay_s)

    def _follow(self, connection: Connection) -> None:
        """Read one stream until it ends, which it always does by an exception, or by ``close``."""
        create = etcdrpc.WatchCreateRequest(
            key=self._key,
            range_end=self._range_end,
            # exact at first: asking for what exists already would cost up to 100 ms (etcd-io/etcd#16839)
            start_revision=max(self._complete, 1) if self._resumes else self._complete + 1,
            progress_notify=True,
        )
        create.MergeFromString(_FRAGMENT)
        try:
            stream = _Stream(connection, create)
        except ValueError as error:  # gRPC: the channel was closed
            raise _Broken(str(error)) from error
        with self._mail_changed:
            self._stream = stream
            if self._closing.is_set() or self._doubted.is_set():
                stream.call.cancel()
        try:
            for response in stream.call:
                stream.busy = True
                stream.hear()
                self._take(stream, response)
                stream.hear()
                stream.busy = False
            raise _Broken("the server ended the stream")
        except grpc.RpcError as error:
            if self._doubted.is_set():
                raise _Reopen("the store was restored") from error
            raise self._reason(stream, error) from error
        finally:
            self._stream = None
            stream.end()

    def _reason(self, stream: _Stream, error: grpc.RpcError) -> Exception:
        """Why the stream broke, with what follows for the connection done."""
        text = error.details() or error.code().name
        if stream.silent:
            self._nodes.distrust(stream.connection, dead=True)
            return _Broken(f"{stream.connection.name} has been silent for {SILENT_S:g} s")
        if is_stale_token(text):
            self._nodes.forget_token(stream.connection, stream.token)
        elif not self._closing.is_set():
            self._nodes.distrust(stream.connection, dead=False)
        return _Broken(f"{stream.connection.name}: {text}")

    def _take(self, stream: _Stream, response: Any) -> None:
        """Act on one response; every kind of news may come in any of them."""
        if response.compact_revision:
            self._resync()
            raise _Reopen(f"changes up to {response.compact_revision} were compacted away")
        if response.canceled:
            self._canceled(stream, response.cancel_reason)
        if response.created:
            stream.created = True
            if self._is_another_store(response.header):
                self._resync()
                raise _Reopen("the store went back in time")
            if self._failures:
                logger.bind(watch=self._name, endpoint=stream.connection.name).info("watch resumed")
            self._remember(response.header)
            self._resumes = True
            self._settled.set()
            return
        self._failures = 0
        self._remember(response.header)
        following = [event.kv.mod_revision for event in response.events[1:]]
        if response.events:
            following.append(response.events[-1].kv.mod_revision if is_fragment(response) else 0)
        for event, revision in zip(response.events, following, strict=True):
            self._take_event(event, more=event.kv.mod_revision == revision)
        if not response.events and stream.connection.version >= _PROGRESS_IS_EXACT:
            self._complete = max(self._complete, response.header.revision)

    def _remember(self, header: Any) -> None:
        known = self._store[1] if self._store else 0
        self._store = (header.cluster_id, max(known, header.revision))

    def _is_another_store(self, header: Any) -> bool:
        """Whether this is an older copy of the store, or another one: our revision means nothing there."""
        if self._store is None:
            return False
        store_id, revision = self._store
        if header.cluster_id != store_id:
            return True
        # A follower may lag and will catch up, and a listing comes from the leader; an older copy never will.
        return bool(header.revision < revision) and self._read().revision < revision

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

    def _canceled(self, stream: _Stream, reason: str) -> None:
        if is_stale_token(reason):
            self._nodes.forget_token(stream.connection, stream.token)
            raise _Broken(reason)
        if "permission denied" in reason:
            raise self._denied(reason)
        raise _Broken(reason or "the server canceled the watch")

    def _look_over(self) -> None:
        try:
            self._resync()
        except DriverError:
            self._doubted.set()
            raise

    def _resync(self) -> None:
        listing = self._read()
        self._complete = listing.revision
        self._store = None
        self._open = 0
        self._seen.clear()
        self._resumes = True
        self._post(Resynced(listing=listing))

    def _post(self, event: WatchEvent) -> None:
        with self._mail_changed:
            self._mail_changed.wait_for(lambda: len(self._mail) < MAILBOX or self._closing.is_set())
            if not self._closing.is_set():
                self._mail.append(event)
                self._mail_changed.notify_all()

    def _deliver_all(self) -> None:
        while True:
            with self._mail_changed:
                self._mail_changed.wait_for(lambda: self._mail or self._closing.is_set())
                if self._closing.is_set():
                    return
                event = self._mail.popleft()
                self._mail_changed.notify_all()
            try:
                self._deliver(event)
            except Exception as error:  # noqa: BLE001 (a bug in one delivery must not cost the ones after it)
                logger.bind(watch=self._name).opt(exception=True).error("watch delivery failed")
                if self._on_bug is not None:
                    self._on_bug(error)


class Watchdog:
    """One thread that looks after all watches of a cluster, twice a second."""

    def __init__(self) -> None:
        self._watches: set[EtcdWatch] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outrider-watchdog", daemon=True)

    def add(self, watch: EtcdWatch) -> None:
        with self._lock:
            if self._closing.is_set():
                raise Unknown("the connection to etcd was closed")
            if not self._thread.is_alive():
                self._thread.start()
            self._watches.add(watch)

    def remove(self, watch: EtcdWatch) -> None:
        with self._lock:
            self._watches.discard(watch)

    def close(self) -> tuple[EtcdWatch, ...]:
        """Stop looking; returns the watches that still ran."""
        with self._lock:
            self._closing.set()
            left = tuple(self._watches)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        return left

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._closing.wait(LOOK_S):
            stood_still = time.monotonic() - looked > LOOK_S + PROBE_S
            looked = time.monotonic()
            with self._lock:
                watches = tuple(self._watches)
            for watch in watches:
                if stood_still:
                    watch.forgive()
                watch.look()
