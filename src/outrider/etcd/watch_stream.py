"""The one stream that all watches of a connection share, and who looks after it.

etcd carries any number of watches on one stream. Each stream of its own costs a process four threads, some of which
wake ten times a second; a sidekick has ten watches.

Theory. etcd answers requests to register a watch in the order in which they were sent, with the number under which the
watch's changes come. So who asked is a queue. A stream that breaks breaks for all its watches; the next one registers
each of them at its own position (``etcd/watch.py``), so none loses or repeats anything. What ends one watch alone (a
compaction, a denial) leaves the others where they are.

Threads. The *reader* opens streams and hands on what comes; it waits for nobody. The *watchdog* asks a silent stream
for progress and ends one that stays silent: a frozen server keeps its TCP connections open and says nothing, forever.
"""

import heapq
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import Any

import grpc
from etcd3 import etcdrpc
from loguru import logger

from outrider.core.errors import DriverError, Refused, Unknown
from outrider.etcd.channel import Connection, Nodes
from outrider.etcd.errors import is_stale_token
from outrider.etcd.watch import Broken, EtcdWatch, pause_s

PROBE_S = 2.5  # silence after which the watchdog asks for progress, and asks again
SILENT_S = 7.0  # silence after which it ends the stream: two unanswered questions
LOOK_S = 0.5  # the watchdog sleeps at least so long

# Before 3.5.8 an answer to a progress request could overtake the events before it (etcd-io/etcd#15220): its revision
# says that the stream lives, but not how far it is.
_PROGRESS_IS_EXACT = (3, 5, 8)
_ALL = -1
"""Number under which etcd answers for all watches of a stream."""


