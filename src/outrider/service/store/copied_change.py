"""A change that reads this process's copy of etcd, and compares all that it read when it is committed.

So a decision costs one transaction and no reading before it. A copy that is behind makes the comparison fail, and
never a wrong decision; the caller decides again, and reads etcd then. What changes nothing is compared, too: the answer
counts as of that moment.
"""

from outrider.etcd.seam import Cluster, Compare, CreatedAt, Op, TxnResult
from outrider.service.store.changes import Change
from outrider.service.store.read_model import ReadModel


class CopiedChange(Change):
    """Reads ``model``, its own process's writes included; writes ``cluster``."""

    def __init__(self, cluster: Cluster, model: ReadModel) -> None:
        super().__init__(model.ahead, model.decode)
        self._store, self._look, self._model = cluster, model.entry_ahead, model

    def fetch(self, *keys: str, only_existing: tuple[str, ...] = ()) -> None:
        """As ``Change.fetch``; no call is made.

        Raises:
            Behind: this process has written one of them otherwise than over the copy, a moment ago.
        """
        entries, look = self._entries, self._look
        for key in keys:
            if key not in entries:
                self._guard(key, look(key))
        for key in only_existing:
            if key not in entries:
                entry = entries[key] = look(key)
                self._guards[key] = CreatedAt(key=key, revision=0 if entry is None else entry.create_revision)

    def _write(self) -> bool:
        self._cluster = self._store
        if self._writes or not self._guards:
            return super()._write()
        result = self._store.txn(tuple(self._guards.values()), ())
        self._note_moved(result)
        return result.succeeded

    def _note_applied(self, result: TxnResult, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> None:
        self._model.note_ahead(result.revision, compares, ops)
