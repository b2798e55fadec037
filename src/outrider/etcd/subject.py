"""What is below a key or prefix, and every change of it: read once, then watched from the revision after that."""

import threading
from collections.abc import Callable

from loguru import logger

from outrider.core.errors import DriverError
from outrider.etcd.seam import (
    DENIED_RETRY_S,
    Cluster,
    Entry,
    KeyChanged,
    Listing,
    PermissionDenied,
    Resynced,
    Watch,
    WatchEvent,
)
from outrider.failpoints import failpoint, for_same_instance

RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0


class Subject:
    """Follows one key or prefix: a whole listing first, then every change."""

    def __init__(
        self, cluster: Cluster, prefix: str, tell: Callable[[dict[str, Entry], int], None], *, exact: bool
    ) -> None:
        """``tell`` gets all entries by key and the store's revision, once at first and after every change."""
        self._cluster, self._prefix, self._tell, self._exact = cluster, prefix, tell, exact
        self._entries: dict[str, Entry] = {}
        self._watch: Watch | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=for_same_instance(self._begin), name="announcements", daemon=True)
        self._thread.start()

    def begin_again(self) -> None:
        """Forget what is known and list it anew, from a thread of its own; for a store that isn't the same any more."""
        before = self._thread
        begin = for_same_instance(lambda: self._begin_after(before))
        self._thread = threading.Thread(target=begin, name="announcements", daemon=True)
        self._thread.start()

    def _begin_after(self, before: threading.Thread) -> None:
        before.join()
        if self._watch is not None:
            self._watch.close()
        self._begin()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(10.0)
        if self._watch is not None:
            self._watch.close()

    def _begin(self) -> None:
        delay_s = RETRY_MIN_S
        while not self._closed.is_set():
            try:
                with failpoint("announcement.read"):
                    listing = self._cluster.list(self._prefix, exact=self._exact)
                self._replace(listing)
                self._watch = self._cluster.watch(self._prefix, listing.revision + 1, self._deliver, exact=self._exact)
                return
            except DriverError as error:
                denied = isinstance(error, PermissionDenied)
                log = logger.bind(error_kind=error.kind, cause=str(error), key=self._prefix)
                log.log("ERROR" if denied else "WARNING", "etcd does not permit it" if denied else "etcd away")
                self._closed.wait(DENIED_RETRY_S if denied else delay_s)
                delay_s = min(RETRY_MAX_S, delay_s * 2)

    def _deliver(self, event: WatchEvent) -> None:
        match event:
            case KeyChanged():
                if event.entry is None:
                    self._entries.pop(event.key, None)
                else:
                    self._entries[event.key] = event.entry
                self._tell(dict(self._entries), event.revision)
            case Resynced():
                self._replace(event.listing)

    def _replace(self, listing: Listing) -> None:
        self._entries = {entry.key: entry for entry in listing.entries}
        self._tell(dict(self._entries), listing.revision)
