"""The activity recorder: it watches the documents and records each change once, with any number of recorders.

Every process of the service runs one. Each recorder keeps the last value of every document, so it knows the difference
that a change makes. ``activity-seen`` holds a revision up to which all changes are recorded. After a time without any
process, the next one records the later changes, as far as the documents still show them. One thread at a time owns the
state: first the thread that catches up, then the watch's thread.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

import msgspec
from loguru import logger

from outrider.core.errors import DriverError, Refused
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
MARK_EVERY = 50
"""Changes between two writes of ``activity-seen``; after a crash at most this number is read again."""
LEASE_RENEWED_S = 24 * 3600.0
"""The events of one day share one lease, so a busy fleet does not need a lease per event."""

Also = Callable[[Activity, str, int], tuple[Op, ...]]
"""Further writes together with a new event: gets the event, the last part of its key, and its lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedKey:
    """The content of a key below one of the watched prefixes."""

    kind: type[Document]
    app: str
    name: str


class ActivityRecorder:
    """Records activity events from ``start`` until ``close``."""

    def __init__(
        self, cluster: Cluster, keys: Keys, now: Clock, *, also: Also = lambda activity, name, lease: (),
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
        self._watch: Watch | None = None
        self._epoch = EpochWatch(cluster, keys, self._look_again)
        self._thread = threading.Thread(target=self._begin, name="outrider-activity-recorder", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, also while etcd is away."""
        self._thread.start()

    def close(self) -> None:
        """Stop; this recorder writes nothing after this returns."""
        self._closed.set()
        self._epoch.close()
        self._thread.join(10.0)
        if self._watch is not None:
            self._watch.close()
            try:
                self._mark()
            except DriverError as error:  # the next process reads the last changes again
                logger.bind(error_kind=error.kind, cause=str(error)).warning("activity-seen not written")

    def _begin(self) -> None:
        self._insist(self._catch_up)

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
            self._take(entry.key, entry, entry.mod_revision, known=False, told=entry.mod_revision <= self._marked)
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
                self._insist(lambda: self._take(event.key, event.entry, event.revision, known=True, told=False))
                self._handled = event.revision
                if watched_key_of(self._keys, event.key) is not None:
                    self._since_mark += 1
                if self._since_mark >= MARK_EVERY:
                    self._insist(self._mark)
            case Resynced():
                self._insist(lambda: self._replace(event.listing))
                self._lease = None  # it may be one that the store doesn't know any more
                self._handled = event.listing.revision
                self._insist(self._mark)

    def _replace(self, listing: Listing) -> None:
        """Changes were compacted: compare with the known values; changes that were undone in between are lost."""
        there = {entry.key: entry for entry in listing.entries}
        for entry in listing.entries:
            self._take(entry.key, entry, entry.mod_revision, known=True, told=False)
        for key in [key for key in self._known if key not in there]:
            self._take(key, None, listing.revision, known=True, told=False)

    def _take(self, key: str, entry: Entry | None, revision: int, *, known: bool, told: bool) -> None:
        """Record one change, and remember the document; raises when it could not be recorded."""
        watched = watched_key_of(self._keys, key)
        if watched is None:
            return
        before = self._known.get(key)
        after = read_or_none(watched.kind, key, entry.value) if entry is not None else None
        if entry is not None and after is None:  # it can't be read: what it was before stays known
            return
        if not told and after != before:
            shift = Shift(
                app=watched.app, name=watched.name, before=before, after=after, known=known, at=self._now()
            )  # fmt: skip
            for activity in tell(shift):
                self._write(self._with_link(activity), revision)
        if after is None:
            self._known.pop(key, None)
        else:
            self._known[key] = after

    def _with_link(self, activity: Activity) -> Activity:
        """What asks a person for something says where."""
        if activity.kind != AWAITS_APPROVAL or self._public_url is None:
            return activity
        place = f"apps/{quote(activity.app)}/groups/{quote(activity.group)}/rollout"
        link = f"{self._public_url}/api/v1/{place}"
        return msgspec.structs.replace(activity, facts={**activity.facts, "link": link})

    def _write(self, activity: Activity, revision: int) -> None:
        if self._now() - activity.at > timedelta(seconds=self._kept_s):
            return
        key = activity_key(self._keys, activity, revision)
        lease, name = self._leased(), key.rpartition("/")[2]
        put = Put(key=key, value=encode(activity), lease=lease)
        self._cluster.txn((CreatedAt(key=key, revision=0),), (put, *self._also(activity, name, lease)))

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
