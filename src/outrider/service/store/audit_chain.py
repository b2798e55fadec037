"""Hash chains of the audit log: each entry names the one before it, so that none can be changed or taken out unseen.

Each process writes a chain of its own: chains of several processes need no common lock. An entry's hash covers its key
and its value, with the hash of the entry before it. The head of a chain, the last entry's hash, is written by the
transaction that writes the entry. At the beginning of a chain, and now and then, an entry also names the heads of other
chains: so a chain that is taken out as a whole is missed, too.

What retention removes is recorded as an entry. Against somebody who may write to etcd and rewrites all chains, only
heads that were exported before help: ``outrider audit head``, ``outrider audit verify --head``.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from outrider.model.documents import Document

LINK_EVERY = 50
"""Entries of a chain between two that name the heads of the others."""
MOST_LINKS = 32


class Head(Document, frozen=True, kw_only=True):
    """``audit/heads/{chain}``: the last entry of a chain.

    Attributes:
        number: Of the entry in its chain, from 1.
        hash: Of the entry, 64 hex digits.
        day: Under which it is.
    """

    number: int
    hash: str
    day: str


class Link(Document, frozen=True, kw_only=True):
    """An entry's place in its chain.

    Attributes:
        chain: 32 hex digits.
        number: From 1.
        previous: The head before; None: it is the first.
        others: Heads of other chains, as this process knew them.
    """

    chain: str
    number: int
    previous: Head | None = None
    others: dict[str, Head] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chained:
    """An entry as it is stored.

    Attributes:
        id: As the log shows it.
        day: Under which it is.
        link: None: an earlier version of outrider wrote it.
        hash: As it is now.
        removed_day: It records that retention removed this day; empty: it records something else.
        is_restore: It records that a backup was restored, which replaces the log.
    """

    id: str
    day: str
    link: Link | None
    hash: str
    removed_day: str = ""
    is_restore: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What verification found.

    Attributes:
        findings: What must not be, one line each; empty: nothing was changed or taken out.
        notes: What explains itself.
        entries, chains: How many were checked.
        unchained: Entries of earlier versions, which nothing protects.
    """

    findings: tuple[str, ...]
    notes: tuple[str, ...]
    entries: int
    chains: int
    unchained: int


def hash_of(below: str, value: bytes) -> str:
    """The hash of an entry that is stored as ``value`` at the key ``below`` the prefix."""
    return hashlib.sha256(below.encode() + b"\n" + value).hexdigest()


@dataclass(slots=True)
class _Log:
    entries: tuple[Chained, ...]
    found: dict[tuple[str, int], list[Chained]] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    restored: str = ""

    def __post_init__(self) -> None:
        for entry in self.entries:
            if entry.link is not None:
                self.found.setdefault((entry.link.chain, entry.link.number), []).append(entry)
        self.removed = frozenset(entry.removed_day for entry in self.entries if entry.removed_day)
        self.restored = max((entry.id for entry in self.entries if entry.is_restore), default="")

    def missing(self, chain: str, head: Head) -> str | None:
        """Why an entry that is named somewhere isn't as it was; None: it is, or retention has removed its day."""
        there = self.found.get((chain, head.number), [])
        if any(entry.hash == head.hash for entry in there):
            return None
        if there:
            return f"{there[0].id} was changed"
        return None if head.day in self.removed else f"entry {head.number} of chain {chain[:8]} ({head.day}) is gone"


def verify(entries: Iterable[Chained], heads: Mapping[str, Head], exported: Mapping[str, Head]) -> Verdict:
    """Check every chain against itself, its head, the other chains and the heads that were exported.

    Args:
        entries: All of the log.
        heads: As they are stored, by chain.
        exported: As they were exported at some time before, by chain.
    """
    log = _Log(tuple(entries))
    findings: dict[str, None] = {}
    notes: dict[str, None] = {}

    def named(by: str, chain: str, head: Head) -> None:
        problem = log.missing(chain, head)
        if problem and log.restored and head.day <= log.restored[: len(head.day)] and "is gone" in problem:
            notes[f"{problem}; a backup was restored meanwhile ({log.restored})"] = None
        elif problem:
            findings[f"{problem}: {by} names it"] = None

    last: dict[str, Chained] = {}
    for (chain, number), there in sorted(log.found.items()):
        for extra in there[1:]:
            findings[f"{extra.id} has the place of {there[0].id} in its chain"] = None
        entry = there[0]
        assert entry.link is not None
        last[chain] = entry
        if entry.link.previous is not None:
            if entry.link.previous.number != number - 1:
                findings[f"{entry.id} doesn't follow the entry that it names"] = None
            named(entry.id, chain, entry.link.previous)
        elif number != 1:
            findings[f"{entry.id} names no entry before it, and is not the first of its chain"] = None
        for other, head in (entry.link.others or {}).items():
            named(entry.id, other, head)
    for chain, head in heads.items():
        named("the head of its chain", chain, head)
        if chain in last and last[chain].hash != head.hash and last[chain].link.number > head.number:  # type: ignore[union-attr]
            findings[f"{last[chain].id} is behind the head of its chain"] = None
    for chain, entry in last.items():
        if chain not in heads:
            findings[f"the head of the chain of {entry.id} is gone"] = None
    for chain, head in exported.items():
        named("an exported head", chain, head)
        now = heads.get(chain)
        if now is not None and now.number < head.number:
            findings[f"chain {chain[:8]} ends at {now.number}, and its exported head is {head.number}"] = None
    return Verdict(
        findings=tuple(findings),
        notes=tuple(notes),
        entries=len(log.entries),
        chains=len(last),
        unchained=sum(entry.link is None for entry in log.entries),
    )
