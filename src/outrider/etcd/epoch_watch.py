"""Notices a restored etcd, so that all that was read from it is looked over again.

A watch by itself notices an older copy as long as its revision is behind what was seen before; by the epoch one is
noticed that has overtaken us meanwhile (``model/epoch.py``).
"""

import threading
import time
from collections.abc import Callable

from loguru import logger

from outrider.core.errors import Conflict
from outrider.etcd.seam import Cluster, Entry
from outrider.etcd.subject import Subject
from outrider.model.documents import decode
from outrider.model.epoch import Epoch, SeenEpochs
from outrider.model.keys import Keys


class EpochWatch:
    """Calls ``restored`` with the reason, once for each restore that is noticed."""

    def __init__(self, cluster: Cluster, keys: Keys, restored: Callable[[str], None]) -> None:
        self._cluster, self._key, self._restored = cluster, keys.epoch(), restored
        self._seen = SeenEpochs()
        self._mutex = threading.Lock()
        self._closed = False
        self._subject: Subject | None = None
        self._heard_at: float | None = None

    @property
    def silent_s(self) -> float | None:
        """Seconds since etcd last told of an epoch, which the update service renews each minute; None: never."""
        return None if self._heard_at is None else time.monotonic() - self._heard_at

    @property
    def newest(self) -> str:
        """The last token that was seen; empty for none."""
        return self._seen.newest

    def read(self) -> None:
        """Take the epoch of now as seen. For who reads something next, and calls ``start`` after that.

        Without it the first epoch that is seen may be that of a restored etcd, and what was read before it stays.
        Tells nobody of a restore: what was read before is read anew by the caller.

        Raises:
            Unknown: etcd gives no answer.
        """
        listing = self._cluster.list(self._key, exact=True)
        self._seen = SeenEpochs()
        self.tell({entry.key: entry for entry in listing.entries}, listing.revision)

    def start(self) -> None:
        """Follow it from now on; returns at once, also while etcd is away. Does nothing after ``close``."""
        with self._mutex:
            if self._subject is None and not self._closed:
                self._subject = Subject(self._cluster, self._key, self.tell, exact=True)

    def close(self) -> None:
        """Stop; ``restored`` isn't called any more after this returns."""
        with self._mutex:
            self._closed = True
        if self._subject is not None:
            self._subject.close()

    def tell(self, entries: dict[str, Entry], revision: int) -> None:
        """The epoch is this now."""
        self._heard_at = time.monotonic()
        entry = entries.get(self._key)
        try:
            epoch = decode(Epoch, entry.key, entry.value) if entry is not None else None
        except Conflict as error:
            logger.bind(cause=str(error)).error("document not understood")
            return
        why = self._seen.saw(epoch, revision)
        if why:
            logger.bind(why=why).warning("etcd was restored")
            self._restored(why)