class _OpenStream:
    """The call, who waits to be registered, and who is; the lock of ``WatchStream`` guards the latter two."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.token = connection, connection.token
        self.requests: SimpleQueue[Any] = SimpleQueue()
        self.asked: deque[EtcdWatch | None] = deque()
        """In the order in which etcd will answer; None: nobody waits for that any more."""
        self.watches: dict[int, EtcdWatch] = {}
        self.numbers: dict[EtcdWatch, int] = {}
        self.silent = self.unneeded = self.busy = False
        self.questions = 0
        self.heard = self.registers_since = time.monotonic()
        # without a leader, a member cut off from the others would keep the stream open and know of nothing
        metadata = (*connection.metadata(), ("hasleader", "true"))
        self.call = connection.watch.Watch(iter(self.requests.get, None), metadata=metadata)

    def ask(self, watch: EtcdWatch) -> None:
        """Send its request; the lock is held, so that the order is that of ``asked``."""
        if not any(self.asked):
            self.registers_since = time.monotonic()
        self.asked.append(watch)
        self.requests.put(etcdrpc.WatchRequest(create_request=watch.create_request()))

    def drop(self, watch: EtcdWatch) -> None:
        """Nothing comes to it any more; the lock is held."""
        self.asked = deque(None if one is watch else one for one in self.asked)
        number = self.numbers.pop(watch, None)
        if number is not None:
            del self.watches[number]
            self.cancel(number)

    def cancel(self, number: int) -> None:
        self.requests.put(etcdrpc.WatchRequest(cancel_request=etcdrpc.WatchCancelRequest(watch_id=number)))

    def hear(self) -> None:
        self.heard, self.questions = time.monotonic(), 0

    def forgive(self) -> None:
        """This process itself was busy or stood still: the silence so far says nothing of the server."""
        self.hear()
        self.registers_since = self.heard

    def look(self, registered_within_s: float) -> float:
        """Ask for progress or give up, by how long nothing was heard; returns seconds until the next look is due."""
        now = time.monotonic()
        if self.busy:
            self.forgive()
        silence_s = now - self.heard
        waits_s = now - self.registers_since if any(self.asked) else 0.0
        if silence_s > SILENT_S or waits_s > min(registered_within_s, SILENT_S):
            self.silent = True
            self.call.cancel()
        elif self.watches and silence_s > PROBE_S * (self.questions + 1):
            self.questions += 1
            self.requests.put(etcdrpc.WatchRequest(progress_request=etcdrpc.WatchProgressRequest()))
            if self.questions > 1:
                self._ask_otherwise()
        return LOOK_S if any(self.asked) or self.questions else PROBE_S - silence_s

    def _ask_otherwise(self) -> None:
        """Register a watch and forget it: etcd from 3.5.21 on does not tell of progress while one watch begins later.

        A watch begins right after the revision of its listing, which is later until somebody writes.
        """
        request = next(iter(self.watches.values())).create_request()
        request.start_revision = 0
        self.asked.append(None)
        self.requests.put(etcdrpc.WatchRequest(create_request=request))

    def end(self) -> None:
        self.call.cancel()
        self.requests.put(None)


class WatchStream:
    """Implements ``Stream``; every method may be called by any thread."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._changed = threading.Condition()
        self._all: set[EtcdWatch] = set()
        self._wanted: dict[EtcdWatch, None] = {}
        self._later: list[tuple[float, int, EtcdWatch]] = []
        self._laters = 0
        self._open: _OpenStream | None = None
        self._store: tuple[int, int] | None = None  # which store we know, and the highest revision it named
        self._failures = 0
        self._closed = False
        self._reader = threading.Thread(target=self._read_streams, name="outrider-watch", daemon=True)
        self._watchdog = threading.Thread(target=self._watch_over, name="outrider-watchdog", daemon=True)

    def add(self, watch: EtcdWatch) -> None:
        """Look after it from now on.

        Raises:
            Unknown: the connection was closed.
        """
        with self._changed:
            if self._closed:
                raise Unknown("the connection to etcd was closed")
            if self._reader.ident is None:
                self._reader.start()
                self._watchdog.start()
            self._all.add(watch)

    def want(self, watch: EtcdWatch) -> None:
        with self._changed:
            if self._closed or not watch.may_register():
                return
            self._drop(watch)
            if self._open is not None:
                self._open.ask(watch)
            else:
                self._wanted[watch] = None
            self._changed.notify_all()

    def want_later(self, watch: EtcdWatch, delay_s: float) -> None:
        with self._changed:
            self._laters += 1
            heapq.heappush(self._later, (time.monotonic() + delay_s, self._laters, watch))
            self._changed.notify_all()

    def leave(self, watch: EtcdWatch) -> None:
        with self._changed:
            self._drop(watch)
            stream = self._open
            if stream is not None and not stream.watches and not any(stream.asked):
                stream.unneeded = True
                stream.end()

    def renew(self, token: str | None) -> None:
        with self._changed:
            stream = self._open
            if stream is not None and stream.token == token:
                stream.unneeded = True
                stream.end()

    def forget(self, watch: EtcdWatch) -> None:
        self.leave(watch)
        with self._changed:
            self._all.discard(watch)

    def _drop(self, watch: EtcdWatch) -> None:
        self._wanted.pop(watch, None)
        if self._open is not None:
            self._open.drop(watch)

    def close(self) -> tuple[EtcdWatch, ...]:
        """Stop; returns the watches that still ran."""
        with self._changed:
            self._closed = True
            left = tuple(self._all)
            if self._open is not None:
                self._open.end()
            self._changed.notify_all()
        return left

    def join(self) -> None:
        """Return when its threads have ended, after the connections were closed."""
        for thread, limit_s in ((self._watchdog, None), (self._reader, self._nodes.timeout_s)):
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(limit_s)
                if thread.is_alive():
                    logger.bind(thread=thread.name).warning("a thread of a closed connection still runs")

    # --- the reader -------------------------------------------------------------------------------------------------

    def _read_streams(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._closed)
                if self._closed:
                    return
            try:
                with self._nodes.connected() as connection:
                    self._follow(connection)
            except (Broken, DriverError) as problem:
                self._failed(problem)

    def _failed(self, problem: Exception) -> None:
        with self._changed:
            if self._closed:
                return
            wanted = tuple(self._wanted)
        if isinstance(problem, Refused):
            for watch in wanted:
                self.leave(watch)
                watch.failed(problem)
            return
        names = [watch.name for watch in wanted[:3]]
        log = logger.bind(watch=", ".join(names), watches=len(wanted), error=str(problem), retry=True)
        log.log("DEBUG" if self._failures else "WARNING", "watch interrupted")
        delay_s = pause_s(self._failures)
        self._failures = min(self._failures + 1, 10)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, delay_s)

    def _follow(self, connection: Connection) -> None:
        """Read one stream until it ends; by an exception, unless nobody needs it any more."""
        try:
            stream = _OpenStream(connection)
        except ValueError as error:  # gRPC: the channel was closed
            raise Broken(str(error)) from error
        with self._changed:
            self._open = stream
            for watch in self._wanted:
                stream.ask(watch)
            self._wanted.clear()
            if self._closed or not stream.asked:
                stream.unneeded = True
                stream.end()
            self._changed.notify_all()
        try:
            for response in stream.call:
                stream.busy = True
                stream.hear()
                self._take(stream, response)
                stream.hear()
                stream.busy = False
            if not stream.unneeded:
                raise Broken(f"{connection.name}: the server ended the stream")
        except grpc.RpcError as error:
            if not stream.unneeded or stream.silent:
                raise self._reason(stream, error) from error
        finally:
            with self._changed:
                self._open = None
                left = [watch for watch in (*stream.watches.values(), *stream.asked) if watch is not None]
                self._wanted |= dict.fromkeys(watch for watch in left if not watch.is_over)
            stream.end()

    def _reason(self, stream: _OpenStream, error: grpc.RpcError) -> Broken:
        """Why the stream broke, with what follows for the connection done."""
        text = error.details() or error.code().name
        if stream.silent:
            self._nodes.distrust(stream.connection, dead=True)
            return Broken(f"{stream.connection.name} has been silent for {SILENT_S:g} s")
        if is_stale_token(text):
            self._nodes.forget_token(stream.connection, stream.token)
        elif not self._closed:
            self._nodes.distrust(stream.connection, dead=False)
        return Broken(f"{stream.connection.name}: {text}")

    def _take(self, stream: _OpenStream, response: Any) -> None:
        """Act on one response; every kind of news may come in any of them."""
        number = response.watch_id
        if response.created:
            watch = self._take_created(stream, response)
        else:
            self._failures = 0
            with self._changed:
                watch = stream.watches.get(number)
        self._remember(response.header)
        if response.canceled or response.compact_revision:
            self._take_end(stream, response, watch)
            return
        with self._changed:  # or it might leave in between, and its position be moved by two
            if response.events and number in stream.watches:
                stream.watches[number].take(response)
            elif not response.events and not response.created and stream.connection.version >= _PROGRESS_IS_EXACT:
                for each, one in stream.watches.items():
                    if number in (each, _ALL):
                        one.progressed(response.header.revision)

    def _take_created(self, stream: _OpenStream, response: Any) -> EtcdWatch | None:
        """Who was registered; None: whoever it was has left."""
        if self._is_another_store(stream, response.header):
            self._lose_all(stream, response.header)
        if self._failures:
            logger.bind(endpoint=stream.connection.name).info("watch resumed")
        with self._changed:
            watch = stream.asked.popleft() if stream.asked else None
            stream.registers_since = time.monotonic()
            if response.canceled:
                return watch
            if watch is None:
                stream.cancel(response.watch_id)
                return None
            stream.watches[response.watch_id] = watch
            stream.numbers[watch] = response.watch_id
        watch.registered()
        return watch

    def _take_end(self, stream: _OpenStream, response: Any, watch: EtcdWatch | None) -> None:
        """One watch is over for etcd."""
        reason = response.cancel_reason
        if is_stale_token(reason):
            self._nodes.forget_token(stream.connection, stream.token)
            if watch is not None:
                self._put_back(stream, watch)
            raise Broken(reason)
        if watch is None:  # as we wished
            return
        with self._changed:
            number = stream.numbers.pop(watch, None)
            if number is not None:
                del stream.watches[number]
        if response.compact_revision:
            watch.lost(f"changes up to {response.compact_revision} were compacted away")
        else:
            watch.rejected(reason, stream.token)

    def _put_back(self, stream: _OpenStream, watch: EtcdWatch) -> None:
        with self._changed:
            if watch not in stream.numbers:
                stream.asked.append(watch)

    def _remember(self, header: Any) -> None:
        known = self._store[1] if self._store else 0
        self._store = (header.cluster_id, max(known, header.revision))

    def _is_another_store(self, stream: _OpenStream, header: Any) -> bool:
        """Whether this is an older copy of the store, or another one: our revisions mean nothing there."""
        if self._store is None:
            return False
        store_id, revision = self._store
        if header.cluster_id != store_id:
            return True
        if header.revision >= revision:
            return False
        with self._changed:
            watch = next((one for one in (*stream.asked, *stream.watches.values()) if one is not None), None)
        # A follower may lag and will catch up, and an answer comes from the leader; an older copy never will.
        return watch is not None and watch.revision() < revision

    def _lose_all(self, stream: _OpenStream, header: Any) -> None:
        self._store = (header.cluster_id, header.revision)
        with self._changed:
            lost = [watch for watch in (*stream.watches.values(), *stream.asked, *self._wanted) if watch is not None]
            stream.unneeded = True
            stream.end()
        for watch in lost:
            watch.lost("the store went back in time")
        raise _StoreReplaced

    # --- the watchdog -----------------------------------------------------------------------------------------------

    def _watch_over(self) -> None:
        wakes_at = time.monotonic()
        while True:
            now = time.monotonic()
            with self._changed:
                if self._closed:
                    return
                stream = self._open
                due = []
                while self._later and self._later[0][0] <= now:
                    due.append(heapq.heappop(self._later)[2])
                limit_s = self._later[0][0] - now if self._later else None
                if stream is not None:
                    if now - wakes_at > PROBE_S:
                        stream.forgive()
                    look_s = max(stream.look(self._nodes.timeout_s), LOOK_S)
                    limit_s = look_s if limit_s is None else min(look_s, limit_s)
            for watch in due:
                if not watch.is_over:
                    self.want(watch)
            with self._changed:
                if self._closed:
                    return
                wakes_at = time.monotonic() + (limit_s if limit_s is not None else 0.0)
                news = (self._open, self._laters)
                self._changed.wait_for(lambda news=news: self._closed or (self._open, self._laters) != news, limit_s)  # type: ignore[misc]


class _StoreReplaced(Broken):
    """Another store answers; all watches list anew."""
