"""One change of the stored documents is one guarded transaction.

Theory: a change reads documents and remembers the mod revision of each, decides, and writes everything at once under
the condition that nothing it read has moved. A change that loses this race starts again from reading. That alone leaves
one hole: a *new* key below a prefix that was listed moves no revision. Hence the rule: a change that adds a reference
to a document (a group to its channel, a channel to its package, anything to its app) *touches* that document: it writes
the document unchanged. A change that alters or removes the document then loses the race and lists again.

Every change names either the request on whose behalf it is made or the reason why it is unaudited. For a request, the
transaction that makes the change also compares the request's condition (``If-Match``) and writes the audit entries.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, assert_never

from loguru import logger

from outrider.core.errors import Conflict, NotFound, PreconditionFailed, Unknown
from outrider.etcd.seam import (
    Cluster,
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    Entry,
    Listing,
    ModifiedAt,
    Op,
    Put,
    TxnResult,
)
from outrider.model import documents
from outrider.model.damage import read_or_none
from outrider.model.documents import Document
from outrider.service.store.audit import AuditLog
from outrider.service.store.context import Decode
from outrider.service.store.request import Edit, RequestContext

D = TypeVar("D", bound=Document)
T = TypeVar("T")

ATTEMPTS = 24
"""Every race has a winner, so this many losses in a row mean two dozen other writers of the same keys at once."""
MAX_OPERATIONS = 128
"""etcd's default ``--max-txn-ops``: comparisons, and operations, of one transaction."""


