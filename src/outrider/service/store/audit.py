"""The audit log: each change with its principal and the document before and after, in the transaction that makes it.

There is one key per changed document, below the day of the change. The process that writes the first entry of a new day
removes the days that are too old. Leases would not do: etcd restarts them with every election of a leader. Targets are
not recorded, because they follow from recorded documents; nor are writes of instances and sidekicks.
"""

import itertools
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
from loguru import logger

from outrider.core.addresses import masked
from outrider.core.errors import OutriderError
from outrider.etcd.seam import Delete, DeletePrefix, Entry, Put
from outrider.model.damage import read_or_none
from outrider.model.documents import Document, Role, encode
from outrider.model.keys import Keys
from outrider.service.store.context import StoreContext
from outrider.service.store.request import Edit, RequestContext

KEPT_DAYS = 90
MAX_TEXT = 2000
"""Characters of one field in the log; release notes may be longer, and the package has them."""
SECRET_FIELDS = frozenset({"token_sha256", "secrets", "salt"})

Facts = dict[str, object]

_NOUNS = {
    ("apps", 2): "app",
    ("packages", 4): "package",
    ("channels", 4): "channel",
    ("groups", 4): "group",
    ("instances", 3): "instance",
    ("blocks", 3): "release",
    ("gone", 3): "removal",
    ("commands", 3): "command",
    ("users", 2): "user",
    ("webhooks", 2): "webhook",
    ("payloads", 2): "payload",
}
_OF_NO_APP = frozenset({"users", "webhooks", "payloads"})
_NOT_RECORDED = frozenset(
    {"presence", "turns", "shared-turns", "wakeups", "activity", "audit", "products", "unresolved", "cluster"}
)
_NOT_RECORDED_OF_A_GROUP = frozenset({"target", "brake", "served", "grants", "deferrals"})


class AuditEntry(Document, frozen=True, kw_only=True):
    """``audit/entries/{day}/{time}-{order}-{random}``: one change of one document.

    Attributes:
        who: The user's name; ``address`` is the client's.
        did: Method and path of the request, or the command of the command line.
        verb: create, update or delete.
        key: Of the document, below the prefix.
        app: Empty for users, webhooks and payloads.
        before, after: The document; None: it did not exist. Long texts are cut, secrets are left out.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """The audit log of one key prefix.

    Attributes:
        kept_days: Each entry stays for at least this many days.
    """

    context: StoreContext
    kept_days: int = KEPT_DAYS
    _days_begun: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def puts(self, request: RequestContext, edits: Iterable[Edit]) -> tuple[Put, ...]:
        """The writes that record ``edits``, for the transaction that makes them; empty when none is recorded."""
        now, keys = self.context.now(), self.context.keys
        day = f"{now.astimezone(UTC):%Y-%m-%d}"
        puts = []
        for edit in edits:
            entry = _entry(request, edit, keys, now)
            if entry is not None:
                order = f"{next(self._order) % 1_000_000:06}"  # of what this process writes at the same time
                key = f"{keys.audit_entries(day)}{now.astimezone(UTC):%H%M%S.%f}-{order}-{uuid.uuid4().hex[:12]}"
                puts.append(Put(key=key, value=encode(entry)))
        if puts and day not in self._days_begun:
            puts.append(Put(key=keys.audit_days() + day, value=encode(AuditDay(day=day))))
        return tuple(puts)

    def record(self, request: RequestContext, edit: Edit) -> None:
        """Record a change of something that is not in etcd, after it was made.

        Raises:
            Unknown: etcd gives no answer; the entry may be missing.
        """
        puts = self.puts(request, [edit])
        self.context.cluster.txn((), puts)
        self.written(puts)

    def written(self, puts: tuple[Put, ...]) -> None:
        """Note that ``puts`` are stored; with the first entry of a day in this process, remove the old days."""
        for put in puts:
            prefix, _, day = put.key.rpartition("/")
            if f"{prefix}/" == self.context.keys.audit_days() and day not in self._days_begun:
                with self._lock:
                    self._days_begun.add(day)
                try:
                    self.remove_old()
                except OutriderError as error:
                    # Another process does it, or this one tomorrow.
                    logger.bind(error_kind=error.kind, cause=str(error)).warning("old audit entries not removed")

    def remove_old(self) -> None:
        """Remove the days that are older than ``kept_days``.

        Raises:
            Unknown: etcd gives no answer.
        """
        for day in self._days():
            if day < self._oldest_day():
                keys = self.context.keys
                entries, mark = DeletePrefix(prefix=keys.audit_entries(day)), Delete(key=keys.audit_days() + day)
                self.context.cluster.txn((), (entries, mark))

    def list(self, wanted: Wanted, *, limit: int, before: str | None = None) -> tuple[StoredAuditEntry, ...]:
        """The newest entries, newest first; those before the entry with the id ``before`` when given."""
        found: list[StoredAuditEntry] = []
        oldest = self._oldest_day()
        if wanted.since is not None:
            # Not strftime: on Linux its year 900 has three digits, and would be the latest of all.
            oldest = max(oldest, wanted.since.astimezone(UTC).date().isoformat())
        for recorded in self._newest_first(oldest, before):
            if wanted.includes(recorded.entry):
                found.append(recorded)
                if len(found) == limit:
                    break
        return tuple(found)

    def explain(self, key: str) -> str:
        """Describe the last change of the document at ``key`` for a person: principal, time and request."""
        below = key.removeprefix(f"{self.context.keys.prefix}/")
        for recorded in self._newest_first(self._oldest_day()):
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

    def _oldest_day(self) -> str:
        return f"{self.context.now().astimezone(UTC) - timedelta(days=self.kept_days):%Y-%m-%d}"


def noun_of(below: str) -> tuple[str, str, str] | None:
    """Noun, name and app of a document by its key below the prefix; None when its changes aren't recorded."""
    parts = below.split("/")
    if parts[0] in _NOT_RECORDED:
        return None
    app = "" if parts[0] in _OF_NO_APP or len(parts) < 2 else parts[1]
    collection = parts[2] if parts[0] == "apps" and len(parts) > 2 else parts[0]
    if parts[0] == "environments" and len(parts) == 4:
        return "environment", parts[2], app
    noun = _NOUNS.get((collection, len(parts)))
    if noun is not None:
        return noun, parts[-1], app
    if parts[0] == "apps" and len(parts) > 4:
        # A part of a group, a channel or a package with a key of its own, for example a rollout.
        return None if parts[4] in _NOT_RECORDED_OF_A_GROUP else (parts[4], parts[3], app)
    return parts[0], parts[-1], app


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
    return fact


def _stored_entry(entry: Entry, day: str, prefix: str) -> StoredAuditEntry | None:
    found = read_or_none(AuditEntry, entry.key, entry.value)
    return None if found is None else StoredAuditEntry(id=f"{day}T{entry.key.removeprefix(prefix)}", entry=found)
