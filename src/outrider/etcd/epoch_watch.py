"""Notices that etcd was restored, so that everything that was read from it is looked over again.

A watch by itself notices an older copy as long as its revision is behind what was seen before; by the epoch one is
noticed that has overtaken us meanwhile (``model/epoch.py``).
"""

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
        self._subject: Subject | None = None

    def start(self) -> None:
        self._subject = Subject(self._cluster, self._key, self.tell, exact=True)

    def close(self) -> None:
        if self._subject is not None:
            self._subject.close()

    def tell(self, entries: dict[str, Entry], revision: int) -> None:
        """The epoch is this now."""
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