_NO_REVISION = -1
"""No key was ever created at it: revisions begin at 1, and 0 stands for a key that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """Changes are made on behalf of a request: they obey its precondition and are recorded in the audit log."""

    request: RequestContext
    log: AuditLog


@dataclass(frozen=True, slots=True)
class Unaudited:
    """Changes are made by the service itself: no precondition, no entry in the audit log.

    Attributes:
        reason: Why no entry is needed, for the log; never empty.
    """

    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("an unaudited change says why it is unaudited")


Auditing = Audited | Unaudited
"""Every change is one or the other; there is no default."""


class Change:
    """What one transaction has read and is going to write."""

    def __init__(self, cluster: Cluster, decode: Decode = documents.decode) -> None:
        """``decode``: as ``documents.decode``, for who has decoded documents already."""
        self._cluster, self._decode = cluster, decode
        self._entries: dict[str, Entry | None] = {}
        self._guards: dict[str, Compare] = {}
        self._writes: dict[str, Op] = {}
        self._records: tuple[Put, ...] = ()
        self.moved: frozenset[str] = frozenset()
        """After a commit that failed: the keys that others have written since they were read."""

    def read(self, kind: type[D], key: str) -> D | None:
        """Read a document and guard it, even when it is absent."""
        if key not in self._entries:
            self._guard(key, self._cluster.get(key))
        entry = self._entries[key]
        return None if entry is None else self._decode(kind, key, entry.value)

    def read_or_none(self, kind: type[D], key: str) -> D | None:
        """As ``read``; None also for a document that can't be read, which a later ``put`` replaces."""
        if key not in self._entries:
            self._guard(key, self._cluster.get(key))
        entry = self._entries[key]
        if entry is None:
            return None
        try:
            return self._decode(kind, key, entry.value)
        except Conflict:
            return read_or_none(kind, key, entry.value)  # it logs and counts what can't be read

    def exists(self, key: str) -> bool:
        """Whether there is a value at ``key``, readable or not; guarded."""
        if key not in self._entries:
            self._guard(key, self._cluster.get(key))
        return self._entries[key] is not None

    def fetch(self, *keys: str, only_existing: tuple[str, ...] = ()) -> None:
        """Read several keys at one revision, in one call, and guard them; ``read`` then gives what was found.

        A transaction whose comparison cannot hold reads the keys that it compares, and writes nothing. For keys in
        ``only_existing`` a new value is no conflict; creation and removal are.
        """
        missing = tuple(dict.fromkeys(key for key in (*keys, *only_existing) if key not in self._entries))
        if not missing:
            return
        never = tuple(CreatedAt(key=key, revision=_NO_REVISION) for key in missing)
        found = {entry.key: entry for entry in self._cluster.txn(never, ()).found}
        for key in missing:
            entry = found.get(key)
            self._guard(key, entry)
            if key in only_existing:
                self._guards[key] = CreatedAt(key=key, revision=0 if entry is None else entry.create_revision)

    def require(self, kind: type[D], key: str, absent: str) -> D:
        """Read a document that must exist; ``absent`` is the message when it does not.

        Raises:
            NotFound: it does not exist.
        """
        document = self.read(kind, key)
        if document is None:
            raise NotFound(absent)
        return document

    def require_only_existing(self, kind: type[D], key: str, absent: str) -> D:
        """As ``require``, but a new value of the document is no conflict, only its removal.

        Raises:
            NotFound: it does not exist.
        """
        entry = self._cluster.get(key)
        if entry is None:
            raise NotFound(absent)
        self._guards.setdefault(key, CreatedAt(key=key, revision=entry.create_revision))
        return documents.decode(kind, key, entry.value)

    def list(self, prefix: str) -> Listing:
        """Read all entries below ``prefix``, unguarded: guard single ones with ``guard``, new ones by touching."""
        return self._cluster.list(prefix)

    def guard(self, kind: type[D], entry: Entry) -> D:
        """Guard an entry that came from a list."""
        if entry.key not in self._entries:
            self._guard(entry.key, entry)
        return documents.decode(kind, entry.key, entry.value)

    def guard_unread(self, entry: Entry) -> None:
        """Guard an entry that came from a list and is replaced, whether it can be read or not."""
        if entry.key not in self._entries:
            self._guard(entry.key, entry)

    def put(self, key: str, document: Document, *, lease: int = 0) -> None:
        """Write a document, unless it equals the one that was read; with ``lease`` always."""
        value = documents.encode(document)
        known = self._entries.get(key)
        if lease or known is None or known.value != value:
            self._writes[key] = Put(key=key, value=value, lease=lease)

    def put_value(self, key: str, value: bytes) -> None:
        """Write what is no document of ours: another program's, which was read and is guarded."""
        self._writes[key] = Put(key=key, value=value)

    def touch(self, key: str) -> None:
        """Write a document unchanged, as it was read: see the module's theory."""
        entry = self._entries[key]
        assert entry is not None, f"{key} was not read"
        self._writes.setdefault(key, Put(key=key, value=entry.value))

    def delete(self, key: str) -> None:
        self._writes[key] = Delete(key=key)

    def delete_below(self, prefix: str) -> None:
        self._writes[prefix] = DeletePrefix(prefix=prefix)

    def _compare_condition(self, audited: Audited) -> None:
        """Check the request's condition now, and let the transaction compare it again.

        Raises:
            PreconditionFailed: the condition does not hold.
        """
        condition = audited.request.condition
        if condition is None:
            return
        key, document = condition.key, condition.key.removeprefix(f"{audited.log.context.keys.prefix}/")
        if key not in self._entries:
            self._guard(key, self._cluster.get(key))
        entry = self._entries[key]
        if condition.holds(None if entry is None else entry.value):
            return
        if condition.absent:
            raise PreconditionFailed(
                f"{document} exists already, but the request says `If-None-Match: *`; nothing was done"
            )
        state = "no longer exists" if entry is None else "does not match `If-Match`"
        raise PreconditionFailed(f"{document} {state}: {audited.log.explain(key)}; nothing was done, read it again")

    def _record(self, audited: Audited) -> None:
        """Let the transaction also write its changes into the audit log."""
        edits = []
        for key, write in self._writes.items():
            if isinstance(write, DeletePrefix):
                continue
            entry = self._entries[key] if key in self._entries else self._cluster.get(key)
            after = write.value if isinstance(write, Put) else None
            edits.append(Edit(key=key, before=None if entry is None else entry.value, after=after))
        self._records = audited.log.puts(audited.request, edits)

    def _settle(self, audited: Audited) -> None:
        """Note what was read and written; the request's condition was for this change and is done with."""
        audited.request.condition = None
        audited.log.written(self._records)
        seen = audited.request.seen.documents
        for key, entry in self._entries.items():
            if entry is not None:
                seen[key] = entry.value
        for key, write in self._writes.items():
            if isinstance(write, Put):
                seen[key] = write.value
            else:
                seen.pop(key, None)

    @property
    def has_writes(self) -> bool:
        """Whether this change is going to write anything."""
        return bool(self._writes)

    @property
    def size(self) -> int:
        """How many of etcd's operations in a transaction this change takes as yet."""
        return max(len(self._guards), len(self._writes))

    def mark(self) -> "ChangeMark":
        """What it has read and is going to write as yet."""
        return dict(self._entries), dict(self._guards), dict(self._writes)

    def back_to(self, mark: "ChangeMark") -> None:
        """Forget everything since ``mark``."""
        self._entries, self._guards, self._writes = (dict(one) for one in mark)  # type: ignore[assignment]

    def overwrites(self, mark: "ChangeMark") -> bool:
        """Whether it writes something anew that it was going to write at ``mark``."""
        before = mark[2]
        return any(key in before and op is not before[key] for key, op in self._writes.items())

    def writes(self, key: str) -> bool:
        """Whether this change is going to write or remove ``key``."""
        return key in self._writes

    def entry(self, key: str) -> Entry | None:
        """The entry that was read at ``key``, with its revisions."""
        return self._entries[key]

    def revision(self, key: str) -> int:
        """The revision of the last write of ``key``; guarded. 0: there is nothing."""
        if key not in self._entries:
            self._guard(key, self._cluster.get(key))
        entry = self._entries[key]
        return 0 if entry is None else entry.mod_revision

    def commit(self, auditing: Auditing) -> bool:
        """Write everything, with its audit entries, or nothing; False when something that was read has moved.

        Raises:
            PreconditionFailed: the request's condition does not hold.
            Unknown: no answer, and reading again had none either.
            Conflict: more than etcd takes in one transaction.
        """
        match auditing:
            case Audited():
                self._compare_condition(auditing)
                with auditing.log.writing():
                    self._record(auditing)
                    committed = self._write()
                    if committed:
                        self._settle(auditing)
            case Unaudited(reason=reason):
                committed = self._write()
                if committed and self._writes:
                    logger.bind(keys=list(self._writes), reason=reason).debug("unaudited change")
            case _:
                assert_never(auditing)
        return committed

    def _write(self) -> bool:
        if not self._writes:
            return True
        compares, ops = tuple(self._guards.values()), (*self._writes.values(), *self._records)
        keys = max(len(compares), len(ops))
        if keys > MAX_OPERATIONS:
            raise Conflict(f"{keys} keys in one change, but etcd takes {MAX_OPERATIONS}; change less at once")
        try:
            result = self._cluster.txn(compares, ops)
        except Unknown:
            return self._was_applied()
        self._note_moved(result)
        if result.succeeded:
            self._note_applied(result, compares, ops)
        return result.succeeded

    def _note_applied(self, result: TxnResult, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> None:
        """What was to be written is."""

    def _note_moved(self, result: TxnResult) -> None:
        if not result.succeeded:
            found = {entry.key: entry for entry in result.found}
            self.moved = frozenset(key for key in self._guards if not self._is_as_read(key, found.get(key)))

    def _is_as_read(self, key: str, now: Entry | None) -> bool:
        guard = self._guards[key]
        if isinstance(guard, CreatedAt):
            return guard.revision == (0 if now is None else now.create_revision)
        return guard.revision == (0 if now is None else now.mod_revision)

    def _guard(self, key: str, entry: Entry | None) -> None:
        self._entries[key] = entry
        self._guards[key] = ModifiedAt(key=key, revision=0 if entry is None else entry.mod_revision)

    def _was_applied(self) -> bool:
        """All our values are stored, at other revisions than those that we read: no other writer writes all of them."""
        if self._records:
            # No other writer can have written our record: its key is random.
            return self._cluster.get(self._records[0].key) is not None
        for key, write in self._writes.items():
            if isinstance(write, DeletePrefix):
                continue
            now, before = self._cluster.get(key), self._entries.get(key)
            if isinstance(write, Delete):
                if now is not None:
                    return False
            elif now is None or now.value != write.value or (before and now.mod_revision == before.mod_revision):
                return False
        return True


ChangeMark = tuple[dict[str, Entry | None], dict[str, Compare], dict[str, Op]]
"""A point in a change to which it can go back."""


def apply(cluster: Cluster, attempt: Callable[[Change], T], auditing: Auditing) -> T:
    """Run ``attempt`` and commit what it wrote, again from the start whenever the race was lost.

    Args:
        cluster: Where it writes.
        attempt: Reads, decides and writes into the change that it is given.
        auditing: The request on whose behalf it is done, or the reason why it is unaudited.

    Returns:
        What the attempt that was committed returned.

    Raises:
        PreconditionFailed: the request's condition does not hold.
        Conflict: lost ``ATTEMPTS`` times in a row; or the attempt's own.
        Unknown: etcd gives no answer.
    """
    for lost in range(ATTEMPTS):
        change = Change(cluster)
        outcome = attempt(change)
        if change.commit(auditing):
            return outcome
        if lost:
            time.sleep(random.uniform(0, 0.002 * lost))  # noqa: S311 - parts rivals that would meet again and again
    raise Conflict(f"lost {ATTEMPTS} races against other changes of the same documents; try again")
