"""The activity recorder: it watches the documents and records each change once, with any number of recorders.

Every process of the service runs one. Each recorder keeps the last value of every document, so it knows the difference
that a change makes. ``activity-seen`` holds a revision up to which all changes are recorded. After a time without any
process, the next one records the later changes, as far as the documents still show them. One thread at a time owns what
is known of the documents: first the thread that catches up, then the watch's thread. The first one writes: all events
of a short while in one transaction, so that a fleet that updates costs etcd little.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

import msgspec
from loguru import logger

from outrider.core.errors import DriverError, Refused, Unknown
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.seam import (
    Cluster,
    CreatedAt,
    Entry,
    KeyChanged,
    Listing,
    ModifiedAt,
    Op,
    Put,
    Resynced,
    Watch,
    WatchEvent,
)
from outrider.model.activity import ACTIVITY_KEPT_S, Activity, activity_key
from outrider.model.damage import read_or_none
from outrider.model.documents import (
    App,
    Block,
    Channel,
    Command,
    Document,
    Group,
    Instance,
    Package,
    Rollout,
    encode,
)
from outrider.model.identity import UnprovedCheckins
from outrider.model.keys import Keys
from outrider.model.tasks import Task
from outrider.service.history.activity import AWAITS_APPROVAL, Shift, tell
from outrider.service.store.context import Clock

RETRY_MIN_S, RETRY_MAX_S = 0.2, 10.0
GATHER_S = 0.05
"""How long an event waits for others, to be written with them."""
AT_ONCE = 40
"""Events of one transaction, which takes 128 operations: an event has further writes, one for each webhook."""
MAX_OPERATIONS = 100
MOST_WAITING = 20_000
"""Events that wait to be written; beyond, the watch waits, too."""
MARK_EVERY = 50
"""Changes between two writes of ``activity-seen``; after a crash at most this number is read again."""
LEASE_RENEWED_S = 24 * 3600.0
"""The events of one day share one lease, so a busy fleet does not need a lease per event."""

Also = Callable[[], Callable[[Activity, str, int], tuple[Op, ...]]]
"""Asked before each transaction; tells the further writes of an event, of which it gets the event, the last part of its
key, and its lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedKey:
    """The content of a key below one of the watched prefixes."""

    kind: type[Document]
    app: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """Events to be written, and what holds once they are.

    Attributes:
        handled: Up to this revision everything is recorded; None: more of the same change comes.
        resynced: The store may not know the lease any more, and the mark is due.
        counts: A watched document has changed.
    """

    writes: tuple[tuple[Activity, int], ...] = ()
    handled: int | None = None
    resynced: bool = False
    counts: bool = False


