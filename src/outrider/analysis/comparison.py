"""New versus old, round by round, with the counts of a whole wave pooled in etcd.

Each round reads the pool, then who serves what, then all counters: of the candidates and of the servers on the old
version. What was counted since the round before is added to the pool in a transaction that compares the pool's revision
as it was read before that round's counters. So no two sidekicks add intervals that overlap, without any clock: whoever
comes second begins to count anew. Nothing is lost by that, for the first one has counted all servers, too.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from outrider.analysis.sources import ASKED_AT_MOST, Source
from outrider.core.analysis.answers import NoData
from outrider.core.analysis.counts import Look, Sides, between
from outrider.core.analysis.pool import Pool, begun
from outrider.core.analysis.results import Finding, Result
from outrider.core.analysis.sequential import Counts, Plan
from outrider.core.errors import DriverError
from outrider.etcd.seam import Cluster, Entry, ModifiedAt, Put
from outrider.failpoints import failpoint
from outrider.model.analysis import PooledAnalysis, pooled
from outrider.model.damage import read_or_none, readable
from outrider.model.documents import Presence, encode
from outrider.model.keys import Keys

NAME = "new versus old"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is compared.

    Attributes:
        url: Where this instance's own candidate answers; empty for whoever has none.
        release: Label of the candidate.
        wave: Name of the wave whose counts are pooled; empty where a rollout has none.
    """

    app: str
    group: str
    instance: str
    url: str
    release: str
    wave: str = ""


class Comparison:
    """One comparison from its first round on; ``look`` is a round."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        subject: Subject,
        source: Source,
        plan: Plan,
        *,
        at_most: int | None,
        clock: Callable[[], datetime],
    ) -> None:
        """Begin; nothing is asked yet.

        Args:
            at_most: How many servers on the old version are asked; None: all.
            clock: Aware UTC, for the document.
        """
        self._cluster, self._subject, self._source, self._plan = cluster, subject, source, plan
        self._at_most, self._clock = at_most, clock
        self._key = keys.analysis(subject.app, subject.group)
        self._presences = f"{keys.presences(subject.app)}{subject.group}/"
        self._pool: Pool | None = None
        self._before: tuple[Look, int] | None = None

    def look(self) -> Finding:
        """One round: what the wave's counts come to so far."""
        try:
            result, words = self._look()
        except (NoData, DriverError) as reason:
            return self._found("no data", f"no data: {reason}")
        return self._found(result, words)

    def _look(self) -> tuple[Result, str]:
        with failpoint("analysis.read"):
            entry = self._cluster.get(self._key)
            presences = self._cluster.list(self._presences).entries
        revision = entry.mod_revision if entry is not None else 0
        pool = self._known(entry)
        servers = sides_of(self._subject, (document for _, document in readable(Presence, presences)))
        asked = servers.asked(self._at_most)
        counts = self._source(asked)
        if self._subject.url and self._subject.url not in counts:
            self._before = None
            raise NoData(f"nothing is counted of {self._subject.url}")
        now = Look(sides=servers.sides, counts=counts)
        if self._before is None or self._before[1] != revision:
            self._before = (now, revision)
        elif servers.sides.old:
            pool = self._added(pool, now, revision)
        self._pool = pool
        return _judged(pool, servers.sides, self._plan)

    def _known(self, entry: Entry | None) -> Pool:
        """The wave's pool; in the first round a failure of before counts no more, see ``begun``."""
        subject = self._subject
        document = read_or_none(PooledAnalysis, entry.key, entry.value) if entry is not None else None
        known = document.pool if document is not None else None
        mine = self._pool
        if mine is not None and known is not None and mine.adds_up_with(known):
            # a failure that stood there at the beginning was set aside by us, until somebody writes anew
            return mine if known.failed and known.test.number < mine.test.number else known
        return begun(known, subject.release, subject.wave, self._plan)

    def _added(self, pool: Pool, now: Look, revision: int) -> Pool:
        """``pool`` with what was counted since the round before, if nobody else has added to it since then."""
        assert self._before is not None, "the caller has looked"
        candidate, old = between(self._before[0], now)
        if candidate == Counts() and old == Counts():
            return pool
        more = pool.with_interval(candidate, old, self._plan)
        document = pooled(more, self._subject.instance, self._clock())
        with failpoint("analysis.write"):
            written = self._cluster.txn(
                (ModifiedAt(key=self._key, revision=revision),), (Put(key=self._key, value=encode(document)),)
            )
        if not written.succeeded:
            self._before = None
            return pool
        self._before = (now, written.revision)
        return more

    def _found(self, result: Result, words: str) -> Finding:
        return Finding(check=NAME, result=result, words=words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Both sides, and which instance answers at each address."""

    sides: Sides
    instances: Mapping[str, str]

    def asked(self, at_most: int | None) -> Mapping[str, str]:
        """Those whose counters are read: of the old side the first ones by name where each is a question of its own."""
        old = sorted(self.sides.old, key=lambda url: self.instances[url])[:at_most]
        return {url: self.instances[url] for url in (*sorted(self.sides.candidate), *old)}


def sides_of(subject: Subject, presences: Iterable[Presence]) -> Servers:
    """Who serves the candidate, and who another release, by what sidekicks say of themselves."""
    candidate, old, instances = set[str](), set[str](), dict[str, str]()
    for presence in presences:
        if not presence.serves_url or presence.instance == subject.instance:
            continue
        (candidate if presence.serves_release == subject.release else old).add(presence.serves_url)
        instances[presence.serves_url] = presence.instance
    if subject.url:
        candidate.add(subject.url)
        old.discard(subject.url)
        instances[subject.url] = subject.instance
    return Servers(sides=Sides(candidate=frozenset(candidate), old=frozenset(old)), instances=instances)


def _judged(pool: Pool, sides: Sides, plan: Plan) -> tuple[Result, str]:
    sample = pool.sample(plan)
    match pool.decision:
        case "pass":
            return "pass", sample
        case "fail":
            return "fail", sample
        case _:
            alone = "" if sides.old else "; no instance is left on the old version to compare with"
            return "no data", f"{sample}{alone}"


__all__ = ["ASKED_AT_MOST", "NAME", "Comparison", "Servers", "Subject", "sides_of"]
