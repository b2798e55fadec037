"""Values that can't be read, in any family of keys: each is skipped, logged once, and counted.

A value can be damaged by hand, by another program, or by another version of outrider. It must affect only itself: code
that reads many documents takes the readable ones from here. Code that reads one document and can't do without it still
gets the error (``documents.decode``). Where leaving a document out would open a door or free a turn, the reader decides
by the key alone, and says so there.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from loguru import logger

from outrider.core.errors import Conflict
from outrider.model.documents import D, decode


class Stored(Protocol):
    """A key with its value, as etcd's entries are."""

    @property
    def key(self) -> str: ...

    @property
    def value(self) -> bytes: ...


E = TypeVar("E", bound=Stored)

_REMEMBERED = 10_000
"""Damaged values that are remembered, so that each is logged once; beyond that all are forgotten and logged again."""


class Damage:
    """What this process could not read, by kind of document. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[tuple[str, int]] = set()
        self._counts: Counter[str] = Counter()

    def note(self, kind: str, key: str, value: bytes, error: Conflict) -> None:
        """Log and count a value, unless that was done before."""
        with self._lock:
            if (key, hash(value)) in self._seen:
                return
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen.add((key, hash(value)))
            self._counts[kind] += 1
        logger.bind(key=key, error_kind=error.kind, cause=str(error)).error("document not understood and skipped")

    def counts(self) -> Mapping[str, int]:
        """How many damaged values were met so far, by kind of document, in lower case."""
        with self._lock:
            return dict(self._counts)


DAMAGE = Damage()
"""Of this process."""


def read_or_none(kind: type[D], key: str, value: bytes) -> D | None:
    """Read a document; None, logged and counted, when it can't be read."""
    try:
        return decode(kind, key, value)
    except Conflict as error:
        DAMAGE.note(kind.__name__.lower(), key, value, error)
        return None


def readable(kind: type[D], entries: Iterable[E]) -> Iterator[tuple[E, D]]:
    """The documents that can be read, with their entries; the others are logged and counted."""
    for entry in entries:
        document = read_or_none(kind, entry.key, entry.value)
        if document is not None:
            yield entry, document
