"""A group over time, from its history: how many ran each version, what each instance did, who held each turn.

Theory. What is drawn of a chunk depends on the chunk alone, which has what was known before it. So a chunk is unpacked
once for each time that it is written, and what it says is kept in short: the numbers of the versions, and of the
rollout that is looked at also the states and the turns.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from outrider.core.errors import Conflict, OutriderError
from outrider.model.damage import DAMAGE, read_or_none
from outrider.model.history import Chunk, Content, Group, content_of, copied, milliseconds
from outrider.service.store.context import StoreContext

AWAY = "away"
"""The state of an instance whose presence has ended."""
AT_LEAST_S = 2.0
"""Between two looks at the history of a group."""
SHARE = 20
"""A look that takes long is repeated seldom: reading takes that part of the time at most."""
GROUPS = 50
"""Groups whose past is kept."""
POINTS_OF_CHUNK = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """From ``at`` on (milliseconds since 1970) so many instances ran each version. None: nobody has recorded it."""

    at: int
    counts: Mapping[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """From ``at`` on the instance was in ``state``, and ran ``version``."""

    at: int
    state: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An instance held the turn of a slot; ``ended`` is None when the history doesn't know of an end."""

    slot: int
    instance: str
    began: int
    ended: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPast:
    """What the history says of a group.

    Attributes:
        points: The versions, the earliest first.
        stays: Of each instance since the rollout began, the earliest first.
        turns: Those held since then, by when they began.
        problem: Why nothing, or nothing new, is known; empty: all is well.
    """

    points: tuple[Point, ...] = ()
    stays: Mapping[str, tuple[Stay, ...]] = field(default_factory=dict)
    turns: tuple[Held, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What one chunk says. ``content``: kept of the chunks that the rollout is in."""

    revision: int
    ended: int
    points: tuple[Point, ...]
    content: Content | None


@dataclass(slots=True)
class _Kept:
    chunks: dict[str, _Facts] = field(default_factory=dict)
    past: GroupPast = field(default_factory=GroupPast)
    since: int | None = None
    due: float = 0.0
    reads: threading.Lock = field(default_factory=threading.Lock)


class Past:
    """Reads the past of groups, now and then, and keeps it. Safe to use from several threads."""

    def __init__(
        self, context: StoreContext, is_confirmed: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``is_confirmed``: etcd is known to answer; while it isn't, what is kept is given."""
        self._context, self._is_confirmed, self._clock = context, is_confirmed, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    def of(self, app: str, group: str, since: datetime | None) -> GroupPast:
        """The past of a group; states and turns from ``since`` on, None: none."""
        with self._lock:
            kept = self._kept.setdefault((app, group), _Kept())
            self._kept.move_to_end((app, group))
            while len(self._kept) > GROUPS:
                self._kept.popitem(last=False)
        since_ms = None if since is None else milliseconds(since)
        with kept.reads:
            if kept.due and (not self._is_confirmed() or (self._clock() < kept.due and kept.since == since_ms)):
                return kept.past
            began = self._clock()
            try:
                kept.past = self._read(kept, app, group, since_ms)
            except OutriderError as error:
                kept.past = replace(kept.past, problem=str(error))
            kept.since = since_ms
            kept.due = self._clock() + max(AT_LEAST_S, SHARE * (self._clock() - began))
            return kept.past

    def _read(self, kept: _Kept, app: str, group: str, since: int | None) -> GroupPast:
        chunks: dict[str, _Facts] = {}
        for entry in self._context.cluster.list(self._context.keys.history(app, group)).entries:
            known = kept.chunks.get(entry.key)
            if known is not None and known.revision == entry.mod_revision and _has(known, since):
                chunks[entry.key] = known
                continue
            chunk = read_or_none(Chunk, entry.key, entry.value)
            if chunk is None or chunk.last > entry.mod_revision:  # damaged, or of an etcd that was restored since
                continue
            try:
                content = content_of(entry.key, chunk)
            except Conflict as error:
                DAMAGE.note("chunk", entry.key, chunk.packed, error)
                continue
            ended = milliseconds(chunk.ended)
            is_wanted = since is not None and ended >= since
            chunks[entry.key] = _Facts(
                revision=entry.mod_revision,
                ended=ended,
                points=_thinned(tuple(points_in(content, milliseconds(chunk.began)))),
                content=content if is_wanted else None,
            )
        kept.chunks = chunks
        points = tuple(point for facts in chunks.values() for point in facts.points)
        if since is None:
            return GroupPast(points=points)
        contents = [facts.content for facts in chunks.values() if facts.content is not None and facts.ended >= since]
        return GroupPast(points=points, stays=stays_in(contents, since), turns=turns_in(contents, since))


def _has(facts: _Facts, since: int | None) -> bool:
    return since is None or facts.ended < since or facts.content is not None


def points_in(content: Content, began: int) -> Iterator[Point]:
    """How many living instances ran each version, at the beginning of a chunk and after each change in it."""
    group = copied(content.before)
    counts = _versions(group)
    steps = iter(content.steps)
    if counts:
        yield Point(at=began, counts=dict(counts))
    for step in steps:
        if step.kind == "gap" and step.number:
            yield Point(at=max(began, step.at - 1), counts=None)
            yield Point(at=step.at, counts=dict(counts))
            continue
        if step.kind not in ("state", "left"):
            group.apply(step)
            continue
        before = group.instances.get(step.instance)
        ran = before.version if before is not None and before.is_there else None
        group.apply(step)
        after = group.instances[step.instance]
        runs = after.version if after.is_there else None
        if ran != runs:
            if ran is not None:
                counts[ran] -= 1
            if runs is not None:
                counts[runs] += 1
            yield Point(at=step.at, counts={version: number for version, number in counts.items() if number})


def _versions(group: Group) -> Counter[str]:
    return Counter(one.version for one in group.instances.values() if one.is_there)


def _thinned(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """At most ``POINTS_OF_CHUNK``: of those that are close to each other the last one."""
    if len(points) <= POINTS_OF_CHUNK:
        return points
    first, span = points[0].at, max(1, points[-1].at - points[0].at)
    last_in = {(POINTS_OF_CHUNK - 1) * (point.at - first) // span: point for point in points}
    return tuple(last_in.values())


def stays_in(contents: Sequence[Content], since: int) -> dict[str, tuple[Stay, ...]]:
    """The states of each instance from ``since`` on (milliseconds since 1970)."""
    found: dict[str, list[Stay]] = {}
    for step in (step for content in contents for step in content.steps):
        if step.at < since or step.kind not in ("state", "left"):
            continue
        stay = Stay(at=step.at, state=step.state if step.kind == "state" else AWAY, version=step.version)
        own = found.setdefault(step.instance, [])
        if own and own[-1].state == stay.state:  # another version, or it serves now: the state goes on
            continue
        own.append(stay)
    return {name: tuple(stays) for name, stays in found.items()}


def turns_in(contents: Sequence[Content], since: int) -> tuple[Held, ...]:
    """The turns that were held at ``since`` or later (milliseconds since 1970), by when they were taken."""
    open_: dict[str, tuple[int, int]] = {}
    found: list[Held] = []

    def end(instance: str, at: int) -> None:
        slot, began = open_.pop(instance)
        if at >= since:
            found.append(Held(slot=slot, instance=instance, began=max(began, since), ended=at))

    for number, content in enumerate(contents):
        if number == 0:
            holding = {name: known.turn for name, known in content.before.instances.items() if known.turn >= 0}
            open_ |= {name: (slot, since) for name, slot in holding.items()}
        for step in content.steps:
            if step.kind == "turn":
                if step.instance in open_:
                    end(step.instance, step.at)
                open_[step.instance] = step.number, step.at
            elif step.kind == "turn-ended" and step.instance in open_:
                end(step.instance, step.at)
    found += [Held(slot=slot, instance=name, began=max(at, since), ended=None) for name, (slot, at) in open_.items()]
    return tuple(sorted(found, key=lambda one: (one.began, one.slot, one.instance)))
