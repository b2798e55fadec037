"""The audit log: each change with its principal and the document before and after, in the transaction that makes it.

There is one key per changed document, below the day of the change. Entries are hash-chained (``audit_chain.py``).

Of the days that have entries the newest are kept, by etcd's revision and not by anybody's clock. The process that
writes its first entry of a day removes one day at most, and records that: so a process with a wrong clock erases
nothing. Leases would not do: etcd restarts them with every election of a leader.
"""

import itertools
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from loguru import logger

from outrider.core.addresses import masked
from outrider.core.errors import OutriderError
from outrider.etcd.seam import Delete, DeletePrefix, Entry, ModifiedAt, Op, Put
from outrider.model.damage import read_or_none
from outrider.model.documents import Document, Role, encode
from outrider.model.keys import Keys
from outrider.service.store.audit_chain import (
    LINK_EVERY,
    MOST_LINKS,
    Chained,
    Head,
    Link,
    Verdict,
    hash_of,
    verify,
)
from outrider.service.store.audit_nouns import noun_of
from outrider.service.store.context import StoreContext
from outrider.service.store.request import Edit, Principal, RequestContext

KEPT_DAYS = 90
MAX_TEXT = 2000
"""Characters of one field in the log; release notes may be longer, and the package has them."""
MAX_ITEMS = 100
"""Of a list in the log; the frames of a rollout may be more."""
SECRET_FIELDS = frozenset({"token_sha256", "hawk_key", "secret", "secrets", "salt"})

Facts = dict[str, object]


class AuditEntry(Document, frozen=True, kw_only=True):
    """``audit/entries/{day}/{time}-{order}-{random}``: one change of one document.

    Attributes:
        who: The user's name; ``address`` is the client's.
        did: Method and path of the request, or the command of the command line.
        verb: create, update or delete.
        key: Of the document, below the prefix.
        app: Empty for users, webhooks and payloads.
        before, after: The document; None: it did not exist. Long texts are cut, secrets are left out.
        link: Its place in the chain of the process that wrote it; None: an earlier version of outrider did.
    """

    at: datetime
    who: str
    role: Role
    address: str = ""
    did: str
    request_id: str = ""
    verb: str
    noun: str
    name: str
    app: str = ""
    key: str
    before: Facts | None = None
    after: Facts | None = None
    link: Link | None = None


