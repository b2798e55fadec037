"""A change that only looks: the read model's copy stands still meanwhile, so nothing is compared and nothing fetched.

What is judged in it may try to write; then a transaction must decide, and reads etcd. The keys that were looked at are
known afterwards: what this process has written at one of them, and the copy doesn't have yet, makes the look worthless.
"""

from typing import TypeVar

from outrider.core.errors import Conflict
from outrider.etcd.seam import Entry, Listing
from outrider.model.damage import read_or_none
from outrider.model.documents import Document
from outrider.service.store.changes import Auditing, Change
from outrider.service.store.read_model import ModelReader, ReadModel

D = TypeVar("D", bound=Document)


class Glance(Change):
    """What was seen of the copy, and whether anything would be written."""

    def __init__(self, model: ReadModel, reader: ModelReader) -> None:
        super().__init__(reader, model.decode)
        self._look, self._decode_known = model.entry, model.decode

    def entry(self, key: str) -> Entry | None:
        """The entry at ``key``."""
        try:
            return self._entries[key]
        except KeyError:
            found = self._entries[key] = self._look(key)
            return found

    def read(self, kind: type[D], key: str) -> D | None:
        """As ``Change.read``."""
        entry = self.entry(key)
        return None if entry is None else self._decode_known(kind, key, entry.value)

    def read_or_none(self, kind: type[D], key: str) -> D | None:
        """As ``Change.read_or_none``."""
        entry = self.entry(key)
        if entry is None:
            return None
        try:
            return self._decode_known(kind, key, entry.value)
        except Conflict:
            return read_or_none(kind, key, entry.value)

    def exists(self, key: str) -> bool:
        """As ``Change.exists``."""
        return self.entry(key) is not None

    def fetch(self, *keys: str, only_existing: tuple[str, ...] = ()) -> None:
        """Nothing: each key is looked at when it is read."""

    def list(self, prefix: str) -> Listing:
        """As ``Change.list``; the reader notes that more than single keys was looked at."""
        return self._cluster.list(prefix)

    @property
    def seen(self) -> frozenset[str]:
        """The keys that were looked at."""
        return frozenset(self._entries)

    def commit(self, auditing: Auditing) -> bool:
        """Never: see the module."""
        raise AssertionError("a glance is never written")
