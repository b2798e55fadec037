"""Rows whose only news is that their instance was seen: written in the background, many in one transaction.

A check-in that changes nothing else is answered at once. That it came is written within a second or two; a service
that is killed meanwhile loses that, and the next check-in of the instance says it again. Nothing is overwritten: a row
that was changed since it was looked at has been seen since, too.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from loguru import logger

from outrider.core.errors import DriverError
from outrider.etcd.seam import Cluster, Entry, ModifiedAt, Put
from outrider.model.documents import Instance, encode

EVERY_S = 1.0
AT_ONCE = 100
"""Rows of one transaction; etcd takes 128 operations by default."""
MOST = 20_000
"""Rows that may wait; more check-ins than that are decided by transactions, as without this."""


class Touches:
    """Rows to be written. Safe to use from several threads."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._waiting: dict[str, tuple[Entry, Instance]] = {}
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._runs = False

    @contextmanager
    def running(self, interval_s: float = EVERY_S) -> Iterator[None]:
        """Write them while the block runs, and what is left at its end."""
        thread = threading.Thread(target=self._run, args=(interval_s,), name="outrider-last-seen", daemon=True)
        self._runs = True
        thread.start()
        try:
            yield
        finally:
            self._runs = False
            self._ended.set()
            thread.join(10.0)

    def take(self, rows: Sequence[tuple[Entry | None, Instance]]) -> bool:
        """Take the rows as they were read, and as they are now; False: there is no room, or nobody writes them."""
        with self._mutex:
            if not self._runs or len(self._waiting) >= MOST:
                return False
            self._waiting.update({entry.key: (entry, row) for entry, row in rows if entry is not None})
        return True

    def write(self) -> int:
        """Write what waits; how many rows were written.

        Raises:
            DriverError: etcd gives no answer; what was not written is lost.
        """
        with self._mutex:
            waiting, self._waiting = list(self._waiting.values()), {}
        return sum(self._write(waiting[at : at + AT_ONCE]) for at in range(0, len(waiting), AT_ONCE))

    def _write(self, rows: list[tuple[Entry, Instance]]) -> int:
        while rows:
            compares = tuple(ModifiedAt(key=entry.key, revision=entry.mod_revision) for entry, _ in rows)
            result = self._cluster.txn(compares, tuple(Put(key=entry.key, value=encode(row)) for entry, row in rows))
            if result.succeeded:
                return len(rows)
            now = {entry.key: entry.mod_revision for entry in result.found}
            left = [each for each in rows if now.get(each[0].key) == each[0].mod_revision]
            if len(left) == len(rows):
                return 0  # nothing has moved by what etcd says now; the next check-in says it again
            rows = left
        return 0

    def _run(self, interval_s: float) -> None:
        while True:
            has_ended = self._ended.wait(interval_s)
            try:
                self.write()
            except DriverError as error:
                logger.bind(error_kind=error.kind, cause=str(error)).warning("not written when instances were seen")
            if has_ended:
                return