class AuditDay(Document, frozen=True, kw_only=True):
    """``audit/days/{day}``: the log has entries of that day."""

    day: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAuditEntry:
    """An entry with its place in the log. ``id`` ascends with time."""

    id: str
    entry: AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries to list; a field that is None matches every entry."""

    who: str | None = None
    noun: str | None = None
    name: str | None = None
    app: str | None = None
    since: datetime | None = None

    def includes(self, entry: AuditEntry) -> bool:
        """Whether an entry matches."""
        asked = (
            (self.who, entry.who),
            (self.noun, entry.noun),
            (self.name, entry.name),
            (self.app, entry.app),
        )
        return all(wanted is None or wanted == is_ for wanted, is_ in asked) and (
            self.since is None or entry.at >= self.since
        )


@dataclass(slots=True)
class _Chain:
    """The chain that this process writes.

    Attributes:
        pending: The head, once what was made ready is stored.
        linked: The day on which it last named the heads of the others.
    """

    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    head: Head | None = None
    pending: Head | None = None
    linked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """The audit log of one key prefix.

    Attributes:
        kept_days: So many days that have entries are kept, the newest.
    """

    context: StoreContext
    kept_days: int = KEPT_DAYS
    _days_begun: set[str] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _order: Iterator[int] = field(default_factory=itertools.count)
    _chain: list[_Chain] = field(default_factory=lambda: [_Chain()])

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around ``puts``, their transaction and ``written``: this process appends one change after the other.

        When etcd gives no answer nobody knows the head of the chain, so the process begins another one.
        """
        with self._lock:
            try:
                yield
            except BaseException:
                self._chain[0] = _Chain()
                raise

    def puts(self, request: RequestContext, edits: Iterable[Edit]) -> tuple[Put, ...]:
        """The writes that record ``edits``, for the transaction that makes them; empty when none is recorded.

        Raises:
            Unknown: etcd gives no answer.
        """
        now, keys, chain = self.context.now(), self.context.keys, self._chain[0]
        day = now.astimezone(UTC).date().isoformat()
        puts: list[Put] = []
        head = chain.head
        for edit in edits:
            entry = _entry(request, edit, keys, now)
            if entry is not None:
                entry = msgspec.structs.replace(entry, link=self._link(head, day))
                order = f"{next(self._order) % 1_000_000:06}"  # of what this process writes at the same time
                key = f"{keys.audit_entries(day)}{now.astimezone(UTC):%H%M%S.%f}-{order}-{uuid.uuid4().hex[:12]}"
                puts.append(Put(key=key, value=encode(entry)))
                number = head.number + 1 if head else 1
                head = Head(number=number, hash=hash_of(self._below(key), puts[-1].value), day=day)
        chain.pending = head
        if puts and head is not None:
            puts.append(Put(key=keys.audit_heads() + chain.name, value=encode(head)))
            if day not in self._days_begun:
                puts.append(Put(key=keys.audit_days() + day, value=encode(AuditDay(day=day))))
        return tuple(puts)

    def _link(self, head: Head | None, day: str) -> Link:
        chain = self._chain[0]
        number = head.number + 1 if head else 1
        others = None
        if chain.linked != day or number % LINK_EVERY == 0:
            try:
                newest = sorted(self._heads().items(), key=lambda item: item[1][0].mod_revision, reverse=True)
            except OutriderError as error:
                # The next entry names them; the change itself may still succeed.
                logger.bind(error_kind=error.kind, cause=str(error)).warning("heads of audit chains not read")
            else:
                known = [(name, other) for name, (_, other) in newest if name != chain.name]
                others, chain.linked = dict(known[:MOST_LINKS]), day
        return Link(chain=chain.name, number=number, previous=head, others=others)

    def _heads(self) -> dict[str, tuple[Entry, Head]]:
        """The heads of all chains, by the chain's name, with how they are stored."""
        prefix = self.context.keys.audit_heads()
        read = (
            (entry, read_or_none(Head, entry.key, entry.value)) for entry in self.context.cluster.list(prefix).entries
        )
        return {entry.key.removeprefix(prefix): (entry, head) for entry, head in read if head is not None}

    def heads(self) -> dict[str, Head]:
        """The last entry of every chain, by the chain's name: to be kept elsewhere, for ``verify``."""
        return {name: head for name, (_, head) in self._heads().items()}

    def verify(self, exported: Mapping[str, Head]) -> Verdict:
        """Check that no entry was changed or taken out; ``exported``: heads that were kept elsewhere.

        Raises:
            Unknown: etcd gives no answer.
        """
        cluster, found = self.context.cluster, []
        prefix = f"{self.context.keys.prefix}/audit/entries/"
        for entry in cluster.list(prefix).entries:
            day = entry.key.removeprefix(prefix).partition("/")[0]
            recorded = _stored_entry(entry, day, self.context.keys.audit_entries(day))
            found.append(self._chained(entry, day, recorded))
        return verify(found, self.heads(), exported)

    def _chained(self, entry: Entry, day: str, recorded: "StoredAuditEntry | None") -> Chained:
        below = self._below(entry.key)
        if recorded is None:
            return Chained(id=below, day=day, link=None, hash="")
        known = recorded.entry
        removed = known.name if known.noun == "audit-day" and known.verb == "delete" else ""
        return Chained(
            id=recorded.id,
            day=day,
            link=known.link,
            hash=hash_of(below, entry.value),
            removed_day=removed,
            is_restore=known.noun == "database",
        )

    def _below(self, key: str) -> str:
        return key.removeprefix(f"{self.context.keys.prefix}/")

    def record(self, request: RequestContext, edit: Edit) -> None:
        """Record a change of something that is not in etcd, after it was made.

        Raises:
            Unknown: etcd gives no answer; the entry may be missing.
        """
        with self.writing():
            puts = self.puts(request, [edit])
            self.context.cluster.txn((), puts)
            self.written(puts)

    def written(self, puts: tuple[Put, ...]) -> None:
        """Note that ``puts`` are stored; with a process' first entry of a day, remove a day that is too old."""
        if puts:
            self._chain[0].head = self._chain[0].pending
        for put in puts:
            prefix, _, day = put.key.rpartition("/")
            if f"{prefix}/" == self.context.keys.audit_days() and day not in self._days_begun:
                self._days_begun.add(day)
                try:
                    self.remove_old()
                except OutriderError as error:
                    # Another process does it, or this one tomorrow.
                    logger.bind(error_kind=error.kind, cause=str(error)).warning("old audit entries not removed")

    def remove_old(self) -> None:
        """Remove the oldest day if more than ``kept_days`` have entries; one at most, and an entry says so.

        Raises:
            Unknown: etcd gives no answer.
        """
        keys = self.context.keys
        with self.writing():
            # The last time that a process began to write under a day is etcd's to tell: a clock may be wrong.
            marks = sorted(self.context.cluster.list(keys.audit_days()).entries, key=lambda mark: mark.mod_revision)
            if len(marks) <= self.kept_days:
                return
            oldest, day = marks[0], marks[0].key.removeprefix(keys.audit_days())
            done_with = [
                entry
                for name, (entry, head) in self._heads().items()
                if head.day == day and name != self._chain[0].name
            ]
            compared = [ModifiedAt(key=entry.key, revision=entry.mod_revision) for entry in (oldest, *done_with)]
            request = RequestContext(
                principal=Principal(name="(audit log)", role="admin"),
                did=f"the newest {self.kept_days} days with entries are kept",
                request_id=uuid.uuid4().hex,
            )
            puts = self.puts(request, [Edit(key=oldest.key, before=oldest.value, after=None)])
            removals: list[Op] = [
                DeletePrefix(prefix=keys.audit_entries(day)),
                *(Delete(key=one.key) for one in (oldest, *done_with)),
            ]
            if self.context.cluster.txn(tuple(compared), (*removals, *puts)).succeeded:
                self.written(puts)

    def list(self, wanted: Wanted, *, limit: int, before: str | None = None) -> tuple[StoredAuditEntry, ...]:
        """The newest entries, newest first; those before the entry with the id ``before`` when given."""
        found: list[StoredAuditEntry] = []
        # Not strftime: on Linux its year 900 has three digits, and would be the latest of all.
        oldest = "" if wanted.since is None else wanted.since.astimezone(UTC).date().isoformat()
        for recorded in self._newest_first(oldest, before):
            if wanted.includes(recorded.entry):
                found.append(recorded)
                if len(found) == limit:
                    break
        return tuple(found)

    def explain(self, key: str) -> str:
        """Describe the last change of the document at ``key`` for a person: principal, time and request."""
        below = key.removeprefix(f"{self.context.keys.prefix}/")
        for recorded in self._newest_first(""):
            entry = recorded.entry
            if entry.key == below:
                return f"changed by {entry.who} at {entry.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} ({entry.did})"
        return "the audit log has no entry of the change"

    def _newest_first(self, oldest: str, before: str | None = None) -> Iterator[StoredAuditEntry]:
        for day in reversed(self._days()):
            if day < oldest:
                return
            if before is not None and day > before[: len(day)]:
                continue
            prefix = self.context.keys.audit_entries(day)
            for entry in reversed(self.context.cluster.list(prefix).entries):
                recorded = _stored_entry(entry, day, prefix)
                if recorded is None:
                    continue
                if before is None or recorded.id < before:
                    yield recorded

    def _days(self) -> tuple[str, ...]:
        prefix = self.context.keys.audit_days()
        return tuple(entry.key.removeprefix(prefix) for entry in self.context.cluster.list(prefix).entries)


