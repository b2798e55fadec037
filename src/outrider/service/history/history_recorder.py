"""The history recorder: writes what the instances of each group do into chunks in etcd; any number of processes may.

Theory. Every process follows one watch over all keys, so each makes the same steps in the same order. A group's next
chunk is written only if no key of its history was written since the revision up to which the writer has seen
everything. So one process writes, and the others see the chunk in their watch and forget the steps that are in it; when
that process is gone, any other writes what waits there. ``history-seen`` holds a revision up to which everything is
written: a process that starts watches from there. What etcd has compacted meanwhile is a *gap*; the history says so.

Bounded: by the room of one update of one instance (``tracker.py``), and in all, by removing the oldest chunks.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence

from loguru import logger

from outrider.core.errors import DriverError, Refused
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.seam import (
    Cluster,
    Delete,
    Entry,
    KeyChanged,
    Listing,
    ModifiedAt,
    NotNewer,
    Put,
    Resynced,
    Watch,
    WatchEvent,
)
from outrider.model.history import Step, copied, milliseconds
from outrider.model.keys import Keys
from outrider.service.history.chunks import MAX_STEPS, Tail
from outrider.service.history.tracker import UPDATE_BYTES, GroupId, Tracked, Tracker
from outrider.service.store.context import Clock

MAX_BYTES = 64_000_000
FLUSH_S = 2.0
LONGEST_FLUSH_S = 10.0
"""A large chunk is written anew less often than a small one."""
MARK_S = 60.0
RETRY_MIN_S, RETRY_MAX_S = 0.2, 10.0
_FOLLOWED = ("presence/", "apps/", "turns/", "shared-turns/", "activity/", "steps/")
BEGINS = "the history begins here"


class HistoryRecorder:
    """Records from ``start`` until ``close``."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        now: Clock,
        *,
        max_bytes: int = MAX_BYTES,
        update_bytes: int = UPDATE_BYTES,
        flush_s: float = FLUSH_S,
        on_written: Callable[[GroupId, Sequence[Step]], None] | None = None,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            max_bytes: Of all chunks together; beyond, the oldest are removed.
            update_bytes: Of one update of one instance.
            flush_s: How long a step waits for others before it is written.
            on_written: Is told the steps of a group that this process has written.
        """
        self._cluster, self._keys, self._now = cluster, keys, now
        self._max_bytes, self._update_bytes, self._flush_s = max_bytes, update_bytes, flush_s
        self._on_written = on_written
        self._prefix, self._below = f"{keys.prefix}/", len(keys.prefix) + 1
        self._changed = threading.Condition()
        self._tracker = Tracker(keys, update_bytes)
        self._tails: dict[GroupId, Tail] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        """Key of each chunk -> revision of its creation, size of key and value in bytes."""
        self._complete = self._marked = self._mark_revision = self._late = self._last_at = 0
        self._mark_due = 0.0
        self._closed = False
        self._watch: Watch | None = None
        self._epoch = EpochWatch(cluster, keys, self._look_again)
        self._thread = threading.Thread(target=self._run, name="outrider-history", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, also while etcd is away."""
        self._thread.start()

    def close(self) -> None:
        """Stop, after what waits was written; nothing is written after this returns."""
        self._epoch.close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(10.0)
        if self._watch is None:
            return
        self._watch.close()
        try:
            self._flush()
            self._write_mark()
        except DriverError as error:  # the next process makes these steps again
            logger.bind(error_kind=error.kind, cause=str(error)).warning("history not written to its end")

    def _look_again(self, why: str) -> None:
        """etcd was restored: everything is listed anew."""
        if self._watch is not None:
            self._watch.look_again()

    def _run(self) -> None:
        self._insist(self._begin)
        while self._wait():
            self._insist(self._flush)
            if time.monotonic() >= self._mark_due:
                self._insist(self._write_mark)
                self._mark_due = time.monotonic() + MARK_S * random.uniform(0.8, 1.2)  # noqa: S311

    def _wait(self) -> bool:
        """Until there is something to write, and a little longer, for more; False after ``close``."""
        with self._changed:
            left_s = max(0.0, self._mark_due - time.monotonic())
            self._changed.wait_for(lambda: self._closed or self._waiting(), left_s)
            if self._waiting():
                largest = max(tail.size for tail in self._tails.values() if tail.pending)
                pause_s = min(max(LONGEST_FLUSH_S, self._flush_s), self._flush_s * (1 + largest / 32_768))
                # processes don't collide, and the one that has written last is no sooner there
                self._changed.wait_for(lambda: self._closed, pause_s * random.uniform(1.0, 1.5))  # noqa: S311
            return not self._closed

    def _waiting(self) -> bool:
        return any(tail.pending and tail.pending[0].revision <= self._complete for tail in self._tails.values())

    def _begin(self) -> None:
        self._epoch.read()
        seen = self._cluster.get(self._keys.history_seen())
        listing = self._cluster.list(self._prefix)
        mark, is_first = listing.revision, True
        if seen is not None and seen.value.isdigit() and int(seen.value) <= seen.mod_revision:
            mark, is_first = int(seen.value), False
        with self._changed:
            self._late = listing.revision
            self._load(listing, mark)
            if is_first:
                for place in sorted({*self._tracker.groups, *self._living(listing)}):
                    self._gap(place, 0, listing.revision, BEGINS)
            self._complete = mark
        if is_first:
            self._write_mark()
        self._watch = self._cluster.watch(self._prefix, mark + 1, self._deliver)
        self._epoch.start()

    def _load(self, listing: Listing, mark: int) -> None:
        """Know what chunks and documents say as of the revision ``mark``."""
        self._tracker, self._tails, self._sizes = Tracker(self._keys, self._update_bytes), {}, {}
        at = milliseconds(self._now())
        for entry in listing.entries:
            if entry.key.startswith(self._keys.all_history()):
                self._note_size(entry)
                place = self._place_of(entry.key)
                if place is not None:
                    self._tail(place).saw(entry)
            elif entry.key == self._keys.history_seen():
                self._note_mark(entry)
        for place, tail in self._tails.items():
            self._tracker.groups[place] = Tracked(group=copied(tail.base))
        for entry in listing.entries:
            if entry.mod_revision <= mark and entry.key.startswith(self._prefix):
                self._tracker.adopt(entry.key, entry, at)
        for place, tracked in self._tracker.groups.items():
            self._tail(place).know(tracked.group)

    def _deliver(self, event: WatchEvent) -> None:
        match event:
            case KeyChanged():
                with self._changed:
                    self._take(event.key, event.entry, event.revision)
                    if not event.more:
                        self._complete = event.revision
                        self._changed.notify_all()
            case Resynced():
                with self._changed:
                    self._resync(event.listing)
                    self._changed.notify_all()

    def _take(self, key: str, entry: Entry | None, revision: int) -> None:
        below = key[self._below :]
        if below.startswith("history/"):
            self._saw_chunk(key, entry)
        elif below == "history-seen":
            if entry is not None:
                self._note_mark(entry)
        elif below.startswith(_FOLLOWED):
            self._add(key, entry, revision, revision)

    def _add(self, key: str, entry: Entry | None, revision: int, arrived: int) -> None:
        """Take a change that came at ``arrived``, unless another process, or this one before, has recorded it."""

        def is_wanted(place: GroupId) -> bool:
            return self._tail(place).last < arrived

        at = self._time()
        for place, step in self._tracker.take(
            key, entry, revision, at, wanted=is_wanted, is_late=arrived <= self._late
        ):
            self._tail(place).add(arrived, step)

    def _time(self) -> int:
        """Milliseconds since 1970, never less than before."""
        self._last_at = max(self._last_at, milliseconds(self._now()))
        return self._last_at

    def _note_mark(self, entry: Entry) -> None:
        """A mark ahead of its own revision is from before a restore: it is written anew."""
        self._mark_revision = entry.mod_revision
        value = int(entry.value) if entry.value.isdigit() else -1
        self._marked = value if value <= entry.mod_revision else -1

    def _saw_chunk(self, key: str, entry: Entry | None) -> None:
        place = self._place_of(key)
        if entry is None:
            self._sizes.pop(key, None)
            return
        self._note_size(entry)
        if place is None:
            return
        tail = self._tail(place)
        if entry.mod_revision <= tail.revision:
            return  # our own
        if not tail.saw(entry):
            return
        # another process has written: what is left is what came since, and is still news
        waiting, tail.pending = [one for one in tail.pending if one.revision > tail.last], []
        tracked = self._tracker.groups.setdefault(place, Tracked())
        tracked.group = copied(tail.base)
        for one in waiting:
            if one.step.kind == "gap" and one.step.number < tail.last:
                continue
            if self._tracker.is_news(place, one.step):
                tracked.group.apply(one.step)
                tail.pending.append(one)

    def _resync(self, listing: Listing) -> None:
        """Changes are gone before they could be seen: what is known is compared, and the gap is told."""
        before, self._late = self._complete, listing.revision
        was_restored = listing.revision < before
        lost, self._mark_revision, self._marked = self._pending_from(), 0, -1
        self._load(listing, 0)
        why = "etcd was restored" if was_restored else "etcd had compacted it before anybody recorded it"
        for place in sorted({*self._tracker.groups, *self._living(listing)}):
            self._gap(place, 0 if was_restored else min(before, lost), listing.revision, why)
        there = {entry.key for entry in listing.entries}
        for entry in sorted(listing.entries, key=lambda one: one.mod_revision):
            below = entry.key[self._below :]
            if below.startswith(_FOLLOWED) and not below.startswith("activity/"):
                self._add(entry.key, entry, entry.mod_revision, listing.revision)
        for (app, group), tracked in self._tracker.groups.items():
            for name, known in list(tracked.group.instances.items()):
                presence = self._keys.presence(app, group, name)
                if known.is_there and presence not in there:
                    self._add(presence, None, listing.revision, listing.revision)
                if known.turn >= 0 and not self._has_turn(app, name, known.turn, there):
                    ended = f"{self._keys.prefix}/turns/{app}/{group}/slots/{known.turn}/{name}"
                    self._add(ended, None, listing.revision, listing.revision)
        self._complete = listing.revision

    def _living(self, listing: Listing) -> set[GroupId]:
        """Groups that have a sidekick."""
        parts = (entry.key[self._below :].split("/") for entry in listing.entries)
        return {(one[1], one[2]) for one in parts if one[0] == "presence" and len(one) == 4}

    def _has_turn(self, app: str, instance: str, number: int, there: set[str]) -> bool:
        own, shared = f"/slots/{number}/{instance}", f"/slots/{number}/{app}/{instance}"
        turns = (self._keys.app_turns(app), self._keys.all_shared_turns())
        return any(key.endswith((own, shared)) and key.startswith(turns) for key in there)

    def _pending_from(self) -> int:
        firsts = [tail.pending[0].revision - 1 for tail in self._tails.values() if tail.pending]
        return min(firsts, default=self._complete)

    def _gap(self, place: GroupId, since: int, revision: int, why: str) -> None:
        step = Step(revision=revision, kind="gap", at=self._time(), number=since, text=why)
        self._tail(place).add(revision, step)

    def _tail(self, place: GroupId) -> Tail:
        return self._tails.setdefault(place, Tail())

    def _note_size(self, entry: Entry) -> None:
        self._sizes[entry.key] = (entry.create_revision, len(entry.key) + len(entry.value))

    def _place_of(self, key: str) -> GroupId | None:
        match key[self._below :].split("/"):
            case ["history", app, group, _]:
                return app, group
            case _:
                return None

    def _flush(self) -> None:
        with self._changed:
            places = [place for place, tail in self._tails.items() if tail.pending]
        for place in places:
            while self._flush_group(place):
                pass
        self._trim()

    def _flush_group(self, place: GroupId) -> bool:
        """Write a group's next chunk; True when there is more to write at once."""
        with self._changed:
            tail = self._tail(place)
            write = tail.next_write(self._keys, *place, self._complete)
            guard = NotNewer(key=self._keys.history(*place), revision=max(self._complete, tail.revision))
        if write is None:
            return False
        done = self._cluster.txn((guard,), (Put(key=write.key, value=write.value),))
        if not done.succeeded:
            return False  # another process was sooner: its chunk comes with the watch
        if self._on_written is not None:
            self._on_written(place, write.content.steps[-write.taken :])
        with self._changed:
            if self._tails.get(place) is not tail or tail.revision >= done.revision:
                return True  # the watch has brought it already, or all was read anew meanwhile
            if write.key != tail.key:
                self._tracker.forget_gone(place, milliseconds(write.chunk.ended))
            tail.wrote(write, done.revision)
            created = self._sizes.get(write.key, (done.revision, 0))[0]
            self._sizes[write.key] = (created, len(write.key) + len(write.value))
            return write.taken == MAX_STEPS

    def _trim(self) -> None:
        """Remove the oldest chunks of all beyond the limit. Several processes may: they remove the same."""
        with self._changed:
            total = sum(size for _, size in self._sizes.values())
            doomed: list[str] = []
            for key, (_, size) in sorted(self._sizes.items(), key=lambda item: item[1]):
                if total <= self._max_bytes:
                    break
                doomed.append(key)
                total -= size
        for first in range(0, len(doomed), 100):
            part = doomed[first : first + 100]
            self._cluster.txn((), tuple(Delete(key=key) for key in part))
            with self._changed:
                for key in part:
                    self._sizes.pop(key, None)

    def _write_mark(self) -> None:
        """Write how far everything is recorded, unless another process has."""
        with self._changed:
            value = min(self._complete, self._pending_from())
            guard = ModifiedAt(key=self._keys.history_seen(), revision=self._mark_revision)
            if self._mark_revision and value <= self._marked:
                return
        done = self._cluster.txn((guard,), (Put(key=guard.key, value=str(value).encode()),))
        with self._changed:
            if done.succeeded:
                self._marked, self._mark_revision = value, max(self._mark_revision, done.revision)

    def _insist(self, what: Callable[[], None]) -> None:
        """Repeat it while etcd is away, until ``close``."""
        delay_s = RETRY_MIN_S
        while True:
            try:
                what()
                return
            except DriverError as error:
                level = "ERROR" if isinstance(error, Refused) else "WARNING"
                logger.bind(error_kind=error.kind, cause=str(error), retry=True).log(level, "history waits for etcd")
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, delay_s):
                    return
            delay_s = min(RETRY_MAX_S, delay_s * 2)
