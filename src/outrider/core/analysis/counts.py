"""Who serves which version, and what was counted of them between two looks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from outrider.core.analysis.sequential import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Addresses, ``http://host:port``, of the servers of a group.

    Attributes:
        candidate: They serve the release that is analysed.
        old: They serve another one, and aren't in the middle of a swap.
    """

    candidate: frozenset[str]
    old: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Counters, as they stood at one moment, of the servers on both sides; a server that can't be read isn't there."""

    sides: Sides
    counts: Mapping[str, Counts]


def between(before: Look, after: Look) -> tuple[Counts, Counts]:
    """What was counted between two looks, of the candidate and of the old version.

    Only servers count that were on the same side, and could be read, at both. One whose counters went back has begun
    anew, or its balancer has: of that interval nothing is known.
    """
    candidate = before.sides.candidate & after.sides.candidate
    old = before.sides.old & after.sides.old
    return _increase(before, after, candidate), _increase(before, after, old)


def _increase(before: Look, after: Look, servers: Collection[str]) -> Counts:
    total = Counts()
    for server in servers:
        first, last = before.counts.get(server), after.counts.get(server)
        if first is None or last is None or last.requests < first.requests or last.errors < first.errors:
            continue
        requests, errors = last.requests - first.requests, last.errors - first.errors
        total += Counts(requests=requests, errors=min(errors, requests))
    return total
