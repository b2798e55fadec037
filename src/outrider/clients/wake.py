"""What wakes a watcher before its interval is over: the group's target, a wake-up, an unblocked release (in etcd)."""

import threading
from collections.abc import Callable

from outrider.core.errors import DriverError
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.seam import Cluster, KeyChanged, Watch, WatchEvent
from outrider.etcd.seen import SeenRevision
from outrider.model.keys import Keys

RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0


class Announced:
    """Calls ``wake`` whenever the service has said something that concerns one instance.

    Once more when the watches stand: what changed before that is found by the check which follows. While etcd is away
    the watcher's own interval goes on.
    """

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        *,
        app: str,
        group: str,
        instance: str,
        wake: Callable[[], None],
        seen: SeenRevision | None = None,
    ) -> None:
        """``seen``: notes what was heard; the update service answers from nothing older."""
        self._seen = seen or SeenRevision()
        self._cluster, self._wake = cluster, wake
        self._subjects = (
            (keys.target(app, group), True, self._written),
            (keys.wakeup(app, instance), True, self._written),
            # A watcher has no presence, so nobody wakes it when a release is no longer blocked.
            (keys.blocks(app), False, self._removed),
        )
        self._watches: list[Watch] = []
        self._epoch = EpochWatch(cluster, keys, self._look_again)
        self._seen.epoch = lambda: self._epoch.newest
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._begin, name="announced", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; the connection stays open."""
        self._closed.set()
        self._epoch.close()
        self._thread.join(10.0)
        for watch in self._watches:
            watch.close()

    def _begin(self) -> None:
        revisions = self._revisions()
        if not revisions:
            return
        self._seen.note(max(revisions))
        for (key, exact, deliver), revision in zip(self._subjects, revisions, strict=True):
            self._watches.append(self._cluster.watch(key, revision + 1, deliver, exact=exact))
        self._epoch.start()
        self._wake()

    def _revisions(self) -> list[int]:
        """From which each subject is watched; none after ``close``."""
        delay_s = RETRY_MIN_S
        while not self._closed.is_set():
            try:
                self._epoch.read()
                return [self._cluster.list(key, exact=exact).revision for key, exact, _ in self._subjects]
            except DriverError:
                self._closed.wait(delay_s)
                delay_s = min(RETRY_MAX_S, delay_s * 2)
        return []

    def _look_again(self, why: str) -> None:
        """etcd was restored: ask, whatever was said last."""
        self._seen.forget()
        for watch in self._watches:
            watch.look_again()
        self._wake()

    def _written(self, event: WatchEvent) -> None:
        """Removals say nothing: a wake-up whose lease ran out, a group that is gone."""
        self._note(event)
        if not isinstance(event, KeyChanged) or event.entry is not None:
            self._wake()

    def _removed(self, event: WatchEvent) -> None:
        self._note(event)
        if not isinstance(event, KeyChanged) or event.entry is None:
            self._wake()

    def _note(self, event: WatchEvent) -> None:
        self._seen.note(event.revision if isinstance(event, KeyChanged) else event.listing.revision)