def _entry(request: RequestContext, edit: Edit, keys: Keys, now: datetime) -> AuditEntry | None:
    below = edit.key.removeprefix(f"{keys.prefix}/")
    named = noun_of(below)
    if named is None or edit.before == edit.after:
        return None
    noun, name, app = named
    return AuditEntry(
        at=now,
        who=request.principal.name,
        role=request.principal.role,
        address=request.principal.address,
        did=request.did,
        request_id=request.request_id,
        verb="create" if edit.before is None else "delete" if edit.after is None else "update",
        noun=noun,
        name=name,
        app=app,
        key=below,
        before=_facts(edit.before),
        after=_facts(edit.after),
    )


def _facts(value: bytes | None) -> Facts | None:
    if value is None:
        return None
    try:
        facts = msgspec.json.decode(value, type=Facts)
    except msgspec.DecodeError:
        return {"unreadable": len(value)}
    if facts.get("kind") == "notification":  # a webhook whose address holds a token or a password
        facts |= {"url": masked(str(facts.get("url", "")))}
    return {name: _shortened(fact) for name, fact in facts.items() if name not in SECRET_FIELDS}


def _shortened(fact: object) -> object:
    if isinstance(fact, str) and len(fact) > MAX_TEXT:
        return f"{fact[:MAX_TEXT]}... ({len(fact)} characters)"
    if isinstance(fact, list) and len(fact) > MAX_ITEMS:
        return [*fact[:MAX_ITEMS], f"... ({len(fact)} in all)"]
    return fact


def _stored_entry(entry: Entry, day: str, prefix: str) -> StoredAuditEntry | None:
    found = read_or_none(AuditEntry, entry.key, entry.value)
    return None if found is None else StoredAuditEntry(id=f"{day}T{entry.key.removeprefix(prefix)}", entry=found)