class ActivityRecorder:
    """Records activity events from ``start`` until ``close``."""

    def __init__(
        self, cluster: Cluster, keys: Keys, now: Clock, *, also: Also = lambda: lambda activity, name, lease: (),
        kept_s: float = ACTIVITY_KEPT_S, public_url: str | None = None,
    ) -> None:  # fmt: skip
        """``kept_s``: seconds until an event expires. ``public_url``: of this service, for the links in events."""
        self._public_url = public_url
        self._cluster, self._keys, self._now, self._also, self._kept_s = cluster, keys, now, also, kept_s
        self._prefix = f"{keys.prefix}/"
        self._seen_key = f"{keys.prefix}/activity-seen"
        self._known: dict[str, Document] = {}
        self._lease: tuple[int, datetime] | None = None
        self._handled = self._marked = self._since_mark = 0
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._told: deque[_Told] = deque()
        self._passed = 0
        """Up to this revision nothing else is to be written, once all that was told is."""
        self._watch: Watch | None = None
        self._epoch = EpochWatch(cluster, keys, self._look_again)
        self._thread = threading.Thread(target=self._run, name="outrider-activity-recorder", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, also while etcd is away."""
        self._thread.start()

    def close(self) -> None:
        """Stop; this recorder writes nothing after this returns."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self._epoch.close()
        self._thread.join(10.0)
        if self._watch is not None:
            self._watch.close()
            try:
                while self._told:
                    self._write_some()
                self._mark()
            except DriverError as error:  # the next process reads the last changes again
                logger.bind(error_kind=error.kind, cause=str(error)).warning("activity-seen not written")

    def _run(self) -> None:
        self._insist(self._catch_up)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._told or self._closed.is_set())
            if self._closed.wait(GATHER_S):
                return
            self._insist(self._write_some)
            if self._since_mark >= MARK_EVERY:
                self._insist(self._mark)

    def _catch_up(self) -> None:
        """One watch over all keys, so changes arrive in their order; keys without events are skipped."""
        self._epoch.read()
        seen = self._cluster.get(self._seen_key)
        listing = self._cluster.list(self._prefix)
        # the very first process: existing documents are no events
        self._marked = listing.revision
        if seen is not None and seen.value.isdigit():
            self._marked = min(int(seen.value), seen.mod_revision)  # see _mark
        self._known.clear()
        for entry in listing.entries:
            told = entry.mod_revision <= self._marked
            self._write(self._taken(entry.key, entry, entry.mod_revision, known=False, told=told))
        self._handled = listing.revision
        self._mark()
        self._watch = self._cluster.watch(self._prefix, listing.revision + 1, self._deliver)
        self._epoch.start()

    def _look_again(self, why: str) -> None:
        """etcd was restored: what the restored documents say otherwise than those before is told."""
        if self._watch is not None:
            self._watch.look_again()

    def _deliver(self, event: WatchEvent) -> None:
        match event:
            case KeyChanged():
                writes = self._taken(event.key, event.entry, event.revision, known=True, told=False)
                counts = watched_key_of(self._keys, event.key) is not None
                self._tell(_Told(writes=writes, handled=None if event.more else event.revision, counts=counts))
            case Resynced():
                self._tell(_Told(resynced=True))
                for writes in self._replaced(event.listing):
                    self._tell(_Told(writes=writes))
                self._tell(_Told(handled=event.listing.revision, resynced=True))

    def _tell(self, told: _Told) -> None:
        """Let it be written; what says no more than how far the watch is wakes nobody."""
        with self._changed:
            if not told.writes and not told.resynced and not told.counts:
                if self._told:
                    self._passed = told.handled or self._passed
                else:
                    self._handled = max(self._handled, told.handled or 0)
                return
            if told.resynced:
                self._passed = 0
            self._told.append(told)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._told) < MOST_WAITING or self._closed.is_set())

    def _replaced(self, listing: Listing) -> Iterator[tuple[tuple[Activity, int], ...]]:
        """Changes were compacted: compare with the known values; changes that were undone in between are lost."""
        there = {entry.key: entry for entry in listing.entries}
        for entry in listing.entries:
            yield self._taken(entry.key, entry, entry.mod_revision, known=True, told=False)
        for key in [key for key in self._known if key not in there]:
            yield self._taken(key, None, listing.revision, known=True, told=False)

    def _taken(
        self, key: str, entry: Entry | None, revision: int, *, known: bool, told: bool
    ) -> tuple[tuple[Activity, int], ...]:
        """The events of one change, which is known from now on."""
        watched = watched_key_of(self._keys, key)
        if watched is None:
            return ()
        before = self._known.get(key)
        after = read_or_none(watched.kind, key, entry.value) if entry is not None else None
        if entry is not None and after is None:  # it can't be read: what it was before stays known
            return ()
        found: tuple[Activity, ...] = ()
        if not told and after != before:
            shift = Shift(
                app=watched.app, name=watched.name, before=before, after=after, known=known, at=self._now()
            )  # fmt: skip
            found = tell(shift)
        if after is None:
            self._known.pop(key, None)
        else:
            self._known[key] = after
        return tuple((self._with_link(activity), revision) for activity in found)

    def _with_link(self, activity: Activity) -> Activity:
        """What asks a person for something says where."""
        if activity.kind != AWAITS_APPROVAL or self._public_url is None:
            return activity
        place = f"apps/{quote(activity.app)}/groups/{quote(activity.group)}/rollout"
        link = f"{self._public_url}/api/v1/{place}"
        return msgspec.structs.replace(activity, facts={**activity.facts, "link": link})

    def _write_some(self) -> None:
        """Write what has waited longest; it waits on until it is written.

        Raises:
            DriverError: etcd gives no answer, or refuses.
        """
        with self._changed:
            some, number = list[_Told](), 0
            for one in self._told:
                if some and number + len(one.writes) > AT_ONCE:
                    break
                some.append(one)
                number += len(one.writes)
        if any(one.resynced for one in some):
            self._lease = None
        self._write(tuple(write for one in some for write in one.writes))
        with self._changed:
            for one in some:
                self._told.popleft()
                self._handled = max(self._handled if one.handled is None else one.handled, 0)
                self._since_mark += MARK_EVERY if one.resynced and one.handled is not None else one.counts
            if not self._told:
                self._handled = max(self._handled, self._passed)
            self._changed.notify_all()

    def _write(self, events: tuple[tuple[Activity, int], ...]) -> None:
        """Write events, as many as a transaction takes at once, without those that another process has written."""
        oldest = self._now() - timedelta(seconds=self._kept_s)
        by_key = {activity_key(self._keys, one, revision): one for one, revision in events if one.at >= oldest}
        left = list(by_key.items())
        while left:
            lease, ops, taken = self._leased(), list[Op](), 0
            also = self._also()
            for key, activity in left:
                more = (
                    Put(key=key, value=encode(activity), lease=lease),
                    *also(activity, key.rpartition("/")[2], lease),
                )
                if taken and len(ops) + len(more) > MAX_OPERATIONS:
                    break
                ops += more
                taken += 1
            keys = [key for key, _ in left[:taken]]
            result = self._cluster.txn(tuple(CreatedAt(key=key, revision=0) for key in keys), tuple(ops))
            if result.succeeded:
                left = left[taken:]
                continue
            there = {entry.key for entry in result.found}
            rest = [one for one in left if one[0] not in there]
            if len(rest) == len(left):
                raise Unknown("etcd says that events are there, and has none of them")
            left = rest

    def _leased(self) -> int:
        now = self._now()
        if self._lease is None or (now - self._lease[1]).total_seconds() >= LEASE_RENEWED_S:
            self._lease = (self._cluster.grant(self._kept_s + LEASE_RENEWED_S), now)
        return self._lease[0]

    def _mark(self) -> None:
        """Write how far the changes are recorded. A mark that lies ahead of its own revision is from before a restore.

        Left alone it would hide the changes up to there from the process that starts next.
        """
        stored = self._cluster.get(self._seen_key)
        at = int(stored.value) if stored is not None and stored.value.isdigit() else -1
        is_from_before = stored is not None and at > stored.mod_revision
        if self._handled > at or is_from_before:
            guard = ModifiedAt(key=self._seen_key, revision=0 if stored is None else stored.mod_revision)
            self._cluster.txn((guard,), (Put(key=self._seen_key, value=str(self._handled).encode()),))
        self._since_mark = 0

    def _insist(self, what: Callable[[], None]) -> None:
        """Repeat it while etcd is away; a refusal is logged and skipped."""
        delay_s = RETRY_MIN_S
        while not self._closed.is_set():
            try:
                what()
            except Refused as error:
                self._lease = None  # perhaps the lease has expired, after a long sleep
                if delay_s >= RETRY_MAX_S:
                    logger.bind(error_kind=error.kind, cause=str(error)).error("activity not written")
                    return
            except DriverError as error:
                logger.bind(error_kind=error.kind, cause=str(error), retry=True).warning("activity waits for etcd")
            else:
                return
            self._closed.wait(delay_s)
            delay_s = min(RETRY_MAX_S, delay_s * 2)


_APP_PARTS: Mapping[str, type[Document]] = {"packages": Package, "channels": Channel, "groups": Group}
_OTHER_PARTS: Mapping[str, type[Document]] = {"instances": Instance, "blocks": Block, "commands": Command}


def watched_key_of(keys: Keys, key: str) -> WatchedKey | None:
    """The content of ``key``; None for keys without events."""
    match key.removeprefix(f"{keys.prefix}/").split("/"):
        case ["apps", app]:
            return WatchedKey(kind=App, app=app, name=app)
        case ["apps", app, part, name] if part in _APP_PARTS:
            return WatchedKey(kind=_APP_PARTS[part], app=app, name=name)
        case ["apps", app, "groups", group, "rollout"]:
            return WatchedKey(kind=Rollout, app=app, name=group)
        case ["tasks", app, _, _, name]:
            return WatchedKey(kind=Task, app=app, name=name)
        case ["apps", app, "groups", group, "unproved"]:
            return WatchedKey(kind=UnprovedCheckins, app=app, name=group)
        case [part, app, name] if part in _OTHER_PARTS:
            return WatchedKey(kind=_OTHER_PARTS[part], app=app, name=name)
        case _:
            return None
